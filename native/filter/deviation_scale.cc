#include "filter/deviation_scale.h"

#include <algorithm>
#include <cmath>

namespace loko {
namespace {

// None of these is an option: docs/decisions/deviation-scale.md has what other values cost on the streams.
constexpr double kKeep = 0.99;           // of the statistic per sample
constexpr double kPrior = 1;             // precision of the scale around 1 before anything was seen
constexpr double kLargestFall = 0.5;     // per sample
constexpr double kCaution = 0.1;         // share of the Newton step that a growth takes
constexpr double kLargestGrowth = 0.01;  // per sample

}  // namespace

double DeviationScale::observe(double slope, double room) {
  sum_ = kKeep * sum_ + slope;
  // The empirical Fisher information: that of the prediction is next to 0 at a confident error.
  squares_ = kKeep * squares_ + slope * slope;
  // What is within one standard deviation of 0 is chance.
  const double beyond = std::fabs(sum_) - std::sqrt(squares_);
  if (!(beyond > 0)) return 0;
  const double newton = beyond / (squares_ + kPrior);
  const double change = sum_ < 0 ? -std::min(kLargestFall, newton)
                                 : room * std::min(kLargestGrowth, kCaution * newton);
  // The slopes so far, as they would be at the new scale.
  sum_ -= change * squares_;
  return change;
}

void DeviationScale::visitState(StateVisitor& visitor) {
  visitor.number("scale_sum", sum_, Domain::kReal);
  visitor.number("scale_squares", squares_, Domain::kNonNegative);
}

}  // namespace loko
