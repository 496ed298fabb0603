#pragma once

// What the filter does with the stored Jacobian: its weighted Gram matrix and the Kalman update.

#include "ref/memory.h"

namespace loko::ref {

/// sum over columns c of [begin, end) of G[i, c] weights[c] G[j, c]; weights null: ones.
template <class T>
T gramEntry(const Memory<T>& memory, std::int64_t i, std::int64_t j, std::int64_t begin,
            std::int64_t end, const T* weights) {
  const T* left = memory.jacobian.data() + i * memory.parameters;
  const T* right = memory.jacobian.data() + j * memory.parameters;
  T sum(0);
  for (std::int64_t c = begin; c < end; ++c) {
    sum += weights != nullptr ? left[c] * weights[c] * right[c] : left[c] * right[c];
  }
  return sum;
}

template <class T>
void run(const Gram& op, const Frame& frame, Memory<T>& memory) {
  if (frame.gram == nullptr) return;
  LOKO_CHECK(
      op.begin >= 0 && op.begin <= op.end && op.end <= memory.parameters &&
          frame.gramRows * memory.parameters <= static_cast<std::int64_t>(memory.jacobian.size()),
      "columns or rows beyond the end of the Jacobian");
  const T* weights = nullptr;
  if (frame.gramWeights != nullptr) {
    weights = dynamic_cast<const State<T>&>(*frame.gramWeights).values.data();
  }
  for (int i = 0; i < frame.gramRows; ++i) {
    for (int j = 0; j < frame.gramRows; ++j) {
      frame.gram[i * frame.gramRows + j] +=
          static_cast<double>(gramEntry(memory, i, j, op.begin, op.end, weights));
    }
  }
}

template <class T>
void predictCovariance(std::vector<T>& p, double gamma2, double q, double pMax) {
  for (T& value : p) {
    const T next = T(gamma2) * value + T(q);
    value = next > T(pMax) ? T(pMax) : next;
  }
}

/// theta and p move together, one column of G at a time: both read p as it was before the update.
template <class T>
KalmanUpdateResult kalmanUpdate(const KalmanUpdate& update, std::vector<T>& p, Memory<T>& memory) {
  const std::int64_t n = memory.parameters;
  const int k = update.rows;
  LOKO_CHECK(static_cast<std::int64_t>(p.size()) == n &&
                 static_cast<std::int64_t>(memory.theta.size()) >= n &&
                 k * n <= static_cast<std::int64_t>(memory.jacobian.size()),
             "p, theta and the Jacobian have different numbers of parameters");
  KalmanUpdateResult result;
  for (std::int64_t c = 0; c < n; ++c) {
    const T* column = memory.jacobian.data() + c;
    T step(0), q(0);
    for (int i = 0; i < k; ++i) {
      step += column[i * n] * T(update.gain[i]);
      T whitened(0);
      for (int j = 0; j < k; ++j) whitened += T(update.root[i * k + j]) * column[j * n];
      q += whitened * whitened;
    }
    memory.theta[c] += p[c] * step;
    T next = update.rule == CovarianceRule::kFullyDecoupled ? p[c] * (T(1) - p[c] * q)
                                                            : p[c] / (T(1) + p[c] * q);
    if (next < T(update.floor)) {
      next = T(update.floor);
      ++result.floored;
    }
    p[c] = next;

    const double value = static_cast<double>(next);
    result.sum += value;
    result.min = c == 0 || value < result.min ? value : result.min;
    result.max = c == 0 || value > result.max ? value : result.max;
  }
  return result;
}

}  // namespace loko::ref
