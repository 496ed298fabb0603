#pragma once

// Batch norm, pooling, and what moves pixels.

#include <algorithm>

#include "ref/conv.h"
#include "ref/tokens.h"

namespace loko::ref {

template <class T>
void run(const BatchNorm& op, const Frame& frame, Memory<T>& memory) {
  expectShape(op.y, op.x.rows, op.x.cols, "y");
  const Tensor<T> x = memory(op.x, frame.batch), y = memory(op.y, frame.batch);
  const T* scale = memory.vector(op.scale, x.cols());
  const T* shift = memory.vector(op.shift, x.cols());
  for (int b = 0; b < frame.batch; ++b) {
    for (int t = 0; t < x.rows(); ++t) {
      for (int c = 0; c < x.cols(); ++c) {
        const T z = scale[c] * x(b, t, c) + shift[c];
        y(b, t, c) = op.relu && z < T(0) ? T(0) : z;  // NaN passes
      }
    }
  }
}

template <class T>
void run(const BatchNormBackward& op, const Frame& frame, Memory<T>& memory) {
  expectShape(op.dx, op.dy.rows, op.dy.cols, "dx");
  expectShape(op.x, op.dy.rows, op.dy.cols, "x");
  const Tensor<T> dy = memory(op.dy, frame.segments()), dx = memory(op.dx, frame.segments());
  const Tensor<T> x = memory(op.x, frame.batch);
  const T* scale = memory.vector(op.scale, x.cols());
  const T* shift = memory.vector(op.shift, x.cols());
  for (int s = 0; s < frame.segments(); ++s) {
    for (int t = 0; t < dy.rows(); ++t) {
      for (int c = 0; c < dy.cols(); ++c) {
        const bool flat = op.relu && !(scale[c] * x(s % frame.batch, t, c) + shift[c] > T(0));
        T value = flat ? T(0) : scale[c] * dy(s, t, c);
        if (op.accumulate) value += dx(s, t, c);
        dx(s, t, c) = value;
      }
    }
  }
}

template <class T>
void run(const MaxPool& op, const Frame& frame, Memory<T>& memory) {
  expectPixels(op.window, op.x, op.y);
  if (op.index.present()) expectShape(op.index, op.y.rows, op.y.cols, "index");
  const Tensor<T> x = memory(op.x, frame.batch), y = memory(op.y, frame.batch);
  const Tensor<T> index = memory(op.index, frame.batch);
  for (int b = 0; b < frame.batch; ++b) {
    for (int p = 0; p < y.rows(); ++p) {
      for (int c = 0; c < y.cols(); ++c) {
        T best(0);
        int found = -1;
        for (int tap = 0; tap < op.window.taps(); ++tap) {
          const int q = tapRow(op.window, p, tap);
          if (q < 0) continue;
          const T value = x(b, q, c);
          const bool isNumber = static_cast<double>(value) == static_cast<double>(value);
          if (found < 0 || value > best || !isNumber) {
            best = value;
            found = tap;
          }
        }
        y(b, p, c) = best;
        if (index) index(b, p, c) = T(found);
      }
    }
  }
}

template <class T>
void run(const MaxPoolBackward& op, const Frame& frame, Memory<T>& memory) {
  expectPixels(op.window, op.dx, op.dy);
  expectShape(op.index, op.dy.rows, op.dy.cols, "index");
  const Tensor<T> dy = memory(op.dy, frame.segments()), dx = memory(op.dx, frame.segments());
  const Tensor<T> index = memory(op.index, frame.batch);
  if (!op.accumulate) run(ClearRows{op.dx}, frame, memory);
  for (int s = 0; s < frame.segments(); ++s) {
    forEachTap(op.window, [&](int p, int tap, int q) {
      for (int c = 0; c < dy.cols(); ++c) {
        const bool chosen = static_cast<double>(index(s % frame.batch, p, c)) == tap;
        if (chosen) dx(s, q, c) += dy(s, p, c);
      }
    });
  }
}

/// What the sum of a window is divided by.
inline int averageDivisor(const Window& window, bool countIncludePad, int outputPixel) {
  const auto along = [&](int begin, int kernel, int input, int padding) {
    const int last = countIncludePad ? input + padding : input;
    const int first = countIncludePad ? begin : std::max(begin, 0);
    return std::min(begin + kernel, last) - first;
  };
  const int y = outputPixel / window.output.width, x = outputPixel % window.output.width;
  return along(y * window.stride.height - window.padding.height, window.kernel.height,
               window.input.height, window.padding.height) *
         along(x * window.stride.width - window.padding.width, window.kernel.width,
               window.input.width, window.padding.width);
}

template <class T>
void run(const AvgPool& op, const Frame& frame, Memory<T>& memory) {
  expectPixels(op.window, op.x, op.y);
  const Tensor<T> x = memory(op.x, frame.batch), y = memory(op.y, frame.batch);
  for (int b = 0; b < frame.batch; ++b) {
    for (int p = 0; p < y.rows(); ++p) {
      const T divisor(averageDivisor(op.window, op.countIncludePad, p));
      for (int c = 0; c < y.cols(); ++c) {
        T sum(0);
        for (int tap = 0; tap < op.window.taps(); ++tap) {
          const int q = tapRow(op.window, p, tap);
          if (q >= 0) sum += x(b, q, c);
        }
        y(b, p, c) = sum / divisor;
      }
    }
  }
}

template <class T>
void run(const AvgPoolBackward& op, const Frame& frame, Memory<T>& memory) {
  expectPixels(op.window, op.dx, op.dy);
  const Tensor<T> dy = memory(op.dy, frame.segments()), dx = memory(op.dx, frame.segments());
  if (!op.accumulate) run(ClearRows{op.dx}, frame, memory);
  for (int s = 0; s < frame.segments(); ++s) {
    forEachTap(op.window, [&](int p, int, int q) {
      const T divisor(averageDivisor(op.window, op.countIncludePad, p));
      for (int c = 0; c < dy.cols(); ++c) dx(s, q, c) += dy(s, p, c) / divisor;
    });
  }
}

template <class T>
void run(const MeanRows& op, const Frame& frame, Memory<T>& memory) {
  expectShape(op.y, 1, op.x.cols, "y");
  const Tensor<T> x = memory(op.x, frame.batch), y = memory(op.y, frame.batch);
  for (int b = 0; b < frame.batch; ++b) {
    for (int c = 0; c < x.cols(); ++c) {
      T sum(0);
      for (int t = op.skip; t < x.rows(); ++t) sum += x(b, t, c);
      y(b, 0, c) = sum / T(x.rows() - op.skip);
    }
  }
}

template <class T>
void run(const MeanRowsBackward& op, const Frame& frame, Memory<T>& memory) {
  expectShape(op.dy, 1, op.dx.cols, "dy");
  const Tensor<T> dy = memory(op.dy, frame.segments()), dx = memory(op.dx, frame.segments());
  for (int s = 0; s < frame.segments(); ++s) {
    for (int t = 0; t < dx.rows(); ++t) {
      for (int c = 0; c < dx.cols(); ++c) {
        T value = t < op.skip ? T(0) : dy(s, 0, c) / T(dx.rows() - op.skip);
        if (op.accumulate) value += dx(s, t, c);
        dx(s, t, c) = value;
      }
    }
  }
}

template <class T>
void run(const CopyRows& op, const Frame& frame, Memory<T>& memory) {
  expectShape(op.dst, op.src.rows, op.src.cols, "dst");
  const Tensor<T> src = memory(op.src, frame.batch), dst = memory(op.dst, frame.batch);
  for (int b = 0; b < frame.batch; ++b) {
    for (int t = 0; t < src.rows(); ++t) {
      for (int c = 0; c < src.cols(); ++c) dst(b, t, c) = src(b, t, c);
    }
  }
}

template <class T>
void run(const Flatten& op, const Frame& frame, Memory<T>& memory) {
  expectShape(op.y, 1, op.x.rows * op.x.cols, "y");
  const Tensor<T> x = memory(op.x, frame.batch), y = memory(op.y, frame.batch);
  for (int b = 0; b < frame.batch; ++b) {
    for (int t = 0; t < x.rows(); ++t) {
      for (int c = 0; c < x.cols(); ++c) y(b, 0, c * x.rows() + t) = x(b, t, c);
    }
  }
}

template <class T>
void run(const FlattenBackward& op, const Frame& frame, Memory<T>& memory) {
  expectShape(op.dy, 1, op.dx.rows * op.dx.cols, "dy");
  const Tensor<T> dy = memory(op.dy, frame.segments()), dx = memory(op.dx, frame.segments());
  for (int s = 0; s < frame.segments(); ++s) {
    for (int t = 0; t < dx.rows(); ++t) {
      for (int c = 0; c < dx.cols(); ++c) {
        T value = dy(s, 0, c * dx.rows() + t);
        if (op.accumulate) value += dx(s, t, c);
        dx(s, t, c) = value;
      }
    }
  }
}

}  // namespace loko::ref
