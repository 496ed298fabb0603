#include "filter/posterior_mode.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "filter/dense.h"
#include "filter/prediction.h"

namespace loko {
namespace {

constexpr int kNewtonSteps = 12;
constexpr int kHalvings = 12;
// Of the objective, in nats: far below what one sample can tell.
constexpr double kTolerance = 1e-6;
// The share of the predicted fall that a step must bring.
constexpr double kArmijo = 1e-4;

/// The objective and its derivatives along v.
class Mode {
 public:
  Mode(const CategoricalObservation& observation, const CotangentBasis& basis,
       const std::vector<double>& gram)
      : observation_(observation), basis_(basis), k_(static_cast<std::size_t>(basis.rows)) {
    // The mean of both triangles: symmetric to the last bit.
    gram_ = gram;
    for (std::size_t i = 0; i < k_; ++i) {
      for (std::size_t j = 0; j < k_; ++j) {
        gram_[i * k_ + j] = 0.5 * (gram[i * k_ + j] + gram[j * k_ + i]);
      }
    }
    shifted_.resize(observation.logits.size());
    pi_.resize(shifted_.size());
    innovation_.resize(shifted_.size());
    moved_.resize(k_);
  }

  /// Value at v = M a; pi and the projected innovation of that point stay.
  double moveTo(const std::vector<double>& a) {
    const int m = basis_.outputs;
    multiplySymmetric(gram_, basis_.rows, a.data(), moved_.data());
    shifted_ = observation_.logits;
    for (int i = 0; i < basis_.rows; ++i) {
      const double* u = basis_.vectors.data() + std::ptrdiff_t{i} * m;
      double* z = shifted_.data() + std::ptrdiff_t{i % basis_.samples} * m;
      for (int c = 0; c < m; ++c) z[c] += u[c] * moved_[static_cast<std::size_t>(i)];
    }
    double loss = 0;
    for (int sample = 0; sample < basis_.samples; ++sample) {
      const int label = observation_.labels[static_cast<std::size_t>(sample)];
      const double* z = shifted_.data() + std::ptrdiff_t{sample} * m;
      double* pi = pi_.data() + std::ptrdiff_t{sample} * m;
      loss += softmax(z, m, pi) - z[label];
      softmaxInnovation(pi, m, label, innovation_.data() + std::ptrdiff_t{sample} * m);
    }
    project(basis_, innovation_, left_);
    return loss + 0.5 * dot(a, moved_);
  }

  /// L with U^T C U = L L^T at the current point, as its transpose: an upper triangle [k, k].
  bool factorCurvature() {
    curvature_.assign(k_ * k_, 0);
    for (int sample = 0; sample < basis_.samples; ++sample) addCurvature(sample);
    const int k = basis_.rows;
    double trace = 0;
    for (std::size_t i = 0; i < k_; ++i) trace += curvature_[i * (k_ + 1)];
    // C may be singular in the basis; a billionth of its mean eigenvalue changes nothing else. The
    // smallest normal numbers keep a factor where all probability is in one class.
    const double added = 1e-9 * trace / static_cast<double>(k_) + 1e-280;
    for (std::size_t i = 0; i < k_; ++i) curvature_[i * (k_ + 1)] += added;
    if (!factorCholesky(curvature_, k)) return false;
    for (std::size_t i = 1; i < k_; ++i) {
      for (std::size_t j = 0; j < i; ++j) curvature_[i * k_ + j] = 0;
    }
    return true;
  }

  /// chol(F) for F = I + L^T M L.
  bool factorPosterior() {
    const int k = basis_.rows;
    std::vector<double> lower(k_ * k_), product(k_ * k_, 0);
    for (std::size_t i = 0; i < k_; ++i) {
      for (std::size_t j = 0; j < k_; ++j) lower[i * k_ + j] = curvature_[j * k_ + i];
    }
    addTransposedProduct({gram_.data(), k, lower.data(), k, product.data(), k, k, k, k});  // M L
    posterior_.assign(k_ * k_, 0);
    addTransposedProduct({lower.data(), k, product.data(), k, posterior_.data(), k, k, k, k});
    for (std::size_t i = 0; i < k_; ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        const double value = 0.5 * (posterior_[i * k_ + j] + posterior_[j * k_ + i]);
        posterior_[i * k_ + j] = posterior_[j * k_ + i] = value;
      }
      posterior_[i * (k_ + 1)] += 1;
    }
    return factorCholesky(posterior_, k);
  }

  /// (I + C M)^-1 r = r - L F^-1 L^T M r.
  void solve(std::vector<double>& r) {
    const int k = basis_.rows;
    std::vector<double> pulled(k_);
    multiplySymmetric(gram_, k, r.data(), pulled.data());
    std::vector<double> rotated = toRoot(pulled);
    solveLower(posterior_, k, rotated.data());
    solveUpper(posterior_, k, rotated.data());
    const std::vector<double> back = fromRoot(rotated);
    for (std::size_t i = 0; i < k_; ++i) r[i] -= back[i];
  }

  /// C r.
  std::vector<double> curve(const std::vector<double>& r) const { return fromRoot(toRoot(r)); }

  const std::vector<double>& left() const { return left_; }
  const std::vector<double>& gram() const { return gram_; }
  const std::vector<double>& curvature() const { return curvature_; }
  const std::vector<double>& posterior() const { return posterior_; }

 private:
  /// L^T r.
  std::vector<double> toRoot(const std::vector<double>& r) const {
    std::vector<double> result(k_, 0);
    for (std::size_t i = 0; i < k_; ++i) {
      for (std::size_t j = i; j < k_; ++j) result[i] += curvature_[i * k_ + j] * r[j];
    }
    return result;
  }
  /// L r.
  std::vector<double> fromRoot(const std::vector<double>& r) const {
    std::vector<double> result(k_, 0);
    for (std::size_t i = 0; i < k_; ++i) {
      for (std::size_t j = i; j < k_; ++j) result[j] += curvature_[i * k_ + j] * r[i];
    }
    return result;
  }

  /// U^T C U of one sample to curvature_, which holds 0 between samples.
  void addCurvature(int sample) {
    const std::size_t m = static_cast<std::size_t>(basis_.outputs);
    const std::size_t samples = static_cast<std::size_t>(basis_.samples), k = k_ / samples;
    const double* pi = pi_.data() + static_cast<std::size_t>(sample) * m;
    vectorsOf(basis_, sample, vectors_);
    std::vector<double> mean(k, 0), transposed(m * k), scaled(m * k), product(k * k, 0);
    for (std::size_t i = 0; i < k; ++i) {
      for (std::size_t c = 0; c < m; ++c) mean[i] += vectors_[i * m + c] * pi[c];
    }
    for (std::size_t c = 0; c < m; ++c) {
      for (std::size_t i = 0; i < k; ++i) {
        const double centred = vectors_[i * m + c] - mean[i];
        transposed[c * k + i] = centred;
        scaled[c * k + i] = pi[c] * centred;
      }
    }
    const int rows = static_cast<int>(k);
    addTransposedProduct({transposed.data(), rows, scaled.data(), rows, product.data(), rows,
                          basis_.outputs, rows, rows});
    for (std::size_t i = 0; i < k; ++i) {
      double* row = curvature_.data() + (i * samples + static_cast<std::size_t>(sample)) * k_ +
                    static_cast<std::size_t>(sample);
      for (std::size_t j = 0; j < k; ++j) row[j * samples] = product[i * k + j];
    }
  }

  const CategoricalObservation& observation_;
  const CotangentBasis& basis_;
  std::size_t k_;
  std::vector<double> gram_;        // M
  std::vector<double> shifted_;     // z + U M a
  std::vector<double> pi_;          // of that
  std::vector<double> innovation_;  // y - pi
  std::vector<double> left_;        // U^T(y - pi)
  std::vector<double> moved_;       // M a
  std::vector<double> curvature_;   // L^T
  std::vector<double> posterior_;   // chol(F)
  std::vector<double> vectors_;     // U^T of a sample
};

/// a <- a + t d with the largest t = 1, 1/2, ... that lowers the value enough (Armijo). False, and `mode`
/// back at a, where none does.
bool lineSearch(Mode& mode, const std::vector<double>& direction, double slope, double& value,
                std::vector<double>& a) {
  std::vector<double> candidate(a.size());
  double length = 1;
  for (int half = 0; half < kHalvings; ++half, length /= 2) {
    for (std::size_t i = 0; i < a.size(); ++i) candidate[i] = a[i] + length * direction[i];
    const double next = mode.moveTo(candidate);
    if (next <= value - kArmijo * length * slope) {
      a = candidate;
      value = next;
      return true;
    }
  }
  mode.moveTo(a);
  return false;
}

/// Leaves `mode` at its minimum a with both factors of that point. False when one cannot be made.
bool descend(Mode& mode, std::vector<double>& a) {
  const std::size_t k = a.size();
  std::vector<double> direction(k), residual(k), pulled(k);
  double value = mode.moveTo(a);
  for (int step = 0;; ++step) {
    if (!mode.factorCurvature() || !mode.factorPosterior()) return false;
    if (step == kNewtonSteps) return true;
    for (std::size_t i = 0; i < k; ++i) residual[i] = mode.left()[i] - a[i];
    direction = residual;
    mode.solve(direction);
    // By how much the value falls along d: (e - a)^T M d.
    multiplySymmetric(mode.gram(), static_cast<int>(k), direction.data(), pulled.data());
    const double slope = dot(residual, pulled);
    if (step == 0 && slope <= kTolerance) {
      // The linear update, as for a p0 that is far too small: an adaptive gain has to see something move.
      a = direction;
      mode.moveTo(a);
      break;
    }
    if (!(slope > kTolerance) || !lineSearch(mode, direction, slope, value, a)) break;
  }
  return mode.factorCurvature() && mode.factorPosterior();
}

}  // namespace

bool solvePosteriorMode(const CategoricalObservation& observation, const CotangentBasis& basis,
                        const std::vector<double>& gram, Covariance covariance,
                        const std::vector<double>* sensitivity, KalmanGain& result,
                        std::vector<double>& response) {
  const std::size_t k = static_cast<std::size_t>(basis.rows);
  Mode mode(observation, basis, gram);
  result.gain.assign(k, 0);
  if (!descend(mode, result.gain)) return false;

  if (sensitivity != nullptr) {
    response = mode.curve(*sensitivity);
    for (std::size_t i = 0; i < k; ++i) response[i] = result.gain[i] - response[i];
    mode.solve(response);
  }

  result.root = mode.curvature();  // what precision grows by: W = L^T
  if (covariance != Covariance::kFdekf) return true;
  std::vector<double> inverse;
  invertLower(mode.posterior(), basis.rows, inverse);
  result.root.assign(k * k, 0);  // W = chol(F)^-1 L^T
  for (std::size_t i = 0; i < k; ++i) {
    for (std::size_t l = 0; l <= i; ++l) {
      for (std::size_t j = l; j < k; ++j) {
        result.root[i * k + j] += inverse[i * k + l] * mode.curvature()[l * k + j];
      }
    }
  }
  return true;
}

}  // namespace loko
