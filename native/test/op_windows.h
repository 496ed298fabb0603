#pragma once

// Windows that meet every edge: strides that leave pixels over, padding beyond the kernel's reach,
// dilation, kernels larger than the image, single pixels.

#include "core/op_image.h"

namespace loko::test {

inline Window makeWindow(Extent input, Extent kernel, Extent stride = {1, 1},
                         Extent padding = {0, 0}, Extent dilation = {1, 1}) {
  const auto positions = [](int size, int reach, int step, int pad) {
    return (size + 2 * pad - reach) / step + 1;
  };
  Window window;
  window.input = input;
  window.kernel = kernel;
  window.stride = stride;
  window.padding = padding;
  window.dilation = dilation;
  window.output = {
      positions(input.height, dilation.height * (kernel.height - 1) + 1, stride.height,
                padding.height),
      positions(input.width, dilation.width * (kernel.width - 1) + 1, stride.width, padding.width)};
  return window;
}

struct ConvCase {
  Window window;
  int in, out, groups = 1;
};

inline std::vector<ConvCase> convCases() {
  return {
      {makeWindow({5, 7}, {3, 3}, {1, 1}, {1, 1}), 16, 32},
      {makeWindow({7, 5}, {3, 3}, {2, 2}, {1, 1}), 16, 7},
      {makeWindow({6, 6}, {3, 3}, {2, 2}, {1, 1}), 5, 33},  // even: a last row that no tap ends on
      {makeWindow({9, 8}, {7, 7}, {2, 2}, {3, 3}), 3, 18},
      {makeWindow({5, 4}, {1, 1}, {2, 2}), 32, 16},
      {makeWindow({4, 4}, {1, 1}), 16, 5},
      {makeWindow({3, 3}, {5, 5}, {1, 1}, {2, 2}), 6, 4},  // larger than the image
      {makeWindow({4, 5}, {2, 3}, {3, 1}, {2, 4}), 7, 3},  // windows of nothing but padding
      {makeWindow({7, 9}, {3, 2}, {1, 2}, {2, 1}, {2, 3}), 16, 9},
      {makeWindow({8, 7}, {3, 3}, {2, 3}, {2, 2}, {3, 2}), 4, 8},
      {makeWindow({7, 6}, {2, 3}, {1, 1}, {3, 1}, {2, 1}), 33, 9},
      {makeWindow({1, 1}, {1, 1}, {1, 1}, {1, 1}), 1, 1},
      {makeWindow({6, 5}, {3, 3}, {1, 1}, {1, 1}), 6, 4, 2},
      {makeWindow({6, 5}, {3, 3}, {2, 1}, {1, 1}), 32, 66, 2},
      {makeWindow({5, 5}, {3, 3}, {2, 2}, {1, 1}), 5, 5, 5},  // depthwise
  };
}

/// Long sums in several blocks, and enough rows for several threads.
inline std::vector<ConvCase> largeConvCases() {
  return {
      {makeWindow({13, 14}, {3, 3}, {1, 1}, {1, 1}), 96, 48},
      {makeWindow({15, 14}, {3, 3}, {2, 2}, {1, 1}), 48, 96},
      {makeWindow({40, 41}, {7, 7}, {2, 2}, {3, 3}), 3, 20},
  };
}

}  // namespace loko::test
