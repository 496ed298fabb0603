#pragma once

// Eigenpairs of C = diag(pi) - pi pi^T, the covariance of a categorical one-hot observation, without
// an m x m eigenproblem.

#include <vector>

namespace loko {

/// C is a rank-one change of a diagonal, so its non-zero eigenvalues are the roots of a secular
/// equation. With sum(pi) = 1 the usual 1 - sum pi_j^2/(pi_j - x) equals -x * g(x),
///
///   g(x) = sum_j pi_j / (pi_j - x),
///
/// which has lost the null root and the cancellation against 1: g rises from -inf to +inf between
/// neighbouring poles, every term has the relative precision of pi_j, and the eigenvector
/// u_j ~ pi_j / (pi_j - x) is orthogonal to the ones vector exactly where g(x) = 0. Roots are found
/// as offsets from their nearest pole, so that all differences pi_j - x are precise to the last
/// bits; the vectors are then orthonormal to about sqrt(m) * 2^-52 without the corrections
/// (Gu and Eisenstat) that a general rank-one change needs. r equal probabilities are one pole of
/// weight r * pi; the r - 1 differences inside the group are eigenvectors for pi itself, in
/// Helmert's basis. Probabilities below 1e-200 count as 1e-200: their eigenvalues are 0 for every
/// purpose, and the vectors stay well defined.
class SoftmaxSpectrum {
 public:
  /// Largest eigenvalues first. Stops after `maxPairs` (clamped to m - 1) or, before that, when
  /// the eigenvalues found hold `share` of the trace (share >= 1: never).
  void compute(const std::vector<double>& pi, int maxPairs, double share);

  int pairs() const { return static_cast<int>(values_.size()); }
  /// lambda, descending.
  const std::vector<double>& values() const { return values_; }
  /// U^T [pairs, m]: orthonormal rows, each orthogonal to the ones vector.
  const std::vector<double>& vectors() const { return vectors_; }
  /// sum_j pi_j (1 - pi_j), with relative precision also where one pi_j rounds to 1.
  double trace() const { return trace_; }

 private:
  struct Group {
    int begin = 0, end = 0;  // positions in order_
    int size() const { return end - begin; }
  };
  /// An eigenvalue as pole + sign * offset.
  struct Root {
    int pole = 0;
    double sign = 1, offset = 0;
  };

  void groupEqual(const std::vector<double>& pi);
  void computeTrace();
  void appendInside(const Group& group, int maxPairs, double target);
  Root findRoot(int lower);
  void appendRoot(const Root& root);
  bool complete(int maxPairs, double target) const;

  int classes_ = 0;
  double trace_ = 0;
  double sum_ = 0;                  // of values_
  std::vector<int> order_;          // classes by descending probability
  std::vector<double> sorted_;      // their (clamped) probabilities
  std::vector<Group> groups_;       // of exactly equal probabilities
  std::vector<double> pole_;        // per group: pi
  std::vector<double> weight_;      // per group: size * pi
  std::vector<double> difference_;  // per group: pi - pi of the current root's pole
  std::vector<double> values_;
  std::vector<double> vectors_;
};

}  // namespace loko
