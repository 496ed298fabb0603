#pragma once

// Kernels that start before the one ahead of them on the stream has ended (programmatic dependent launch, sm_90
// and newer): at batch 1 a launch takes about as long as what it launches, and so happens meanwhile.
//
// Rule: the first statement of every kernel is awaitPredecessor(). Before it a kernel may read its parameters
// and prefetch, and nothing else: what is ahead may still be reading and writing any memory. Since every
// kernel waits for the one ahead of it to end, it ends after all that are ahead.

#include <cuda_runtime.h>

namespace loko::cuda {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define LOKO_KERNELS_AWAIT false
#else
#define LOKO_KERNELS_AWAIT true
#endif

/// Returns when all kernels ahead have ended and their writes can be seen. The next kernel may start when
/// every block has come here: two kernels run at once, never three.
__device__ inline void awaitPredecessor() {
#if LOKO_KERNELS_AWAIT
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

/// A hint: the line of 128 bytes at `address` is going to be read.
__device__ inline void prefetch([[maybe_unused]] const void* address) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("prefetch.global.L2 [%0];" : : "l"(address));
#endif
}

}  // namespace loko::cuda
