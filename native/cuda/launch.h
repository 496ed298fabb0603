#pragma once

// How everything is put on a stream: calls of the runtime and launches that throw what went wrong under
// the name of the kernel.
//
// Rule: nothing of the runtime is called without check(), except in destructors, which ignore errors: an
// error of the device is sticky, and has been thrown by then.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "core/status.h"

namespace loko::cuda {

/// Throws kOutOfMemory for a device that is full, kDeviceFailed for everything else.
void check(cudaError_t error, const char* what);

struct Queue {
  cudaStream_t stream;
  bool overlapping;  // a kernel may start before the one ahead of it has ended (predecessor.cuh)
};

struct Launch {
  const char* kernel;  // as error messages name it
  dim3 grid, block;
  Queue queue;
};

/// Parameters travel by value; a kernel takes at most 4 KB of them.
template <class... Parameters, class... Arguments>
void launch(const Launch& where, void (*kernel)(Parameters...), Arguments&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = where.grid;
  config.blockDim = where.block;
  config.stream = where.queue.stream;
  cudaLaunchAttribute overlap{};
  if (where.queue.overlapping) {
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &overlap;
    config.numAttrs = 1;
  }
  check(cudaLaunchKernelEx(&config, kernel, Parameters(std::forward<Arguments>(arguments))...),
        where.kernel);
}

template <class Integer>
constexpr Integer ceilDiv(Integer value, Integer divisor) {
  return (value + divisor - 1) / divisor;
}

/// Blocks for so many elements, at most `most`: each then walks on by the size of the grid.
inline unsigned blocksFor(std::int64_t count, int perBlock, std::int64_t most) {
  return static_cast<unsigned>(std::min(most, ceilDiv<std::int64_t>(count, perBlock)));
}

}  // namespace loko::cuda
