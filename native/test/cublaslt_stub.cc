// A library with the names of cuBLASLt and nothing behind them, for the tests of the search. Compiled
// several times: STUB_VERSION is what it says that it is, STUB_INCOMPLETE leaves one function out.

#include <cstddef>

#define STUB(name)                                               \
  extern "C" __attribute__((visibility("default"))) int name() { \
    return 1;                                                    \
  }

extern "C" __attribute__((visibility("default"))) std::size_t cublasLtGetVersion() {
  return STUB_VERSION;
}
STUB(cublasLtCreate)
STUB(cublasLtDestroy)
STUB(cublasLtMatmulDescCreate)
STUB(cublasLtMatmulDescDestroy)
STUB(cublasLtMatmulDescSetAttribute)
STUB(cublasLtMatrixLayoutCreate)
STUB(cublasLtMatrixLayoutDestroy)
STUB(cublasLtMatmulPreferenceCreate)
STUB(cublasLtMatmulPreferenceDestroy)
STUB(cublasLtMatmulPreferenceSetAttribute)
STUB(cublasLtMatmulAlgoGetHeuristic)
#ifndef STUB_INCOMPLETE
STUB(cublasLtMatmul)
#endif
