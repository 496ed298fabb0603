#pragma once

// How far from where it began the filter should stay, learned from what it sees anyway: scalars in float64 and
// one row of parameters (filter/low_rank.h), no second backward pass.

#include "filter/optimizer.h"

namespace loko {

/// Scales theta - theta0 by ascent on the predictive likelihood: d log P(label) / d alpha = e^T J (theta -
/// theta0) says of each sample, before it is learned from, whether a longer or a shorter way from theta0
/// would have predicted it better. Where there is nothing to learn, the noise of the steps shows as a negative
/// slope and is undone, which a filter alone never does; a forgetting factor that is learned (as in Titsias et
/// al., arXiv 2306.08448), and one way, since theta0 is the pretrained model.
class DeviationScale {
 public:
  /// The slope at a sample that is about to be learned from (of a batch: their sum), and what is left to gain
  /// (AdaptiveGain::room); returns by which share of itself theta - theta0 is to grow, in [-1/2, 0.01].
  double observe(double slope, double room);
  void visitState(StateVisitor& visitor);

 private:
  double sum_ = 0, squares_ = 0;  // of the slopes, with forgetting
};

}  // namespace loko
