#pragma once

// Layer normalisation over the columns of each row (biased variance, as in PyTorch).

#include <cmath>

#include "ref/memory.h"

namespace loko::ref {

template <class T>
void run(const LayerNorm& op, const Frame& frame, Memory<T>& memory) {
  using std::sqrt;
  const int rows = op.x.rows, cols = op.x.cols;
  expectShape(op.y, rows, cols, "y");
  if (op.xhat.present()) expectShape(op.xhat, rows, cols, "xhat");
  if (op.rstd.present()) expectShape(op.rstd, rows, 1, "rstd");
  const Tensor<T> x = memory(op.x, frame.batch), y = memory(op.y, frame.batch);
  const Tensor<T> xhat = memory(op.xhat, frame.batch), rstd = memory(op.rstd, frame.batch);
  const T* gamma = memory.vector(op.gamma, cols);
  LOKO_CHECK((op.beta == kNoWeight) != (op.trainedBeta == kNoParameter),
             "a layer norm needs one beta, frozen or trained");
  const T* beta =
      op.beta != kNoWeight ? memory.vector(op.beta, cols) : memory.parameter(op.trainedBeta, cols);
  for (int b = 0; b < frame.batch; ++b) {
    for (int t = 0; t < rows; ++t) {
      T mean(0);
      for (int c = 0; c < cols; ++c) mean += x(b, t, c);
      mean = mean / T(cols);
      T variance(0);
      for (int c = 0; c < cols; ++c) variance += (x(b, t, c) - mean) * (x(b, t, c) - mean);
      const T inverse = T(1) / sqrt(variance / T(cols) + T(op.eps));
      if (rstd) rstd(b, t, 0) = inverse;
      for (int c = 0; c < cols; ++c) {
        const T normalised = (x(b, t, c) - mean) * inverse;
        if (xhat) xhat(b, t, c) = normalised;
        y(b, t, c) = normalised * gamma[c] + beta[c];
      }
    }
  }
}

template <class T>
void run(const LayerNormBackward& op, const Frame& frame, Memory<T>& memory) {
  const int rows = op.dy.rows, cols = op.dy.cols;
  expectShape(op.dx, rows, cols, "dx");
  expectShape(op.xhat, rows, cols, "xhat");
  expectShape(op.rstd, rows, 1, "rstd");
  const Tensor<T> dy = memory(op.dy, frame.segments()), dx = memory(op.dx, frame.segments());
  const Tensor<T> xhat = memory(op.xhat, frame.batch), rstd = memory(op.rstd, frame.batch);
  const T* gamma = memory.vector(op.gamma, cols);
  for (int s = 0; s < frame.segments(); ++s) {
    const int b = s % frame.batch;
    for (int t = 0; t < rows; ++t) {
      T mean(0), projection(0);
      for (int c = 0; c < cols; ++c) {
        const T g = dy(s, t, c) * gamma[c];
        mean += g;
        projection += g * xhat(b, t, c);
      }
      mean = mean / T(cols);
      projection = projection / T(cols);
      for (int c = 0; c < cols; ++c) {
        const T g = dy(s, t, c) * gamma[c];
        T value = rstd(b, t, 0) * (g - mean - xhat(b, t, c) * projection);
        if (op.accumulate) value += dx(s, t, c);
        dx(s, t, c) = value;
      }
    }
  }
}

}  // namespace loko::ref
