#pragma once

// How large the covariance should be, learned from what the filter sees anyway: scalars in float64 and one
// row of parameters (filter/low_rank.h), no second backward pass.

#include "filter/optimizer.h"

namespace loko {

/// Scales the covariance so that the filter is calm while its errors are noise and plastic while they can
/// be learned, by ascent on its own predictive likelihood: with c the log of a common factor that the
/// covariance had at all steps so far, d log P(label) / dc = e^T dz/dc says of each sample, before it is
/// learned from, whether larger or smaller steps would have predicted it better. dz/dc = J dtheta/dc is
/// carried along by forward differentiation of the filter (as Sutton's IDBD, 1992, does for a learning rate
/// and Schraudolph's SMD, 1999, for one each), forgetting what is older than about 50 samples.
class AdaptiveGain {
 public:
  /// The share of dtheta/dc that a step keeps of those before.
  static constexpr double kMemory = 0.98;

  /// d log P(label) / dc of a sample that is about to be learned from, and its loss -log P(label); returns the
  /// factor of the covariance after it. Of a batch: sum and mean.
  double observe(double slope, double loss);
  /// What is left to gain, in [0, 1], by the mean loss of the last samples: 0 where all is predicted.
  double room() const;
  /// The product of all factors.
  double total() const;
  void visitState(StateVisitor& visitor);

 private:
  double samples_ = 0;            // seen
  double loss_ = 0;               // mean, with forgetting
  double sum_ = 0, squares_ = 0;  // of the slopes, with forgetting
  double log_ = 0;                // c in all
};

}  // namespace loko
