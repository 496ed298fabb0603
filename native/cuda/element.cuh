#pragma once

// Operations that compute each element from a few others: a function of (sample, row, column), called
// once for each, neighbouring threads at neighbouring columns.

#include <cstdint>

#include "cuda/context.h"
#include "cuda/launch.h"
#include "cuda/predecessor.cuh"

namespace loko::cuda {

struct Extents {
  std::int64_t count;
  int rows, cols;
};

template <class Function>
__global__ void elementKernel(const Function function, const Extents extents) {
  awaitPredecessor();
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < extents.count;
       i += stride) {
    const std::int64_t row = i / extents.cols;
    function(static_cast<int>(row / extents.rows), static_cast<int>(row % extents.rows),
             static_cast<int>(i - row * extents.cols));
  }
}

/// Function: a copyable struct with __device__ void operator()(int sample, int row, int column) const.
template <class Function>
void forEachElement(const char* kernel, int samples, int rows, int cols, const Function& function,
                    Context& context) {
  constexpr int kThreads = 256;
  constexpr std::int64_t kMostBlocks = 16384;
  const std::int64_t count = std::int64_t{samples} * rows * cols;
  if (count == 0) return;
  launch({kernel, dim3(blocksFor(count, kThreads, kMostBlocks)), dim3(kThreads), context.queue()},
         elementKernel<Function>, function, Extents{count, rows, cols});
}

}  // namespace loko::cuda
