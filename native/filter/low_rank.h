#pragma once

// The k-space algebra of a covariance that is diagonal plus low rank (LO-FI: Chang, Duran-Martin, Shestopaloff,
// Jones, Murphy, arXiv 2305.19535), and of the three rows of an adaptive gain: s = dtheta/dc, d = theta - theta0 as
// far as this filter moved it, and h, the parameters of the head when it began: how sure the model is of itself.
//
// Sigma = (diag(1/p) + W^T W)^-1 + v h h^T, W [L, n]. The backend holds `factor` [r, n]: the rows of W, then with
// an adaptive gain s/p, d/p and h/p. One Gram matrix X of V = [W; s/p; d/p; h/p; G] under diag(p) has everything:
//
//   K = I + W diag(p) W^T,  Sigma = diag(p) - diag(p) W^T K^-1 W diag(p) + v h h^T
//   G Sigma G^T = X_GG - X_GW K^-1 X_WG + v X_Gh X_hG,  G s = X_Gs,  G d = X_Gd
//   Sigma G^T a = diag(p) V^T [-K^-1 X_WG a; 0; 0; v X_hG a; a],  d = diag(p) V^T [0; 0; 1; 0; 0]
//
// A measurement adds G^T D D^T G to the precision. [W; D^T G] has the Gram matrix S under diag(p), S = Q^T
// diag(lambda) Q; of the rows Q [W; D^T G] the L with the largest lambda become W, and what the others add
// to the diagonal of the precision stays in 1/p. v is kept apart from p and W (mean field): 1/v grows by |D^T G h|^2.

#include <vector>

#include "core/backend.h"

namespace loko {

class LowRank {
 public:
  LowRank() = default;
  /// L rows of W, and the three rows of an adaptive gain if `adaptive`.
  LowRank(int rank, bool adaptive) : rank_(rank), adaptive_(adaptive) {}

  int factorRows() const { return rank_ + dualRows(); }
  /// The last rows of the factor: s/p, d/p and h/p, which are kept over p.
  int dualRows() const { return adaptive_ ? 3 : 0; }

  /// What an adaptive gain sees of the parameters before a step; zeros without one.
  struct Directions {
    std::vector<double> sensitivity;  // G s [k]
    std::vector<double> deviation;    // G d [k]
  };
  /// Takes X [r + k, r + k] apart, with v = `headVariance`. `gram` becomes G Sigma G^T [k, k]. False when K
  /// cannot be factored: a number is not finite, or p promises more than float32 holds.
  bool reduce(int rows, double headVariance, std::vector<double>& gram, Directions& directions);

  struct Measurement {
    const std::vector<double>& gain;  // a [k]
    const std::vector<double>& root;  // D^T [k, k] (rank 0: W of KalmanGain, by the rule of p)
    const std::vector<double>&
        response;        // b [k] with d(Sigma G^T a)/dc = Sigma G^T b; adaptive only
    double factor = 1;   // Sigma <- factor Sigma after the measurement
    double memory = 1;   // of s: s <- memory (s + Sigma G^T b)
    double stretch = 0;  // theta <- theta + stretch d + Sigma G^T a; d likewise but for h, s not
  };
  /// The coefficients of the update that reduce() prepared; they stay valid until the next call. False when
  /// S has no eigenvalues.
  bool plan(const Measurement& measurement, KalmanUpdate& update);
  /// v after the measurement that was planned, and by how much alpha moves in it.
  double headVariance() const { return headVariance_; }
  double headStep() const {
    return adaptive_ ? gain_[static_cast<std::size_t>(factorRows()) - 1] : 0;
  }

 private:
  /// [-K^-1 X_WG x; 0; 0; v X_hG x; x] to row `target` [r + k].
  void liftTo(const std::vector<double>& x, double* target) const;
  std::vector<double> stackedGram(const std::vector<double>& root) const;
  void addStacked(const double* q, const std::vector<double>& root, double scale,
                  double* target) const;
  bool compress(const std::vector<double>& root, double scale);
  void carryDirections(const Measurement& measurement);
  double learnedOfHead(const std::vector<double>& root) const;
  const double* headRow() const;

  int rank_ = 0;
  bool adaptive_ = false;
  int rows_ = 0;              // k
  double headVariance_ = 0;   // v
  std::vector<double> gram_;  // X
  std::vector<double> kept_;  // chol(K)
  std::vector<double> whitened_,
      column_;  // scratch that reduce() keeps: a repeated call allocates nothing
  std::vector<double> gain_, root_, carry_;
};

}  // namespace loko
