#include "filter/head_scale.h"

#include <algorithm>
#include <cmath>

namespace loko {
namespace {

// None of these is an option: docs/decisions/head-scale.md has what other values cost on the streams.
// Of the factor by which the pretrained head is wrong about how sure it is.
constexpr double kVariance = 0.1;
// Of what was learned of it, per step.
constexpr double kMemory = 0.99;
// That the variance below the head follows; the largest is its inverse.
constexpr double kLeastScale = 0.3;
// Of the log of the scale, before the variance follows.
constexpr double kSmallestStep = 0.05;

}  // namespace

void HeadScale::start() {
  variance_ = kVariance;
}

void HeadScale::observe(double step, double variance) {
  variance_ = std::min(kVariance, variance / kMemory);
  scale_ += step;
}

double HeadScale::growthBelow(double most) {
  if (variance_ == 0) return 1;
  const double scale = std::clamp(scale_, kLeastScale, 1 / kLeastScale);
  // A covariance that is above its cap already is no reason to make it smaller.
  const double growth = std::min(std::max(1.0, most), std::pow(followed_ / scale, 2));
  if (!(std::fabs(std::log(growth)) >= 2 * kSmallestStep)) return 1;
  followed_ /= std::sqrt(growth);
  return growth;
}

void HeadScale::visitState(StateVisitor& visitor) {
  visitor.number("head_variance", variance_, Domain::kNonNegative);
  visitor.number("head_scale", scale_, Domain::kReal);
  visitor.number("head_scale_followed", followed_, Domain::kPositive);
}

}  // namespace loko
