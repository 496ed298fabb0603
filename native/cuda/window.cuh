#pragma once

// Where the taps of a kernel that moves over an image lie (core/op_image.h).

#include <cuda_runtime.h>

#include "core/op_image.h"

namespace loko::cuda {

__device__ inline int tapsOf(const Window& window) {
  return window.kernel.height * window.kernel.width;
}

/// The input pixel of a tap, or -1 outside the image.
__device__ inline int tapPixel(const Window& window, int outputPixel, int tap) {
  const int y = outputPixel / window.output.width * window.stride.height - window.padding.height +
                tap / window.kernel.width * window.dilation.height;
  const int x = outputPixel % window.output.width * window.stride.width - window.padding.width +
                tap % window.kernel.width * window.dilation.width;
  const bool inside = y >= 0 && y < window.input.height && x >= 0 && x < window.input.width;
  return inside ? y * window.input.width + x : -1;
}

/// The output pixel that has an input pixel as its tap, or -1.
__device__ inline int outputOfTap(const Window& window, int inputPixel, int tap) {
  const int y = inputPixel / window.input.width + window.padding.height -
                tap / window.kernel.width * window.dilation.height;
  const int x = inputPixel % window.input.width + window.padding.width -
                tap % window.kernel.width * window.dilation.width;
  if (y < 0 || x < 0 || y % window.stride.height != 0 || x % window.stride.width != 0) return -1;
  const int row = y / window.stride.height, column = x / window.stride.width;
  const bool inside = row < window.output.height && column < window.output.width;
  return inside ? row * window.output.width + column : -1;
}

}  // namespace loko::cuda
