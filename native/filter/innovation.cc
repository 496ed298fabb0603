#include "filter/innovation.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "filter/dense.h"

namespace loko {
namespace {

std::size_t square(int size) {
  return static_cast<std::size_t>(size) * static_cast<std::size_t>(size);
}

/// Factors `matrix` into `factor`; when a pivot fails, with 1e-6 of the mean diagonal added, then ten
/// times more, up to 1e-2: beyond that the update would be another one.
bool factorWithJitter(const std::vector<double>& matrix, int k, std::vector<double>& factor,
                      double& jitter) {
  factor = matrix;
  if (factorCholesky(factor, k)) return true;
  double trace = 0;
  for (int i = 0; i < k; ++i) trace += matrix[static_cast<std::size_t>(i) * (k + 1)];
  for (double share = 1e-6; share < 2e-2; share *= 10) {
    const double added = share * trace / k;
    factor = matrix;
    for (int i = 0; i < k; ++i) factor[static_cast<std::size_t>(i) * (k + 1)] += added;
    if (factorCholesky(factor, k)) {
      jitter = std::max(jitter, added);
      return true;
    }
  }
  return false;
}

double pivotRatio(const std::vector<double>& factor, int k) {
  double low = factor[0], high = factor[0];
  for (int i = 1; i < k; ++i) {
    const double pivot = factor[static_cast<std::size_t>(i) * (k + 1)];
    low = std::min(low, pivot);
    high = std::max(high, pivot);
  }
  return (high / low) * (high / low);
}

double meanSquare(const std::vector<double>& x) {
  double sum = 0;
  for (const double value : x) sum += value * value;
  return sum / static_cast<double>(x.size());
}

/// W = L^-1 diag(scale).
void scaledRoot(const std::vector<double>& factor, const CotangentBasis& basis,
                std::vector<double>& root) {
  const int k = basis.rows;
  invertLower(factor, k, root);
  for (int i = 0; i < k; ++i) {
    double* row = root.data() + static_cast<std::ptrdiff_t>(i) * k;
    for (int j = 0; j <= i; ++j) row[j] *= basis.scale[static_cast<std::size_t>(j)];
  }
}

}  // namespace

void scaleGram(const CotangentBasis& basis, const std::vector<double>& gram,
               std::vector<double>& scaled) {
  const std::size_t k = static_cast<std::size_t>(basis.rows);
  scaled.resize(k * k);
  for (std::size_t i = 0; i < k; ++i) {
    for (std::size_t j = 0; j < k; ++j) {
      // The mean of both triangles: S is symmetric to the last bit.
      const double value = 0.5 * (gram[i * k + j] + gram[j * k + i]);
      scaled[i * k + j] = basis.scale[i] * value * basis.scale[j];
    }
  }
}

void ObservationNoise::start(int outputs, double r0) {
  outputs_ = outputs;
  values_.assign(square(outputs), 0);
  for (int c = 0; c < outputs; ++c) values_[static_cast<std::size_t>(c) * (outputs + 1)] = r0;
  proposal_ = values_;
}

void ObservationNoise::reserve(int rows) {
  weighted_.reserve(square(rows));
  product_.reserve(static_cast<std::size_t>(rows) * static_cast<std::size_t>(outputs_));
  vectors_.reserve(product_.capacity());
}

void ObservationNoise::propose(double beta, const CotangentBasis& basis,
                               const std::vector<double>& residual,
                               const std::vector<double>& scaledGram) {
  const int m = outputs_, samples = basis.samples, k = basis.rowsPerSample();
  const double share = (1 - beta) / samples;
  for (int sample = 0; sample < samples; ++sample) {
    const double* e = residual.data() + std::ptrdiff_t{sample} * m;
    for (int c = 0; c < m; ++c) {
      const double* from = values_.data() + std::ptrdiff_t{c} * m;
      double* to = proposal_.data() + std::ptrdiff_t{c} * m;
      for (int d = c; d < m; ++d)
        to[d] = (sample == 0 ? beta * from[d] : to[d]) + share * e[c] * e[d];
    }
  }
  for (int sample = 0; sample < samples; ++sample) {
    weighted_.resize(square(k));
    for (int i = 0; i < k; ++i) {
      const double* row =
          scaledGram.data() + std::ptrdiff_t{i * samples + sample} * basis.rows + sample;
      for (int j = 0; j < k; ++j) {
        weighted_[static_cast<std::size_t>(i) * k + j] = share * row[std::ptrdiff_t{j} * samples];
      }
    }
    vectorsOf(basis, sample, vectors_);
    product_.assign(static_cast<std::size_t>(k) * static_cast<std::size_t>(m), 0);
    addTransposedProduct({weighted_.data(), k, vectors_.data(), m, product_.data(), m, k, k, m});
    addTransposedProduct({vectors_.data(), m, product_.data(), m, proposal_.data(), m, k, m, m,
                          Triangle::kUpperResult});
  }
}

void ObservationNoise::projectProposal(const CotangentBasis& basis, std::vector<double>& result) {
  project(proposal_, basis, result);
}

void ObservationNoise::projectCurrent(const CotangentBasis& basis, std::vector<double>& result) {
  project(values_, basis, result);
}

void ObservationNoise::project(const std::vector<double>& values, const CotangentBasis& basis,
                               std::vector<double>& result) {
  // With T the upper triangle of R and half its diagonal, R = T + T^T and U^T R U = X + X^T for
  // X = U^T T U: half the work.
  const int m = outputs_, samples = basis.samples, k = basis.rowsPerSample();
  result.assign(square(basis.rows), 0);
  for (int sample = 0; sample < samples; ++sample) {
    vectorsOf(basis, sample, vectors_);
    transposed_.resize(vectors_.size());  // U [m, k]
    for (int i = 0; i < k; ++i) {
      for (int c = 0; c < m; ++c) {
        transposed_[static_cast<std::size_t>(c) * k + i] =
            vectors_[static_cast<std::size_t>(i) * m + c];
      }
    }
    product_.resize(transposed_.size());  // T^T U [m, k]
    for (int c = 0; c < m; ++c) {
      const double half = -0.5 * values[static_cast<std::size_t>(c) * (m + 1)];
      for (int i = 0; i < k; ++i) {
        const std::size_t at = static_cast<std::size_t>(c) * k + i;
        product_[at] = half * transposed_[at];
      }
    }
    addTransposedProduct({values.data(), m, transposed_.data(), k, product_.data(), k, m, m, k,
                          Triangle::kUpperLeft});
    weighted_.assign(square(k), 0);
    addTransposedProduct({product_.data(), k, transposed_.data(), k, weighted_.data(), k, m, k, k});
    for (int i = 0; i < k; ++i) {
      double* row = result.data() + std::ptrdiff_t{i * samples + sample} * basis.rows + sample;
      for (int j = 0; j < k; ++j) {
        row[std::ptrdiff_t{j} * samples] = weighted_[static_cast<std::size_t>(i) * k + j] +
                                           weighted_[static_cast<std::size_t>(j) * k + i];
      }
    }
  }
}

double ObservationNoise::traceOf(const std::vector<double>& values) const {
  double sum = 0;
  for (int c = 0; c < outputs_; ++c) sum += values[static_cast<std::size_t>(c) * (outputs_ + 1)];
  return sum;
}

std::vector<double> ObservationNoise::matrix() const {
  std::vector<double> full = values_;
  const std::size_t m = static_cast<std::size_t>(outputs_);
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t j = 0; j < i; ++j) full[i * m + j] = values_[j * m + i];
  }
  return full;
}

bool solveGain(const CotangentBasis& basis, const std::vector<double>& scaledGram,
               const std::vector<double>& noise, const std::vector<double>& innovation,
               Covariance covariance, KalmanGain& result) {
  const int k = basis.rows;
  std::vector<double> s(scaledGram), factor;
  for (std::size_t i = 0; i < s.size(); ++i) s[i] += noise[i];
  result.jitter = 0;
  if (!factorWithJitter(s, k, factor, result.jitter)) return false;
  result.pivotRatio = pivotRatio(factor, k);

  result.gain = innovation;
  solveLower(factor, k, result.gain.data());
  result.nis = meanSquare(result.gain);
  solveUpper(factor, k, result.gain.data());
  for (std::size_t i = 0; i < result.gain.size(); ++i) result.gain[i] *= basis.scale[i];

  if (covariance != Covariance::kFdekf && !factorWithJitter(noise, k, factor, result.jitter)) {
    return false;
  }
  scaledRoot(factor, basis, result.root);
  return true;
}

bool solveCategoricalGain(const CotangentBasis& basis, const std::vector<double>& gram,
                          const std::vector<double>& innovation, Covariance covariance,
                          KalmanGain& result) {
  const int k = basis.rows;
  std::vector<double> f, factor, pulled(static_cast<std::size_t>(k));
  scaleGram(basis, gram, f);
  for (int i = 0; i < k; ++i) f[static_cast<std::size_t>(i) * (k + 1)] += 1;
  result.jitter = 0;
  if (!factorWithJitter(f, k, factor, result.jitter)) return false;
  result.pivotRatio = pivotRatio(factor, k);

  multiplySymmetric(gram, k, innovation.data(), pulled.data());
  for (std::size_t i = 0; i < pulled.size(); ++i) pulled[i] *= basis.scale[i];
  solveLower(factor, k, pulled.data());
  solveUpper(factor, k, pulled.data());
  result.gain = innovation;
  for (std::size_t i = 0; i < pulled.size(); ++i) result.gain[i] -= basis.scale[i] * pulled[i];

  // S = D F D, so e^T S^-1 e = |chol(F)^-1 D^-1 e|^2.
  for (std::size_t i = 0; i < pulled.size(); ++i) pulled[i] = innovation[i] / basis.scale[i];
  solveLower(factor, k, pulled.data());
  result.nis = meanSquare(pulled);

  if (covariance != Covariance::kFdekf) {
    result.root.assign(square(k), 0);
    for (int i = 0; i < k; ++i) {
      result.root[static_cast<std::size_t>(i) * (k + 1)] = basis.scale[static_cast<std::size_t>(i)];
    }
  } else {
    scaledRoot(factor, basis, result.root);
  }
  return true;
}

}  // namespace loko
