#include "filter/adaptive_gain.h"

#include <algorithm>
#include <cmath>

namespace loko {
namespace {

// None of these is an option: docs/decisions/adaptive-gain.md has what other values cost on the streams.
constexpr double kHorizon = 20;      // samples that the statistic remembers
constexpr double kNoiseBand = 1;     // |t| up to which a slope is chance
constexpr double kStrongest = 3;     // |t| beyond the band that counts
constexpr double kUp = 0.06;         // of c per sample and unit of t
constexpr double kDown = 0.03;       // the same where larger steps would have been worse
constexpr double kLeast = -3;        // of c: not lower, so that growth is not far
constexpr double kMost = 4.6;        // of c: e^4.6 = 100, the default cap of p
constexpr double kLittleLoss = 0.1;  // nats: at that mean loss growth is half as fast
constexpr double kFallBack = 0.01;   // of c per sample where nothing is left to gain
constexpr double kFirst = 10;        // samples until the statistic counts in full

}  // namespace

double AdaptiveGain::observe(double slope, double loss) {
  const double keep = 1 - 1 / kHorizon;
  sum_ = keep * sum_ + slope;
  squares_ = keep * keep * squares_ + slope * slope;
  loss_ += std::max(1 - keep, 1 / (1 + samples_)) * (loss - loss_);
  const double trust = std::min(1.0, samples_ / kFirst);
  ++samples_;
  // Slopes whose squares underflow are of a model that no step changes.
  const double t = squares_ > 0 ? trust * sum_ / std::sqrt(squares_) : 0;
  const double beyond = std::clamp(std::fabs(t) - kNoiseBand, 0.0, kStrongest);
  // Where all is predicted right, larger steps would still have been right a little sooner, in proportion; in
  // nats there is nothing to gain. A gain that was raised before falls back, or the first wrong label would meet it.
  const double change =
      (t > 0 ? kUp * room() : -kDown) * beyond - (log_ > 0 ? kFallBack * (1 - room()) : 0);
  const double next = std::clamp(log_ + change, kLeast, kMost);
  const double factor = std::exp(next - log_);
  log_ = next;
  return factor;
}

double AdaptiveGain::room() const {
  const double squared = loss_ * loss_;
  return squared / (squared + kLittleLoss * kLittleLoss);
}

double AdaptiveGain::total() const {
  return std::exp(log_);
}

void AdaptiveGain::visitState(StateVisitor& visitor) {
  visitor.number("gain_samples", samples_, Domain::kNonNegative);
  visitor.number("gain_loss", loss_, Domain::kReal);
  visitor.number("gain_sum", sum_, Domain::kReal);
  visitor.number("gain_squares", squares_, Domain::kNonNegative);
  visitor.number("gain_log", log_, Domain::kReal);
}

}  // namespace loko
