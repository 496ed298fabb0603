#pragma once

// Convolutions with LoRA, their cotangents, and the Jacobian blocks of the factors: every product written
// out tap by tap.

#include "ref/linear.h"

namespace loko::ref {

/// The input pixel of a tap, or -1 outside the image.
inline int tapRow(const Window& window, int outputPixel, int tap) {
  const int y = outputPixel / window.output.width * window.stride.height - window.padding.height +
                tap / window.kernel.width * window.dilation.height;
  const int x = outputPixel % window.output.width * window.stride.width - window.padding.width +
                tap % window.kernel.width * window.dilation.width;
  const bool inside = y >= 0 && y < window.input.height && x >= 0 && x < window.input.width;
  return inside ? y * window.input.width + x : -1;
}

inline void expectPixels(const Window& window, const View& input, const View& output) {
  expectShape(input, window.input.pixels(), input.cols, "the input of a window");
  expectShape(output, window.output.pixels(), output.cols, "the output of a window");
}

/// Calls visit(output pixel, tap, input pixel) for every tap inside the image.
template <class Visit>
void forEachTap(const Window& window, Visit visit) {
  for (int p = 0; p < window.output.pixels(); ++p) {
    for (int tap = 0; tap < window.taps(); ++tap) {
      const int q = tapRow(window, p, tap);
      if (q >= 0) visit(p, tap, q);
    }
  }
}

template <class T>
void run(const ConvLoraDown& op, const Frame& frame, Memory<T>& memory) {
  expectPixels(op.window, op.x, op.h);
  const Tensor<T> x = memory(op.x, frame.batch), h = memory(op.h, frame.batch);
  const int in = x.cols(), taps = op.window.taps();
  for (const LoraSite& site : op.sites) {
    checkSites({site}, op.h, op.h.rows, site.outEnd);
    const T* a = factorA(site, memory, in * taps);
    for (int b = 0; b < frame.batch; ++b) {
      for (int r = 0; r < site.rank; ++r) {
        for (int p = 0; p < h.rows(); ++p) {
          T sum(0);
          for (int tap = 0; tap < taps; ++tap) {
            const int q = tapRow(op.window, p, tap);
            if (q < 0) continue;
            for (int c = 0; c < in; ++c) sum += x(b, q, c) * a[(r * in + c) * taps + tap];
          }
          h(b, p, site.hBegin + r) = sum;
        }
      }
    }
  }
}

template <class T>
void run(const Conv2d& op, const Frame& frame, Memory<T>& memory) {
  expectPixels(op.window, op.x, op.y);
  const int rows = op.y.rows, groups = op.groups(), taps = op.window.taps();
  const int in = op.x.cols / groups, out = op.y.cols / groups;
  if (op.residual.present()) expectShape(op.residual, rows, op.y.cols, "residual");
  if (op.actGrad.present()) expectShape(op.actGrad, rows, op.y.cols, "actGrad");
  checkSites(op.sites, op.h, rows, op.y.cols);
  const Tensor<T> x = memory(op.x, frame.batch), y = memory(op.y, frame.batch);
  const Tensor<T> residual = memory(op.residual, frame.batch);
  const Tensor<T> actGrad = memory(op.actGrad, frame.batch), h = memory(op.h, frame.batch);
  const T* bias = op.bias != kNoWeight ? memory.vector(op.bias, op.y.cols) : nullptr;
  for (int o = 0; o < op.y.cols; ++o) {
    const int group = o / out;
    const T* weight = memory.matrix(op.weights[static_cast<std::size_t>(group)], out, taps * in) +
                      std::int64_t{o % out} * taps * in;
    for (int b = 0; b < frame.batch; ++b) {
      for (int p = 0; p < rows; ++p) {
        T z(0);
        for (int tap = 0; tap < taps; ++tap) {
          const int q = tapRow(op.window, p, tap);
          if (q < 0) continue;
          for (int c = 0; c < in; ++c) z += x(b, q, group * in + c) * weight[tap * in + c];
        }
        z += lowRankTerm(op.sites, h, b, p, o, op.y.cols, memory);
        if (bias != nullptr) z += bias[o];
        if (residual) z += residual(b, p, o);
        const Activated<T> result = activate(op.activation, z);
        y(b, p, o) = result.value;
        if (actGrad) actGrad(b, p, o) = result.derivative;
      }
    }
  }
}

template <class T>
void run(const ConvLoraBackward& op, const Frame& frame, Memory<T>& memory) {
  expectPixels(op.window, op.x, op.dy);
  runOutputSide(op, frame, memory);
  const int in = op.x.cols, taps = op.window.taps(), columns = op.u.cols;
  const Tensor<T> x = memory(op.x, frame.batch), u = memory(op.u, frame.segments());
  if (op.spread.present()) {
    expectShape(op.spread, op.window.input.pixels(), taps * columns, "spread");
    const Tensor<T> spread = memory(op.spread, frame.segments());
    for (int s = 0; s < frame.segments(); ++s) {
      for (int q = 0; q < spread.rows(); ++q) {
        for (int c = 0; c < taps * columns; ++c) spread(s, q, c) = T(0);
      }
      forEachTap(op.window, [&](int p, int tap, int q) {
        for (int r = 0; r < columns; ++r) spread(s, q, tap * columns + r) = u(s, p, r);
      });
    }
  }
  for (const LoraSite& site : op.sites) {
    const std::int64_t size = std::int64_t{site.rank} * in * taps;
    for (int s = 0; s < frame.segments(); ++s) {
      const int b = s % frame.batch;
      T* block = memory.jacobianBlock(frame, s, site.a, size);
      for (int r = 0; r < site.rank; ++r) {
        for (int c = 0; c < in; ++c) {
          for (int tap = 0; tap < taps; ++tap) {
            T sum(0);
            for (int p = 0; p < op.u.rows; ++p) {
              const int q = tapRow(op.window, p, tap);
              if (q >= 0) sum += u(s, p, site.hBegin + r) * x(b, q, c);
            }
            storeGradient(frame, s, block[(r * in + c) * taps + tap], sum);
          }
        }
      }
    }
  }
}

template <class T>
void run(const Conv2dBackward& op, const Frame& frame, Memory<T>& memory) {
  expectPixels(op.window, op.dx, op.dy);
  const int groups = op.groups(), taps = op.window.taps();
  const int in = op.dx.cols / groups, out = op.dy.cols / groups;
  const Tensor<T> dy = memory(op.dy, frame.segments());
  const Tensor<T> spread = memory(op.spread, frame.segments());
  const int columns = op.spread.cols / taps;
  for (int c = 0; c < op.dx.cols; ++c) {
    const int group = c / in;
    const T* weight =
        memory.matrix(op.weights[static_cast<std::size_t>(group)], out, taps * in) + c % in;
    for (int s = 0; s < frame.segments(); ++s) {
      std::vector<T> sums(static_cast<std::size_t>(op.dx.rows), T(0));
      forEachTap(op.window, [&](int p, int tap, int q) {
        for (int o = 0; o < out; ++o) {
          sums[static_cast<std::size_t>(q)] +=
              dy(s, p, group * out + o) * weight[(std::int64_t{o} * taps + tap) * in];
        }
      });
      for (int q = 0; q < op.dx.rows; ++q) {
        T sum = sums[static_cast<std::size_t>(q)];
        for (const LoraSite& site : op.sites) {  // u already carries the scale
          const T* a = factorA(site, memory, op.dx.cols * taps);
          for (int tap = 0; tap < taps; ++tap) {
            for (int r = 0; r < site.rank; ++r) {
              sum += spread(s, q, tap * columns + site.hBegin + r) *
                     a[(r * op.dx.cols + c) * taps + tap];
            }
          }
        }
        storeCotangent(op, frame, memory, s, q, c, sum);
      }
    }
  }
}

}  // namespace loko::ref
