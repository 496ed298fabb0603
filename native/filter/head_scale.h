#pragma once

// How sure the head is of itself: a parameter alpha of its own, theta = ... + alpha h with h the head as it was when
// the filter began (filter/low_rank.h has its part of the update), and what follows for the parameters below.

#include "filter/optimizer.h"

namespace loko {

class HeadScale {
 public:
  /// A head is trained; without this there is no such parameter.
  void start();
  /// v, the variance of alpha before the next step; 0 without a head.
  double variance() const { return variance_; }
  /// A step moved alpha by `step` and left it the variance `variance`.
  void observe(double step, double variance);
  /// A head that is scaled by 1 + alpha passes derivatives down that are scaled by as much. By what the variance
  /// of all parameters below it has to grow now, at most `most`, to move the logits as before; mostly 1, since
  /// whoever scales it passes over all of the state.
  double growthBelow(double most);
  void visitState(StateVisitor& visitor);

 private:
  double variance_ = 0;
  double scale_ = 1;     // 1 + alpha
  double followed_ = 1;  // the scale that the variance below the head was last adapted to
};

}  // namespace loko
