#pragma once

// A cuBLASLt for machines without one: the same table of functions, computing in double on host memory
// (what the CUDA emulation gives as device memory is host memory too). It is strict where the library
// is lenient, so that a wrong attribute is an error here: unknown attributes and wrong sizes are refused,
// as are leading dimensions and alignments that contradict the layouts.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>

#include "cuda/cublaslt_api.h"

namespace loko::cuda::test {

struct StandInState {
  /// How a product reaches its stream; it runs at once where this is empty.
  std::function<void(LtStream, std::function<void()>)> enqueue;
  LtStatus heuristicStatus = kLtSuccess;  // what the next heuristics say
  LtStatus matmulStatus = kLtSuccess;
  int heuristics = 0;  // calls
  int products = 0;
  int live = 0;                          // handles, descriptors, layouts and preferences that exist
  std::size_t workspaceBytes = 1 << 20;  // what every algorithm asks for
};

inline StandInState& standIn() {
  static StandInState state;
  return state;
}

}  // namespace loko::cuda::test

namespace loko::cuda {

struct LtContext {};
struct LtDescOpaque {
  int computeType, scaleType;
  std::int32_t transA = kLtOpNone, transB = kLtOpNone;
};
struct LtLayoutOpaque {
  int type;
  std::uint64_t rows, cols;
  std::int64_t ld;
};
struct LtPreferenceOpaque {
  std::uint64_t workspaceBytes = 0;
  std::map<int, std::uint32_t> alignment;
};

}  // namespace loko::cuda

namespace loko::cuda::test {

constexpr LtStatus kInvalidValue = 7;

template <class T, class... Args>
LtStatus make(T** target, Args... args) {
  *target = new T{args...};
  ++standIn().live;
  return kLtSuccess;
}
template <class T>
LtStatus drop(T* object) {
  delete object;
  --standIn().live;
  return kLtSuccess;
}

inline LtStatus setDesc(LtDesc desc, int attribute, const void* value, std::size_t bytes) {
  if (bytes != sizeof(std::int32_t)) return kInvalidValue;
  if (attribute != kLtDescTransA && attribute != kLtDescTransB) return kInvalidValue;
  std::memcpy(attribute == kLtDescTransA ? &desc->transA : &desc->transB, value, bytes);
  return kLtSuccess;
}

inline LtStatus makeLayout(LtLayout* layout, int type, std::uint64_t rows, std::uint64_t cols,
                           std::int64_t ld) {
  if (ld < static_cast<std::int64_t>(rows) || rows == 0 || cols == 0) return kInvalidValue;
  *layout = new LtLayoutOpaque{type, rows, cols, ld};
  ++standIn().live;
  return kLtSuccess;
}

inline LtStatus setPreference(LtPreference preference, int attribute, const void* value,
                              std::size_t bytes) {
  if (attribute == kLtPrefMaxWorkspaceBytes) {
    if (bytes != sizeof(std::uint64_t)) return kInvalidValue;
    std::memcpy(&preference->workspaceBytes, value, bytes);
    return kLtSuccess;
  }
  if (attribute < kLtPrefMinAlignmentA || attribute > kLtPrefMinAlignmentD) return kInvalidValue;
  if (bytes != sizeof(std::uint32_t)) return kInvalidValue;
  std::memcpy(&preference->alignment[attribute], value, bytes);
  return kLtSuccess;
}

/// [rows, cols] of op(X), or false where the shapes of a product do not fit.
inline bool fits(const LtDescOpaque& desc, const LtLayoutOpaque& a, const LtLayoutOpaque& b,
                 const LtLayoutOpaque& c, std::uint64_t& depth) {
  const bool ta = desc.transA == kLtOpTranspose, tb = desc.transB == kLtOpTranspose;
  depth = ta ? a.rows : a.cols;
  return (ta ? a.cols : a.rows) == c.rows && (tb ? b.rows : b.cols) == c.cols &&
         (tb ? b.cols : b.rows) == depth && a.type == b.type && c.type == kLtTypeFloat32 &&
         (a.type == kLtTypeFloat32 || a.type == kLtTypeBfloat16) &&
         (desc.computeType == kLtComputeFloat32 ||
          (desc.computeType == kLtComputeTf32 && a.type == kLtTypeFloat32)) &&
         desc.scaleType == kLtTypeFloat32;
}

inline LtStatus heuristic(LtHandle handle, LtDesc desc, LtLayout a, LtLayout b, LtLayout c,
                          LtLayout d, LtPreference preference, int requested,
                          LtHeuristicResult* results, int* returned) {
  ++standIn().heuristics;
  *returned = 0;
  std::uint64_t depth = 0;
  if (handle == nullptr || c != d || requested < 1 || !fits(*desc, *a, *b, *c, depth)) {
    return kInvalidValue;
  }
  if (standIn().heuristicStatus != kLtSuccess) return standIn().heuristicStatus;
  if (preference->alignment.size() != 4 || preference->workspaceBytes < standIn().workspaceBytes) {
    return kLtNotSupported;
  }
  results[0] = {};
  // Kept for matmul, which has no preference: what the algorithm was promised.
  results[0].algorithm.data[0] = preference->alignment.at(kLtPrefMinAlignmentA);
  results[0].workspaceBytes = standIn().workspaceBytes;
  *returned = 1;
  return kLtSuccess;
}

/// Element (i, j) of a column-major matrix.
inline double element(const void* data, const LtLayoutOpaque& layout, std::uint64_t i,
                      std::uint64_t j) {
  const std::size_t at = j * static_cast<std::uint64_t>(layout.ld) + i;
  std::uint32_t bits = 0;
  if (layout.type == kLtTypeBfloat16) {
    std::uint16_t half = 0;
    std::memcpy(&half, static_cast<const char*>(data) + at * 2, 2);
    bits = static_cast<std::uint32_t>(half) << 16;
  } else {
    std::memcpy(&bits, static_cast<const char*>(data) + at * 4, 4);
  }
  float value = 0;
  std::memcpy(&value, &bits, 4);
  return value;
}

/// To the 11 significant bits of TF32, halves away from zero, as cvt.rna.tf32.
inline double roundToTf32(double value) {
  if (value == 0 || !std::isfinite(value)) return value;
  int exponent = 0;
  const double fraction = std::frexp(value, &exponent);
  return std::ldexp(std::round(std::ldexp(fraction, 11)), exponent - 11);
}

inline void multiply(const LtDescOpaque& desc, double alpha, const void* a,
                     const LtLayoutOpaque& la, const void* b, const LtLayoutOpaque& lb, double beta,
                     float* c, const LtLayoutOpaque& lc, std::uint64_t depth) {
  const bool ta = desc.transA == kLtOpTranspose, tb = desc.transB == kLtOpTranspose;
  const bool rounds = desc.computeType == kLtComputeTf32;
  const auto factor = [rounds](double value) { return rounds ? roundToTf32(value) : value; };
  for (std::uint64_t j = 0; j < lc.cols; ++j) {
    for (std::uint64_t i = 0; i < lc.rows; ++i) {
      double sum = 0;
      for (std::uint64_t p = 0; p < depth; ++p) {
        sum += factor(ta ? element(a, la, p, i) : element(a, la, i, p)) *
               factor(tb ? element(b, lb, j, p) : element(b, lb, p, j));
      }
      float& target = c[j * static_cast<std::uint64_t>(lc.ld) + i];
      // What beta = 0 reads is not used: it may be NaN.
      target = static_cast<float>(alpha * sum + (beta == 0 ? 0 : beta * target));
    }
  }
}

inline LtStatus matmul(LtHandle handle, LtDesc desc, const void* alpha, const void* a, LtLayout la,
                       const void* b, LtLayout lb, const void* beta, const void* c, LtLayout lc,
                       void* d, LtLayout ld, const LtAlgorithm* algorithm, void* workspace,
                       std::size_t workspaceBytes, LtStream stream) {
  ++standIn().products;
  if (standIn().matmulStatus != kLtSuccess) return standIn().matmulStatus;
  std::uint64_t depth = 0;
  if (handle == nullptr || c != d || lc != ld || !fits(*desc, *la, *lb, *lc, depth)) {
    return kInvalidValue;
  }
  const auto misplaced = [&](const void* pointer, std::uint64_t bytes) {
    return reinterpret_cast<std::uintptr_t>(pointer) % bytes != 0;
  };
  const std::uint64_t promised = algorithm->data[0];
  if (misplaced(a, promised) || misplaced(b, promised) || misplaced(d, promised) ||
      workspace == nullptr || misplaced(workspace, 256) ||
      workspaceBytes < standIn().workspaceBytes) {
    return kInvalidValue;
  }
  // By value: the descriptors may be gone when a captured product runs again.
  const auto product = [desc = *desc, alpha = *static_cast<const float*>(alpha), a, la = *la, b,
                        lb = *lb, beta = *static_cast<const float*>(beta),
                        d = static_cast<float*>(d), lc = *lc,
                        depth] { multiply(desc, alpha, a, la, b, lb, beta, d, lc, depth); };
  if (standIn().enqueue) {
    standIn().enqueue(stream, product);
  } else {
    product();
  }
  return kLtSuccess;
}

inline CublasLtApi standInApi() {
  CublasLtApi api = {};
  api.create = [](LtHandle* handle) { return make(handle); };
  api.destroy = [](LtHandle handle) { return drop(handle); };
  api.getVersion = []() -> std::size_t { return 130101; };
  api.descCreate = [](LtDesc* desc, int compute, int scale) { return make(desc, compute, scale); };
  api.descDestroy = [](LtDesc desc) { return drop(desc); };
  api.descSetAttribute = setDesc;
  api.layoutCreate = makeLayout;
  api.layoutDestroy = [](LtLayout layout) { return drop(layout); };
  api.preferenceCreate = [](LtPreference* preference) { return make(preference); };
  api.preferenceDestroy = [](LtPreference preference) { return drop(preference); };
  api.preferenceSetAttribute = setPreference;
  api.getHeuristic = heuristic;
  api.matmul = matmul;
  return api;
}

}  // namespace loko::cuda::test
