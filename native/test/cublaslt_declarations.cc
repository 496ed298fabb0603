// Compiled where the headers of cuBLASLt are installed: our declarations of it are the library's.

#include <cublasLt.h>

#include <cstddef>
#include <type_traits>

#include "cuda/cublaslt_api.h"

namespace loko::cuda {
namespace {

static_assert(CUBLAS_VER_MAJOR == 13 || CUBLAS_VER_MAJOR == 12);

static_assert(kLtSuccess == CUBLAS_STATUS_SUCCESS);
static_assert(kLtAllocFailed == CUBLAS_STATUS_ALLOC_FAILED);
static_assert(kLtNotSupported == CUBLAS_STATUS_NOT_SUPPORTED);
static_assert(kLtComputeFloat32 == CUBLAS_COMPUTE_32F);
static_assert(kLtComputeTf32 == CUBLAS_COMPUTE_32F_FAST_TF32);
static_assert(kLtTypeFloat32 == CUDA_R_32F);
static_assert(kLtTypeBfloat16 == CUDA_R_16BF);
static_assert(kLtOpNone == CUBLAS_OP_N);
static_assert(kLtOpTranspose == CUBLAS_OP_T);
static_assert(kLtDescTransA == CUBLASLT_MATMUL_DESC_TRANSA);
static_assert(kLtDescTransB == CUBLASLT_MATMUL_DESC_TRANSB);
static_assert(kLtPrefMaxWorkspaceBytes == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
static_assert(kLtPrefMinAlignmentA == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
static_assert(kLtPrefMinAlignmentB == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES);
static_assert(kLtPrefMinAlignmentC == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES);
static_assert(kLtPrefMinAlignmentD == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);

static_assert(sizeof(LtAlgorithm) == sizeof(cublasLtMatmulAlgo_t));
static_assert(sizeof(LtHeuristicResult) == sizeof(cublasLtMatmulHeuristicResult_t));
static_assert(offsetof(LtHeuristicResult, workspaceBytes) ==
              offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize));
static_assert(offsetof(LtHeuristicResult, state) ==
              offsetof(cublasLtMatmulHeuristicResult_t, state));
static_assert(std::is_same_v<LtStream, cudaStream_t>);

/// As many parameters, each of the same size and kind of register: what a call needs to agree on.
template <class Ours, class Theirs>
constexpr bool kPassedAlike =
    sizeof(Ours) == sizeof(Theirs) &&
    std::is_pointer_v<Ours> == std::is_pointer_v<Theirs>&& std::is_floating_point_v<Ours> ==
        std::is_floating_point_v<Theirs>;

template <class R1, class... P1, class R2, class... P2>
constexpr bool calledAlike(R1 (*)(P1...), R2 (*)(P2...)) {
  if constexpr (sizeof...(P1) != sizeof...(P2)) {
    return false;
  } else {
    return kPassedAlike<R1, R2> && (kPassedAlike<P1, P2> && ...);
  }
}

constexpr CublasLtApi kApi = {};
static_assert(calledAlike(kApi.create, decltype(&cublasLtCreate){}));
static_assert(calledAlike(kApi.destroy, decltype(&cublasLtDestroy){}));
static_assert(calledAlike(kApi.getVersion, decltype(&cublasLtGetVersion){}));
static_assert(calledAlike(kApi.descCreate, decltype(&cublasLtMatmulDescCreate){}));
static_assert(calledAlike(kApi.descDestroy, decltype(&cublasLtMatmulDescDestroy){}));
static_assert(calledAlike(kApi.descSetAttribute, decltype(&cublasLtMatmulDescSetAttribute){}));
static_assert(calledAlike(kApi.layoutCreate, decltype(&cublasLtMatrixLayoutCreate){}));
static_assert(calledAlike(kApi.layoutDestroy, decltype(&cublasLtMatrixLayoutDestroy){}));
static_assert(calledAlike(kApi.preferenceCreate, decltype(&cublasLtMatmulPreferenceCreate){}));
static_assert(calledAlike(kApi.preferenceDestroy, decltype(&cublasLtMatmulPreferenceDestroy){}));
static_assert(calledAlike(kApi.preferenceSetAttribute,
                          decltype(&cublasLtMatmulPreferenceSetAttribute){}));
static_assert(calledAlike(kApi.getHeuristic, decltype(&cublasLtMatmulAlgoGetHeuristic){}));
static_assert(calledAlike(kApi.matmul, decltype(&cublasLtMatmul){}));

}  // namespace
}  // namespace loko::cuda
