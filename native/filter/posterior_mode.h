#pragma once

// The measurement update of a categorical observation, iterated to the mode of the posterior. All of it
// happens in k-space and float64; the network is not evaluated again.

#include <vector>

#include "filter/innovation.h"

namespace loko {

/// A categorical observation of each sample of a batch.
struct CategoricalObservation {
  const std::vector<double>& logits;  // z [B, m]
  const std::vector<int>& labels;     // [B]
};

/// Minimises -log softmax(z + U v)_label, summed over the samples, + v^T M^-1 v / 2 over v = M a, by damped
/// Newton steps in a; M may be singular. The first step from a = 0 is the extended Kalman filter's; the others move the point
/// where softmax is linearised (an iterated EKF whose network is linear, Bell and Cathey 1993). At the
/// mode a = U^T(y - softmax(z + U M a)): the innovation that is left. A wrong and confident prediction
/// thus moves by as much as its error needs, and no further.
/// `result.root` is that of C = diag(pi) - pi pi^T at the mode: p falls by what the sample determined
/// there. With `sensitivity`, U^T dz/dc [k] for c the log of a common factor of the covariance so far,
/// `response` is the b [k] with d(theta step)/dc = Sigma G^T b: b = (I + C M)^-1 (a - C U^T dz/dc), by the
/// implicit function theorem. False when a matrix cannot be factored.
bool solvePosteriorMode(const CategoricalObservation& observation, const CotangentBasis& basis,
                        const std::vector<double>& gram, Covariance covariance,
                        const std::vector<double>* sensitivity, KalmanGain& result,
                        std::vector<double>& response);

}  // namespace loko
