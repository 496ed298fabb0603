#pragma once

// Activations with their derivatives; the formulas are those of native/ref/activation.h. GELU is the exact
// one: cuBLASLt's epilogue would be its tanh approximation.

#include <cuda_runtime.h>

#include "core/activation.h"

namespace loko::cuda {

struct Activated {
  float value, derivative;
};

__device__ inline Activated activate(Activation activation, float z) {
  switch (activation) {
    case Activation::kNone:
      break;
    case Activation::kGelu: {
      const float phi = 0.5f * (1 + erff(z * 0.70710678118654752440f));
      return {z * phi, phi + z * 0.39894228040143267794f * expf(-0.5f * z * z)};
    }
    case Activation::kGeluTanh: {
      const float t = tanhf(0.79788456080286535588f * (z + 0.044715f * z * z * z));
      const float slope = 0.79788456080286535588f * (1 + 3 * 0.044715f * z * z);
      return {0.5f * z * (1 + t), 0.5f * (1 + t) + 0.5f * z * (1 - t * t) * slope};
    }
    case Activation::kRelu:
      return z > 0 ? Activated{z, 1} : Activated{z == z ? 0 : z, 0};
    case Activation::kQuickGelu: {
      const float sigmoid = 1 / (1 + expf(-1.702f * z));
      return {z * sigmoid, sigmoid + 1.702f * z * sigmoid * (1 - sigmoid)};
    }
    case Activation::kTanh: {
      const float t = tanhf(z);
      return {t, 1 - t * t};
    }
  }
  return {z, 1};
}

/// A number times the derivative of an activation that is folded in.
__device__ inline float timesDerivative(bool ofRelu, float number, float factor) {
  if (!ofRelu) return number * factor;
  return factor > 0 ? number : 0;
}

}  // namespace loko::cuda
