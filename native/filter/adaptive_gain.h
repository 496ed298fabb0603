#pragma once

// How large the covariance should be, learned from what the filter sees anyway. All of it is scalars and
// one [m, m] matrix in float64; no pass over the parameters and no second backward pass.

#include <vector>

#include "filter/optimizer.h"
#include "filter/posterior_mode.h"

namespace loko {

/// p <- factor * p + share * mean(p).
struct CovarianceChange {
  double factor = 1, share = 0;
};

/// Scales p so that the filter is calm while its errors are noise and plastic while they can be
/// learned. Two statistics of the stream say which:
///
/// - Whiteness. The innovations of a filter with the right gain are uncorrelated in time (Mehra 1970).
///   Errors that come back where the model predicts the same are still to be learned; errors that
///   turn around were learned too hard. With B the running mean of pi e^T - the gradient of a
///   recalibration z + W pi, which would be learned if it were there - the sign of pi^T B e says
///   which; its t-statistic over the last samples says whether it is more than chance.
/// - Evidence. The evidence of one sample for a common factor of p has its maximum where
///   the energy a^T M a equals the number of directions the sample determined (MacKay 1992). A
///   diagonal p overstates the variance along directions in which it is correlated, so the bound is at
///   half of it: below, p is too large whatever the errors say, and it shrinks. This is what keeps a
///   gain that is itself the cause of the errors from growing.
class AdaptiveGain {
 public:
  void start(int outputs);
  /// After an applied step. `relativeMean` is mean(p) / p0.
  CovarianceChange observe(const std::vector<double>& pi, const std::vector<double>& innovation,
                           const Evidence& evidence, double relativeMean);
  void visitState(StateVisitor& visitor);

 private:
  double whiteness(const std::vector<double>& pi, const std::vector<double>& innovation);

  int outputs_ = 0;
  double samples_ = 0;                       // seen
  double product_ = 0, productSquares_ = 0;  // sums of w x and w^2 x^2, x = pi^T B e
  double energy_ = 0, determined_ = 0;       // sums with forgetting
  std::vector<double> persistent_;           // B [m, m]
};

}  // namespace loko
