#pragma once

// Linear maps with LoRA, their cotangents, and the Jacobian blocks of trained parameters.

#include <vector>

#include "ref/activation.h"
#include "ref/memory.h"

namespace loko::ref {

/// The factors of one site as theta holds them: A [rank, in], B [outEnd - outBegin, rank].
template <class T>
const T* factorA(const LoraSite& site, const Memory<T>& memory, int in) {
  return memory.parameter(site.a, std::int64_t{site.rank} * in);
}
template <class T>
const T* factorB(const LoraSite& site, const Memory<T>& memory) {
  return memory.parameter(site.b, std::int64_t{site.outEnd - site.outBegin} * site.rank);
}

/// What the column of the output of each factor B is multiplied by; null: nothing.
template <class T>
const T* outputScale(const LoraSite& site, const Memory<T>& memory, int out) {
  return site.outputScale == kNoWeight ? nullptr : memory.vector(site.outputScale, out);
}

/// Column o of scale h B^T of the site that has this column.
template <class T>
T lowRankTerm(const std::vector<LoraSite>& sites, const Tensor<T>& h, int b, int t, int o, int out,
              const Memory<T>& memory) {
  T term(0);
  for (const LoraSite& site : sites) {
    if (o < site.outBegin || o >= site.outEnd) continue;
    const T* factor = factorB(site, memory) + std::int64_t{o - site.outBegin} * site.rank;
    const T* scale = outputScale(site, memory, out);
    T sum(0);
    for (int r = 0; r < site.rank; ++r) sum += h(b, t, site.hBegin + r) * factor[r];
    sum *= T(site.scale);
    if (scale != nullptr) sum *= scale[o];
    term += sum;
  }
  return term;
}

/// A number times the derivative at one place of an activation that was folded in.
template <class T>
T timesDerivative(const FoldedDerivative& derivative, const T& number, const T& factor) {
  if (!derivative.ofRelu) return number * factor;
  return factor > T(0) ? number : T(0);
}

/// dx (+)= sum * derivative at one place; `ofSum`: the derivative multiplies what was there, too.
template <class T, class Operation>
void storeCotangent(const Operation& op, const Frame& frame, Memory<T>& memory, int s, int t, int c,
                    T sum) {
  const Tensor<T> dx = memory(op.dx, frame.segments());
  const FoldedDerivative& derivative = op.derivative;
  if (derivative.present()) expectShape(derivative.factor, dx.rows(), dx.cols(), "derivative");
  const T before = op.accumulate ? dx(s, t, c) : T(0);
  if (derivative.ofSum) sum += before;
  if (derivative.present()) {
    const Tensor<T> factor = memory(derivative.factor, frame.batch);
    sum = timesDerivative(derivative, sum, factor(s % frame.batch, t, c));
  }
  if (!derivative.ofSum && op.accumulate) sum += before;
  dx(s, t, c) = sum;
}

template <class T>
void run(const LoraDown& op, const Frame& frame, Memory<T>& memory) {
  const Tensor<T> x = memory(op.x, frame.batch), h = memory(op.h, frame.batch);
  for (const LoraSite& site : op.sites) {
    checkSites({site}, op.h, op.x.rows, site.outEnd);
    const T* a = factorA(site, memory, x.cols());
    for (int b = 0; b < frame.batch; ++b) {
      for (int t = 0; t < x.rows(); ++t) {
        for (int r = 0; r < site.rank; ++r) {
          T sum(0);
          for (int i = 0; i < x.cols(); ++i) sum += x(b, t, i) * a[r * x.cols() + i];
          h(b, t, site.hBegin + r) = sum;
        }
      }
    }
  }
}

template <class T>
void run(const Linear& op, const Frame& frame, Memory<T>& memory) {
  const int rows = op.x.rows, in = op.x.cols, out = op.y.cols;
  expectShape(op.y, rows, out, "y");
  if (op.residual.present()) expectShape(op.residual, rows, out, "residual");
  if (op.actGrad.present()) expectShape(op.actGrad, rows, out, "actGrad");
  LOKO_CHECK((op.weight == kNoWeight) != (op.trainedWeight == kNoParameter),
             "a linear needs one weight, frozen or trained");
  checkSites(op.sites, op.h, rows, out);

  const Tensor<T> x = memory(op.x, frame.batch), y = memory(op.y, frame.batch);
  const Tensor<T> residual = memory(op.residual, frame.batch);
  const Tensor<T> actGrad = memory(op.actGrad, frame.batch), h = memory(op.h, frame.batch);
  const T* weight = op.weight != kNoWeight
                        ? memory.matrix(op.weight, out, in)
                        : memory.parameter(op.trainedWeight, std::int64_t{out} * in);
  const T* bias = nullptr;
  if (op.bias != kNoWeight) bias = memory.vector(op.bias, out);
  if (op.trainedBias != kNoParameter) bias = memory.parameter(op.trainedBias, out);

  for (int b = 0; b < frame.batch; ++b) {
    for (int t = 0; t < rows; ++t) {
      for (int o = 0; o < out; ++o) {
        T z(0);
        for (int i = 0; i < in; ++i) z += x(b, t, i) * weight[std::int64_t{o} * in + i];
        z += lowRankTerm(op.sites, h, b, t, o, out, memory);
        if (bias != nullptr) z += bias[o];
        if (residual) z += residual(b, t, o);
        const Activated<T> result = activate(op.activation, z);
        y(b, t, o) = result.value;
        if (actGrad) actGrad(b, t, o) = result.derivative;
      }
    }
  }
}

/// u = scale dy B and dB = scale dy^T h of every site: the half of a low-rank branch that sees no input.
template <class T, class Operation>
void runOutputSide(const Operation& op, const Frame& frame, Memory<T>& memory) {
  const int rows = op.dy.rows;
  expectShape(op.h, rows, op.h.cols, "h");
  checkSites(op.sites, op.h, rows, op.dy.cols);
  checkSites(op.sites, op.u, rows, op.dy.cols);
  const Tensor<T> dy = memory(op.dy, frame.segments()), u = memory(op.u, frame.segments());
  const Tensor<T> h = memory(op.h, frame.batch);
  for (const LoraSite& site : op.sites) {
    const int out = site.outEnd - site.outBegin, rank = site.rank;
    const T* factor = factorB(site, memory);
    const T* scale = outputScale(site, memory, op.dy.cols);
    const auto scaleOf = [&](int o) {
      return scale == nullptr ? T(site.scale) : T(site.scale) * scale[site.outBegin + o];
    };
    for (int s = 0; s < frame.segments(); ++s) {
      const int b = s % frame.batch;
      for (int t = 0; t < rows; ++t) {
        for (int r = 0; r < rank; ++r) {
          T sum(0);
          for (int o = 0; o < out; ++o) {
            sum += dy(s, t, site.outBegin + o) * factor[o * rank + r] * scaleOf(o);
          }
          u(s, t, site.hBegin + r) = sum;
        }
      }
      T* block = memory.jacobianBlock(frame, s, site.b, std::int64_t{out} * rank);
      for (int o = 0; o < out; ++o) {
        for (int r = 0; r < rank; ++r) {
          T sum(0);
          for (int t = 0; t < rows; ++t) {
            sum += dy(s, t, site.outBegin + o) * h(b, t, site.hBegin + r);
          }
          storeGradient(frame, s, block[o * rank + r], scaleOf(o) * sum);
        }
      }
    }
  }
}

template <class T>
void run(const LoraBackward& op, const Frame& frame, Memory<T>& memory) {
  const int rows = op.dy.rows, in = op.x.cols;
  expectShape(op.x, rows, in, "x");
  runOutputSide(op, frame, memory);
  const Tensor<T> u = memory(op.u, frame.segments()), x = memory(op.x, frame.batch);
  for (const LoraSite& site : op.sites) {
    for (int s = 0; s < frame.segments(); ++s) {
      T* block = memory.jacobianBlock(frame, s, site.a, std::int64_t{site.rank} * in);
      for (int r = 0; r < site.rank; ++r) {  // dA = u^T x
        for (int i = 0; i < in; ++i) {
          T sum(0);
          for (int t = 0; t < rows; ++t) {
            sum += u(s, t, site.hBegin + r) * x(s % frame.batch, t, i);
          }
          storeGradient(frame, s, block[std::int64_t{r} * in + i], sum);
        }
      }
    }
  }
}

template <class T>
void run(const WeightBackward& op, const Frame& frame, Memory<T>& memory) {
  const int rows = op.dy.rows, out = op.dy.cols, in = op.x.cols;
  if (op.weight != kNoParameter) expectShape(op.x, rows, in, "x");
  const Tensor<T> dy = memory(op.dy, frame.segments()), x = memory(op.x, frame.batch);
  for (int s = 0; s < frame.segments(); ++s) {
    if (op.weight != kNoParameter) {
      const int b = s % frame.batch;
      T* weight = memory.jacobianBlock(frame, s, op.weight, std::int64_t{out} * in);
      for (int o = 0; o < out; ++o) {  // dW = dy^T x
        for (int i = 0; i < in; ++i) {
          T sum(0);
          for (int t = 0; t < rows; ++t) sum += dy(s, t, o) * x(b, t, i);
          storeGradient(frame, s, weight[std::int64_t{o} * in + i], sum);
        }
      }
    }
    if (op.bias == kNoParameter) continue;
    T* bias = memory.jacobianBlock(frame, s, op.bias, out);
    for (int o = 0; o < out; ++o) {
      T sum(0);
      for (int t = 0; t < rows; ++t) sum += dy(s, t, o);
      storeGradient(frame, s, bias[o], sum);
    }
  }
}

template <class T>
void run(const LinearBackward& op, const Frame& frame, Memory<T>& memory) {
  const int rows = op.dy.rows, out = op.dy.cols, in = op.dx.cols;
  expectShape(op.dx, rows, in, "dx");
  LOKO_CHECK((op.weight == kNoWeight) != (op.trainedWeight == kNoParameter),
             "a linear needs one weight, frozen or trained");
  checkSites(op.sites, op.u, rows, out);

  const Tensor<T> dy = memory(op.dy, frame.segments()), u = memory(op.u, frame.segments());
  const T* weight = op.weight != kNoWeight
                        ? memory.matrix(op.weight, out, in)
                        : memory.parameter(op.trainedWeight, std::int64_t{out} * in);
  for (int s = 0; s < frame.segments(); ++s) {
    for (int t = 0; t < rows; ++t) {
      for (int i = 0; i < in; ++i) {
        T sum(0);
        for (int o = 0; o < out; ++o) sum += dy(s, t, o) * weight[std::int64_t{o} * in + i];
        for (const LoraSite& site : op.sites) {  // u already carries the scale
          const T* a = factorA(site, memory, in);
          for (int r = 0; r < site.rank; ++r) {
            sum += u(s, t, site.hBegin + r) * a[std::int64_t{r} * in + i];
          }
        }
        storeCotangent(op, frame, memory, s, t, i, sum);
      }
    }
  }
}

template <class T>
void run(const ActivationBackward& op, const Frame& frame, Memory<T>& memory) {
  const View& view = op.derivative.factor;
  expectShape(view, op.dy.rows, op.dy.cols, "derivative");
  const Tensor<T> dy = memory(op.dy, frame.segments()), factor = memory(view, frame.batch);
  for (int s = 0; s < frame.segments(); ++s) {
    for (int t = 0; t < dy.rows(); ++t) {
      for (int c = 0; c < dy.cols(); ++c) {
        dy(s, t, c) = timesDerivative(op.derivative, dy(s, t, c), factor(s % frame.batch, t, c));
      }
    }
  }
}

}  // namespace loko::ref
