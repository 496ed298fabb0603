#pragma once

// What the filter does with the stored Jacobian: its weighted Gram matrix and the Kalman update.

#include "ref/memory.h"

namespace loko::ref {

/// Rows of a factor, then rows of the Jacobian, as one matrix [rows, n].
template <class T>
class StackedRows {
 public:
  StackedRows(const StateArray* factor, int factorRows, const Memory<T>& memory, int jacobianRows)
      : jacobian_(memory.jacobian.data()), n_(memory.parameters), factorRows_(factorRows) {
    LOKO_CHECK(jacobianRows * n_ <= static_cast<std::int64_t>(memory.jacobian.size()),
               "rows beyond the end of the Jacobian");
    if (factor == nullptr) return;
    const std::vector<T>& values = dynamic_cast<const State<T>&>(*factor).values;
    LOKO_CHECK(static_cast<std::int64_t>(values.size()) == factorRows * n_,
               "a factor has another size");
    factor_ = values.data();
  }
  T at(int row, std::int64_t column) const {
    return row < factorRows_ ? factor_[row * n_ + column]
                             : jacobian_[(row - factorRows_) * n_ + column];
  }

 private:
  const T* jacobian_;
  const T* factor_ = nullptr;
  std::int64_t n_;
  int factorRows_;
};

template <class T>
void run(const Gram& op, const Frame& frame, Memory<T>& memory) {
  if (frame.gram == nullptr) return;
  LOKO_CHECK(op.begin >= 0 && op.begin <= op.end && op.end <= memory.parameters,
             "columns beyond the end of the Jacobian");
  const StackedRows<T> rows(frame.factor, frame.factorRows, memory, frame.gramRows);
  const T* weights = nullptr;
  if (frame.gramWeights != nullptr) {
    weights = dynamic_cast<const State<T>&>(*frame.gramWeights).values.data();
  }
  const int size = frame.gramSize();
  for (int i = 0; i < size; ++i) {
    for (int j = 0; j < size; ++j) {
      T sum(0);
      for (std::int64_t c = op.begin; c < op.end; ++c) {
        const T weight = weights != nullptr ? weights[c] : T(1);
        sum += rows.at(i, c) * weight * rows.at(j, c);
      }
      frame.gram[i * size + j] += static_cast<double>(sum);
    }
  }
}

template <class T>
void capVariance(std::vector<T>& p, double most, std::vector<T>& factor, int firstRow,
                 int lastRow) {
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (!(p[i] > T(most))) continue;
    const T ratio = p[i] / T(most);
    for (int row = firstRow; row < lastRow; ++row) {
      T& value = factor[static_cast<std::size_t>(row) * p.size() + i];
      value = value * ratio;
    }
    p[i] = T(most);
  }
}

template <class T>
void transition(std::vector<T>& values, std::int64_t begin, std::int64_t end,
                const Transition& by) {
  for (std::int64_t i = begin; i < end; ++i) {
    T& value = values[static_cast<std::size_t>(i)];
    const T next = T(by.factor) * value + T(by.added);
    value = next > T(by.most) ? T(by.most) : next;
  }
}

template <class T>
T dotColumn(const double* coefficients, const std::vector<T>& column) {
  T sum(0);
  for (std::size_t j = 0; j < column.size(); ++j) sum += T(coefficients[j]) * column[j];
  return sum;
}

/// theta, p and the factor move together, one column at a time: all read what was there before the update.
template <class T>
KalmanUpdateResult kalmanUpdate(const KalmanUpdate& update, std::vector<T>& p, Memory<T>& memory) {
  const std::int64_t n = memory.parameters;
  LOKO_CHECK(static_cast<std::int64_t>(p.size()) == n &&
                 static_cast<std::int64_t>(memory.theta.size()) >= n,
             "p, theta and the Jacobian have different numbers of parameters");
  const StackedRows<T> rows(update.factor, update.factorRows, memory, update.rows);
  T* factor =
      update.factor != nullptr ? dynamic_cast<State<T>&>(*update.factor).values.data() : nullptr;
  const int width = update.width();
  std::vector<T> column(static_cast<std::size_t>(width));
  KalmanUpdateResult result;
  for (std::int64_t c = 0; c < n; ++c) {
    for (int i = 0; i < width; ++i) column[static_cast<std::size_t>(i)] = rows.at(i, c);
    T q(0);
    for (int i = 0; i < update.rootRows; ++i) {
      const T whitened = dotColumn(update.root + std::int64_t{i} * width, column);
      q += whitened * whitened;
    }
    memory.theta[c] += p[c] * dotColumn(update.gain, column);
    T next = update.rule == CovarianceRule::kFullyDecoupled ? p[c] * (T(1) - p[c] * q)
                                                            : p[c] / (T(1) + p[c] * q);
    if (next < T(update.floor)) {
      next = T(update.floor);
      ++result.floored;
    }
    for (int i = 0; i < update.factorRows; ++i) {
      const T carried = dotColumn(update.carry + std::int64_t{i} * width, column);
      const bool dual = i >= update.factorRows - update.dualRows;
      // A frozen parameter has p = new p = 0.
      factor[i * n + c] = dual && next > T(0) ? carried * (p[c] / next) : carried;
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
