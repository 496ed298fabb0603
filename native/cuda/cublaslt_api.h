#pragma once

// The part of the cuBLASLt interface that we use, declared here because the library is found at run
// time and its headers are not needed to build. Numbers and signatures are those of cublasLt.h 13.1.1;
// native/test/cublaslt_declarations.cc compares the two where the headers are installed.

#include <cstddef>
#include <cstdint>

// What cudaStream_t points to. Declared so that code which only passes a stream on needs no CUDA header.
struct CUstream_st;

namespace loko::cuda {

using LtStream = CUstream_st*;
using LtHandle = struct LtContext*;
using LtDesc = struct LtDescOpaque*;
using LtLayout = struct LtLayoutOpaque*;
using LtPreference = struct LtPreferenceOpaque*;

using LtStatus = int;
constexpr LtStatus kLtSuccess = 0;
constexpr LtStatus kLtAllocFailed = 3;
constexpr LtStatus kLtNotSupported = 15;

/// "CUBLAS_STATUS_NOT_SUPPORTED (15)"
const char* ltStatusName(LtStatus status);

constexpr int kLtComputeFloat32 = 68;  // CUBLAS_COMPUTE_32F
constexpr int kLtComputeTf32 = 77;     // CUBLAS_COMPUTE_32F_FAST_TF32
constexpr int kLtTypeFloat32 = 0;      // CUDA_R_32F
constexpr int kLtTypeBfloat16 = 14;    // CUDA_R_16BF

constexpr std::int32_t kLtOpNone = 0;
constexpr std::int32_t kLtOpTranspose = 1;

constexpr int kLtDescTransA = 3;             // int32
constexpr int kLtDescTransB = 4;             // int32
constexpr int kLtPrefMaxWorkspaceBytes = 1;  // uint64
constexpr int kLtPrefMinAlignmentA = 5;      // uint32, as the next three
constexpr int kLtPrefMinAlignmentB = 6;
constexpr int kLtPrefMinAlignmentC = 7;
constexpr int kLtPrefMinAlignmentD = 8;

struct LtAlgorithm {
  std::uint64_t data[8];
};

struct LtHeuristicResult {
  LtAlgorithm algorithm;
  std::size_t workspaceBytes;
  LtStatus state;
  float waves;
  int reserved[4];
};

/// The functions of the library; a test gives its own.
struct CublasLtApi {
  LtStatus (*create)(LtHandle*);
  LtStatus (*destroy)(LtHandle);
  std::size_t (*getVersion)();
  LtStatus (*descCreate)(LtDesc*, int computeType, int scaleType);
  LtStatus (*descDestroy)(LtDesc);
  LtStatus (*descSetAttribute)(LtDesc, int attribute, const void* value, std::size_t bytes);
  LtStatus (*layoutCreate)(LtLayout*, int type, std::uint64_t rows, std::uint64_t cols,
                           std::int64_t ld);
  LtStatus (*layoutDestroy)(LtLayout);
  LtStatus (*preferenceCreate)(LtPreference*);
  LtStatus (*preferenceDestroy)(LtPreference);
  LtStatus (*preferenceSetAttribute)(LtPreference, int attribute, const void* value,
                                     std::size_t bytes);
  LtStatus (*getHeuristic)(LtHandle, LtDesc, LtLayout a, LtLayout b, LtLayout c, LtLayout d,
                           LtPreference, int requested, LtHeuristicResult* results, int* returned);
  LtStatus (*matmul)(LtHandle, LtDesc, const void* alpha, const void* a, LtLayout, const void* b,
                     LtLayout, const void* beta, const void* c, LtLayout, void* d, LtLayout,
                     const LtAlgorithm*, void* workspace, std::size_t workspaceBytes, LtStream);
};

}  // namespace loko::cuda
