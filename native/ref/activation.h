#pragma once

// Activation functions and their derivatives.

#include <cmath>

#include "core/op.h"

namespace loko::ref {

template <class T>
struct Activated {
  T value, derivative;
};

constexpr double kSqrtHalf = 0.70710678118654752440;        // sqrt(1/2)
constexpr double kInverseSqrt2Pi = 0.39894228040143267794;  // 1/sqrt(2 pi)
constexpr double kSqrt2OverPi = 0.79788456080286535588;     // sqrt(2/pi)

template <class T>
Activated<T> activate(Activation activation, const T& z) {
  using std::erf;
  using std::exp;
  using std::tanh;
  switch (activation) {
    case Activation::kNone:
      return {z, T(1)};
    case Activation::kGelu: {  // z Phi(z), Phi the normal distribution function
      const T phi = T(0.5) * (T(1) + erf(z * T(kSqrtHalf)));
      return {z * phi, phi + z * T(kInverseSqrt2Pi) * exp(T(-0.5) * z * z)};
    }
    case Activation::kGeluTanh: {  // 1/2 z (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3)))
      const T t = tanh(T(kSqrt2OverPi) * (z + T(0.044715) * z * z * z));
      const T slope = T(kSqrt2OverPi) * (T(1) + T(3 * 0.044715) * z * z);
      return {T(0.5) * z * (T(1) + t), T(0.5) * (T(1) + t) + T(0.5) * z * (T(1) - t * t) * slope};
    }
    case Activation::kRelu:  // derivative 0 at 0, as in PyTorch
      return z > T(0) ? Activated<T>{z, T(1)} : Activated<T>{T(0), T(0)};
    case Activation::kQuickGelu: {  // z sigmoid(1.702 z)
      const T sigmoid = T(1) / (T(1) + exp(T(-1.702) * z));
      return {z * sigmoid, sigmoid + T(1.702) * z * sigmoid * (T(1) - sigmoid)};
    }
    case Activation::kTanh: {
      const T t = tanh(z);
      return {t, T(1) - t * t};
    }
  }
  return {z, T(1)};
}

}  // namespace loko::ref
