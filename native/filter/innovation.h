#pragma once

// One measurement update in k-space: everything of size k or m, in float64. Parameters (size n)
// are touched only by the backend, through the gain and the root computed here.

#include <vector>

#include "filter/cotangent_basis.h"
#include "filter/loko_options.h"

namespace loko {

/// M_H = E M E for M = G diag(p) G^T [k, k].
void scaleGram(const CotangentBasis& basis, const std::vector<double>& gram,
               std::vector<double>& scaled);

/// The observation noise covariance R [m, m] in class space, where it outlives the basis of a step.
/// Only its upper triangle is stored; the strict lower one is 0.
class ObservationNoise {
 public:
  /// R = r0 I.
  void start(int outputs, double r0);
  /// R <- beta R + (1 - beta)(e e^T + U M_H U^T), mean over the samples, into a proposal that commit() makes valid.
  void propose(double beta, const CotangentBasis& basis, const std::vector<double>& residual,
               const std::vector<double>& scaledGram);
  void commit() { values_.swap(proposal_); }
  /// Memory for a proposal of so many rows, which then allocates nothing.
  void reserve(int rows);
  /// R_k = U^T R U [k, k] of the proposal or the valid R; 0 between samples.
  void projectProposal(const CotangentBasis& basis, std::vector<double>& result);
  void projectCurrent(const CotangentBasis& basis, std::vector<double>& result);

  int outputs() const { return outputs_; }
  double trace() const { return traceOf(values_); }
  double proposalTrace() const { return traceOf(proposal_); }
  /// The stored triangle, for a state that is saved and restored.
  std::vector<double>& values() { return values_; }
  /// [m, m], both triangles.
  std::vector<double> matrix() const;

 private:
  double traceOf(const std::vector<double>& values) const;
  void project(const std::vector<double>& values, const CotangentBasis& basis,
               std::vector<double>& result);

  int outputs_ = 0;
  std::vector<double> values_, proposal_;
  std::vector<double> weighted_, transposed_, product_, vectors_;  // scratch
};

/// What the backend needs for the update, and what the report says about S.
struct KalmanGain {
  std::vector<double> gain;  // a [k]: delta = p * (G^T a)
  std::vector<double> root;  // W [k, k]: p falls by p^2 colsum((W G)^2), or 1/p rises by it (VDEKF)
  double nis = 0;            // e^T S^-1 e / k
  double jitter = 0;         // added to the diagonal of a matrix to factor it
  double pivotRatio = 0;     // (max/min Cholesky pivot)^2 of S (categorical: of I + L^T M L)
};

/// S = M_H + R_k, w = S^-1 e_k, a = E w, W = L^-1 E with S = L L^T; for VDEKF W comes from R_k instead.
/// False when a matrix cannot be factored.
bool solveGain(const CotangentBasis& basis, const std::vector<double>& scaledGram,
               const std::vector<double>& noise, const std::vector<double>& innovation,
               Covariance covariance, KalmanGain& result);

/// The same for a categorical observation: h = softmax, R = C = diag(pi) - pi pi^T, without forming
/// the singular S. With C_k = U^T C U = D^2 (D = diag(scale)) and M = G diag(p) G^T:
/// F = I + D M D, a = e_k - D F^-1 D M e_k, W = chol(F)^-1 D; for VDEKF W = D.
/// F has no eigenvalue below 1, so no jitter is ever needed. On the span of U it equals the softmax
/// form with R = C and a pseudo-inverse of S, but it keeps all of e where pi saturates.
bool solveCategoricalGain(const CotangentBasis& basis, const std::vector<double>& gram,
                          const std::vector<double>& innovation, Covariance covariance,
                          KalmanGain& result);

}  // namespace loko
