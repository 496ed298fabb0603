#pragma once

// How kernels see a View: the rows of all its samples one after another.

#include <cstdint>

namespace loko::cuda {

/// Row r belongs to sample r / rows. A cotangent meets the activations of sample s % samples, so a map of
/// an activation answers for any number of segments.
struct Rows {
  float* data = nullptr;
  int rows = 1;
  int samples = 1;
  std::int64_t ld = 0;
  std::int64_t sampleStride = 0;

  __host__ __device__ bool present() const { return data != nullptr; }
  __device__ float* operator[](int r) const {
    if (r < rows) return data + r * ld;  // a division takes as long as twenty instructions
    const int sample = r / rows;
    return data + (sample % samples) * sampleStride + (r - sample * rows) * ld;
  }
  __device__ float* at(int sample, int row) const {
    return data + (sample % samples) * sampleStride + row * ld;
  }
};

}  // namespace loko::cuda
