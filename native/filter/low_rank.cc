#include "filter/low_rank.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "filter/dense.h"
#include "filter/symmetric_eigen.h"

namespace loko {

bool LowRank::reduce(int rows, double headVariance, std::vector<double>& gram,
                     Directions& directions) {
  rows_ = rows;
  headVariance_ = headVariance;
  if (factorRows() == 0) return true;  // X is G diag(p) G^T
  gram_ = gram;
  const std::size_t r = static_cast<std::size_t>(factorRows()), k = static_cast<std::size_t>(rows);
  const std::size_t rank = static_cast<std::size_t>(rank_), width = r + k;
  kept_.assign(rank * rank, 0);
  for (std::size_t i = 0; i < rank; ++i) {
    for (std::size_t j = 0; j < rank; ++j) {
      kept_[i * rank + j] = gram_[i * width + j] + (i == j ? 1 : 0);
    }
  }
  if (!factorCholesky(kept_, rank_)) return false;
  // Y = chol(K)^-1 X_WG, so that G Sigma G^T = X_GG - Y^T Y.
  whitened_.resize(k * rank);
  column_.resize(rank);
  for (std::size_t i = 0; i < k; ++i) {
    for (std::size_t l = 0; l < rank; ++l) column_[l] = gram_[l * width + r + i];
    solveLower(kept_, rank_, column_.data());
    std::copy(column_.begin(), column_.end(),
              whitened_.begin() + static_cast<std::ptrdiff_t>(i * rank));
  }
  gram.assign(k * k, 0);
  for (std::size_t i = 0; i < k; ++i) {
    for (std::size_t j = 0; j < k; ++j) {
      double known = 0;
      for (std::size_t l = 0; l < rank; ++l)
        known += whitened_[i * rank + l] * whitened_[j * rank + l];
      gram[i * k + j] = gram_[(r + i) * width + r + j] - known;
      if (adaptive_) gram[i * k + j] += headVariance_ * headRow()[i] * headRow()[j];
    }
  }
  directions.sensitivity.assign(k, 0);
  directions.deviation.assign(k, 0);
  for (std::size_t i = 0; adaptive_ && i < k; ++i) {
    directions.sensitivity[i] = gram_[rank * width + r + i];
    directions.deviation[i] = gram_[(rank + 1) * width + r + i];
  }
  return true;
}

/// X_hG [k].
const double* LowRank::headRow() const {
  const std::size_t r = static_cast<std::size_t>(factorRows());
  return gram_.data() + (r - 1) * (r + static_cast<std::size_t>(rows_)) + r;
}

/// |D^T G h|^2.
double LowRank::learnedOfHead(const std::vector<double>& root) const {
  const std::size_t k = static_cast<std::size_t>(rows_);
  double squares = 0;
  for (std::size_t i = 0; i < k; ++i) {
    double product = 0;
    for (std::size_t j = 0; j < k; ++j) product += root[i * k + j] * headRow()[j];
    squares += product * product;
  }
  return squares;
}

void LowRank::liftTo(const std::vector<double>& x, double* target) const {
  const std::size_t r = static_cast<std::size_t>(factorRows()),
                    rank = static_cast<std::size_t>(rank_);
  const std::size_t width = r + x.size();
  for (std::size_t l = 0; l < rank; ++l) {
    double product = 0;
    for (std::size_t i = 0; i < x.size(); ++i) product += gram_[l * width + r + i] * x[i];
    target[l] = -product;
  }
  solveLower(kept_, rank_, target);
  solveUpper(kept_, rank_, target);
  if (adaptive_) {
    double along = 0;
    for (std::size_t i = 0; i < x.size(); ++i) along += headRow()[i] * x[i];
    target[r - 1] = headVariance_ * along;
  }
  std::copy(x.begin(), x.end(), target + r);
}

/// S = Z X Z^T [L + k, L + k], Z = [I 0; 0 D^T]: the Gram matrix of [W; D^T G] = Z V.
std::vector<double> LowRank::stackedGram(const std::vector<double>& root) const {
  const std::size_t r = static_cast<std::size_t>(factorRows()), k = static_cast<std::size_t>(rows_);
  const std::size_t rank = static_cast<std::size_t>(rank_), width = r + k, size = rank + k;
  const auto lift = [&](std::size_t i, std::size_t column) {
    if (i < rank) return i == column ? 1.0 : 0.0;
    return column < r ? 0.0 : root[(i - rank) * k + column - r];
  };
  std::vector<double> half(size * width, 0), s(size * size, 0);  // Z X, S
  for (std::size_t i = 0; i < size; ++i) {
    for (std::size_t c = 0; c < width; ++c) {
      const double coefficient = lift(i, c);
      if (coefficient == 0) continue;
      for (std::size_t j = 0; j < width; ++j)
        half[i * width + j] += coefficient * gram_[c * width + j];
    }
  }
  for (std::size_t i = 0; i < size; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (std::size_t c = 0; c < width; ++c) sum += half[i * width + c] * lift(j, c);
      s[i * size + j] = s[j * size + i] = sum;
    }
  }
  return s;
}

/// The row q Z of the update: q [L + k] of Q, times `scale`, to `target` [r + k].
void LowRank::addStacked(const double* q, const std::vector<double>& root, double scale,
                         double* target) const {
  const std::size_t r = static_cast<std::size_t>(factorRows()), k = static_cast<std::size_t>(rows_);
  const std::size_t rank = static_cast<std::size_t>(rank_);
  for (std::size_t l = 0; l < rank; ++l) target[l] += scale * q[l];
  for (std::size_t i = 0; i < k; ++i) {
    for (std::size_t j = 0; j < k; ++j) target[r + j] += scale * q[rank + i] * root[i * k + j];
  }
}

/// Rows of Q [W; D^T G]: the L largest to carry_ (times `scale`), the others to root_.
bool LowRank::compress(const std::vector<double>& root, double scale) {
  const std::size_t rank = static_cast<std::size_t>(rank_);
  const std::size_t size = rank + static_cast<std::size_t>(rows_);
  const std::size_t width = static_cast<std::size_t>(factorRows() + rows_);
  Eigenpairs pairs;
  if (!symmetricEigenpairs(stackedGram(root), static_cast<int>(size), pairs)) return false;
  for (std::size_t i = 0; i < size; ++i) {
    const double* q = pairs.vectors.data() + i * size;
    if (i < rank) {
      addStacked(q, root, scale, carry_.data() + i * width);
    } else {
      addStacked(q, root, 1, root_.data() + (i - rank) * width);
    }
  }
  return true;
}

/// The rows s/p, d/p and h/p of carry_, and the stretch of theta: p grows by the factor.
void LowRank::carryDirections(const Measurement& measurement) {
  const std::size_t r = static_cast<std::size_t>(factorRows()), k = static_cast<std::size_t>(rows_);
  const std::size_t width = r + k, s = r - 3, d = r - 2, h = r - 1;
  double *sensitivity = carry_.data() + s * width, *deviation = carry_.data() + d * width;
  liftTo(measurement.response, sensitivity);
  sensitivity[s] = 1;
  sensitivity[h] = 0;  // v is not of the covariance that c scales
  gain_[d] = measurement.stretch;
  std::copy(gain_.begin(), gain_.end(), deviation);
  deviation[d] += 1;
  deviation[h] = 0;  // how sure the head is, is not taken back
  carry_[h * width + h] = 1 / measurement.factor;
  for (std::size_t i = 0; i < width; ++i) {
    sensitivity[i] *= measurement.memory / measurement.factor;
    deviation[i] /= measurement.factor;
  }
}

bool LowRank::plan(const Measurement& measurement, KalmanUpdate& update) {
  const std::size_t r = static_cast<std::size_t>(factorRows()), k = static_cast<std::size_t>(rows_);
  const std::size_t width = r + k;
  gain_.assign(width, 0);
  root_.assign(k * width, 0);
  carry_.assign(r * width, 0);
  liftTo(measurement.gain, gain_.data());
  if (rank_ == 0) {
    for (std::size_t i = 0; i < k; ++i) {
      std::copy_n(measurement.root.data() + i * k, k, root_.data() + i * width + r);
    }
  } else if (!compress(measurement.root, 1 / std::sqrt(measurement.factor))) {
    return false;
  }
  if (adaptive_) {
    carryDirections(measurement);
    headVariance_ /= 1 + headVariance_ * learnedOfHead(measurement.root);
  }
  update.rows = update.rootRows = rows_;
  update.factorRows = factorRows();
  update.dualRows = dualRows();
  update.gain = gain_.data();
  update.root = root_.data();
  update.carry = carry_.data();
  return true;
}

}  // namespace loko
