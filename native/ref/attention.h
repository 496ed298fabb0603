#pragma once

// Softmax attention per head, over all keys or those that the mask leaves.

#include <cmath>
#include <vector>

#include "ref/memory.h"

namespace loko::ref {

/// probs[j] = softmax over j of scale * <q row t, k row j>, on the columns [begin, begin + width);
/// 0 for a key that the mask hides.
template <class T>
void attentionRow(const Tensor<T>& q, const Tensor<T>& k, const Tensor<T>& mask, int b, int t,
                  int begin, int width, const T& scale, std::vector<T>& probs) {
  using std::exp;
  const int keys = k.rows();
  probs.assign(static_cast<std::size_t>(keys), T(0));
  const auto takesPart = [&](int j) { return !mask || !(mask(b, 0, j) < T(0)); };
  int largest = -1;
  for (int j = 0; j < keys; ++j) {
    if (!takesPart(j)) continue;
    T score(0);
    for (int c = begin; c < begin + width; ++c) score += q(b, t, c) * k(b, j, c);
    probs[j] = scale * score;
    if (largest < 0 || probs[j] > probs[largest]) largest = j;
  }
  LOKO_CHECK(largest >= 0, "every key of a sample is masked");
  const T shift = probs[largest];
  T total(0);
  for (int j = 0; j < keys; ++j) {
    if (!takesPart(j)) continue;
    probs[j] = exp(probs[j] - shift);
    total += probs[j];
  }
  for (T& value : probs) value = value / total;
}

template <class T>
void run(const Attention& op, const Frame& frame, Memory<T>& memory) {
  const int queries = op.q.rows, keys = op.k.rows, cols = op.q.cols, width = cols / op.heads;
  LOKO_CHECK(width * op.heads == cols, "heads do not divide the columns");
  expectShape(op.k, keys, cols, "k");
  expectShape(op.v, keys, cols, "v");
  expectShape(op.o, queries, cols, "o");
  if (op.probs.present()) expectShape(op.probs, op.heads * queries, keys, "probs");
  if (op.mask.present()) expectShape(op.mask, 1, keys, "mask");
  const Tensor<T> q = memory(op.q, frame.batch), k = memory(op.k, frame.batch);
  const Tensor<T> v = memory(op.v, frame.batch), o = memory(op.o, frame.batch);
  const Tensor<T> probs = memory(op.probs, frame.batch), mask = memory(op.mask, frame.batch);
  std::vector<T> p;
  for (int b = 0; b < frame.batch; ++b) {
    for (int head = 0; head < op.heads; ++head) {
      const int begin = head * width;
      for (int t = 0; t < queries; ++t) {
        attentionRow(q, k, mask, b, t, begin, width, T(op.scale), p);
        for (int j = 0; probs && j < keys; ++j) probs(b, head * queries + t, j) = p[j];
        for (int c = begin; c < begin + width; ++c) {
          T sum(0);
          for (int j = 0; j < keys; ++j) sum += p[j] * v(b, j, c);
          o(b, t, c) = sum;
        }
      }
    }
  }
}

template <class T>
void run(const AttentionBackward& op, const Frame& frame, Memory<T>& memory) {
  const int queries = op.q.rows, keys = op.k.rows, cols = op.q.cols, width = cols / op.heads;
  LOKO_CHECK(width * op.heads == cols, "heads do not divide the columns");
  expectShape(op.k, keys, cols, "k");
  expectShape(op.v, keys, cols, "v");
  expectShape(op.o, queries, cols, "o");
  expectShape(op.dout, queries, cols, "dout");
  if (op.probs.present()) expectShape(op.probs, op.heads * queries, keys, "probs");
  if (op.mask.present()) expectShape(op.mask, 1, keys, "mask");
  if (op.dq.present()) expectShape(op.dq, queries, cols, "dq");
  if (op.dk.present()) expectShape(op.dk, keys, cols, "dk");
  if (op.dv.present()) expectShape(op.dv, keys, cols, "dv");
  const int segments = frame.segments();
  const Tensor<T> q = memory(op.q, frame.batch), k = memory(op.k, frame.batch);
  const Tensor<T> v = memory(op.v, frame.batch), o = memory(op.o, frame.batch);
  const Tensor<T> probs = memory(op.probs, frame.batch), dout = memory(op.dout, segments);
  const Tensor<T> dq = memory(op.dq, segments), dk = memory(op.dk, segments);
  const Tensor<T> dv = memory(op.dv, segments), mask = memory(op.mask, frame.batch);

  std::vector<T> p, ds(static_cast<std::size_t>(keys), T(0));
  for (int s = 0; s < segments; ++s) {
    const int b = s % frame.batch;
    for (int head = 0; head < op.heads; ++head) {
      const int begin = head * width, end = begin + width;
      for (int j = 0; j < keys; ++j) {
        for (int c = begin; c < end; ++c) {
          if (dk) dk(s, j, c) = T(0);
          if (dv) dv(s, j, c) = T(0);
        }
      }
      for (int t = 0; t < queries; ++t) {
        if (probs) {
          p.assign(static_cast<std::size_t>(keys), T(0));
          for (int j = 0; j < keys; ++j) p[j] = probs(b, head * queries + t, j);
        } else {
          attentionRow(q, k, mask, b, t, begin, width, T(op.scale), p);
        }
        T rowSum(0);
        for (int c = begin; c < end; ++c) rowSum += dout(s, t, c) * o(b, t, c);
        for (int j = 0; j < keys; ++j) {
          T dp(0);
          for (int c = begin; c < end; ++c) dp += dout(s, t, c) * v(b, j, c);
          ds[j] = p[j] * (dp - rowSum);
        }
        for (int c = begin; c < end; ++c) {
          T sum(0);
          for (int j = 0; j < keys; ++j) {
            sum += ds[j] * k(b, j, c);
            if (dk) dk(s, j, c) += T(op.scale) * ds[j] * q(b, t, c);
            if (dv) dv(s, j, c) += p[j] * dout(s, t, c);
          }
          if (dq) dq(s, t, c) = T(op.scale) * sum;
        }
      }
    }
  }
}

}  // namespace loko::ref
