#include "filter/adaptive_gain.h"

#include <algorithm>
#include <cmath>

namespace loko {
namespace {

// None of these is an option: docs/decisions/adaptive-gain.md has what other values cost on the streams.
constexpr double kHorizon = 20;   // samples that the statistic remembers
constexpr double kNoiseBand = 1;  // |t| up to which a slope is chance
constexpr double kStrongest = 3;  // |t| beyond the band that counts
constexpr double kUp = 0.06;      // of c per sample and unit of t
constexpr double kDown = 0.03;    // the same where larger steps would have been worse
constexpr double kLeast = -3;     // of c: not lower, so that growth is not far
constexpr double kMost = 6;       // of c
constexpr double kFirst = 10;     // samples until the statistic counts in full

}  // namespace

double AdaptiveGain::observe(double slope) {
  const double keep = 1 - 1 / kHorizon;
  sum_ = keep * sum_ + slope;
  squares_ = keep * keep * squares_ + slope * slope;
  const double trust = std::min(1.0, samples_ / kFirst);
  ++samples_;
  // Slopes whose squares underflow are of a model that no step changes.
  const double t = squares_ > 0 ? trust * sum_ / std::sqrt(squares_) : 0;
  const double beyond = std::clamp(std::fabs(t) - kNoiseBand, 0.0, kStrongest);
  const double next = std::clamp(log_ + (t > 0 ? kUp : -kDown) * beyond, kLeast, kMost);
  const double factor = std::exp(next - log_);
  log_ = next;
  return factor;
}

double AdaptiveGain::total() const {
  return std::exp(log_);
}

void AdaptiveGain::visitState(StateVisitor& visitor) {
  visitor.number("gain_samples", samples_);
  visitor.number("gain_sum", sum_);
  visitor.number("gain_squares", squares_);
  visitor.number("gain_log", log_);
}

}  // namespace loko
