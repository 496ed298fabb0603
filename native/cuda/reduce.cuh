#pragma once

// Sums over a block in a fixed order: lanes by a butterfly, then warps in their order.

#include <cuda_runtime.h>

namespace loko::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

template <class T>
__device__ T warpSum(T value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(kAllLanes, value, offset);
  return value;
}

/// The sum over all threads, in every thread. `shared` has room for a number of each warp; the block may
/// use it again after its next __syncthreads().
template <class T>
__device__ T blockSum(T value, T* shared) {
  const int warps = static_cast<int>(blockDim.x) / 32;
  value = warpSum(value);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  T sum = shared[0];
  for (int warp = 1; warp < warps; ++warp) sum += shared[warp];
  return sum;
}

}  // namespace loko::cuda
