#pragma once

// The CUDA backend: float32 parameters, state and Jacobian on the device; products in float32, TF32 or
// bfloat16. Nothing of CUDA shows in this header, so that the addon can include it in every build.

#include <cstdint>
#include <memory>

#include "core/backend.h"

namespace loko::cuda {

/// Of the products with frozen weights and of attention; everything is stored and accumulated in float32,
/// except the frozen matrices of kBfloat16.
enum class Precision : std::uint8_t { kFloat32, kTf32, kBfloat16 };

class CublasLt;

struct CudaOptions {
  int device = 0;
  Precision precision = Precision::kFloat32;
  /// Null: the one that is found on this machine, if any.
  std::shared_ptr<CublasLt> library;
  /// Products with at least so many rows go to cuBLASLt. Not yet measured on a device.
  int libraryRows = 2048;
  /// Blocks for each multiprocessor that products of few tiles are split into, by depth; with 0 none is
  /// split, and k rows at once have the bits of k passes.
  int splitBlocks = 2;
  /// Kernels start before the one ahead has ended, where device, driver and compiled code allow it.
  bool overlap = true;
};

/// Throws kDeviceUnavailable with the reason (device.h) where there is no usable device.
std::unique_ptr<Backend> makeCudaBackend(const CudaOptions& options);

}  // namespace loko::cuda
