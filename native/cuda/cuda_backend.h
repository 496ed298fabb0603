#pragma once

// The CUDA backend. Where the build has no CUDA, native/cuda/absent throws in its place.

#include <cstdint>
#include <memory>

#include "core/backend.h"

namespace loko::cuda {

/// Of the products and of what is kept between them; parameters, their variances and the rows of the
/// Jacobian are float32 always.
enum class Precision : std::uint8_t { kFloat32, kTf32, kBfloat16 };

struct CudaOptions {
  int device = 0;
  Precision precision = Precision::kFloat32;
};

/// Throws Error(kDeviceUnavailable) with the reason of deviceReport() where there is none.
std::unique_ptr<Backend> makeCudaBackend(const CudaOptions& options);

}  // namespace loko::cuda
