#include "filter/adaptive_gain.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace loko {
namespace {

// None of these is an option: docs/filter.md has what other values cost on the streams.
constexpr double kHorizon = 20;             // samples that the statistics remember
constexpr double kNoiseBand = 1;            // |t| up to which a correlation is chance
constexpr double kStrongest = 3;            // |t| beyond the band that counts
constexpr double kRate = 0.06;              // of log p per sample and unit of t
constexpr double kCalmingShare = 0.5;       // of that rate, downwards
constexpr double kLeastFit = 0.5;           // of energy over determined directions
constexpr double kShrinkRate = 0.1;         // of log p per sample and unit of log fit below it
constexpr double kLeastRelativeMean = 0.1;  // of p0: no shrinking below, so that growth is not far

}  // namespace

void AdaptiveGain::start(int outputs) {
  outputs_ = outputs;
  persistent_.assign(static_cast<std::size_t>(outputs) * static_cast<std::size_t>(outputs), 0);
}

/// The t-statistic of pi^T B e, with the B from before this sample.
double AdaptiveGain::whiteness(const std::vector<double>& pi,
                               const std::vector<double>& innovation) {
  const std::size_t m = static_cast<std::size_t>(outputs_);
  const double share = std::max(1 / kHorizon, 1 / (1 + samples_));
  double product = 0;
  for (std::size_t i = 0; i < m; ++i) {
    double* row = persistent_.data() + i * m;
    for (std::size_t j = 0; j < m; ++j) {
      const double now = pi[i] * innovation[j];
      product += now * row[j];
      row[j] += share * (now - row[j]);
    }
  }
  const double keep = 1 - 1 / kHorizon;
  product_ = keep * product_ + product;
  productSquares_ = keep * keep * productSquares_ + product * product;
  // The first samples are too few for a statistic: it fades in.
  const double trust = std::min(1.0, samples_ / 10);
  ++samples_;
  return productSquares_ > 0 ? trust * product_ / std::sqrt(productSquares_) : 0;
}

CovarianceChange AdaptiveGain::observe(const std::vector<double>& pi,
                                       const std::vector<double>& innovation,
                                       const Evidence& evidence, double relativeMean) {
  const double t = whiteness(pi, innovation);
  const double beyond = std::min(std::max(0.0, std::fabs(t) - kNoiseBand), kStrongest);
  double rate = kRate * (t > 0 ? beyond : -kCalmingShare * beyond);

  const double keep = 1 - 1 / kHorizon;
  energy_ = keep * energy_ + evidence.energy;
  determined_ = keep * determined_ + evidence.determined;
  constexpr double kNothing = 1e-9;  // where both are 0 the fit is 1
  const double fit = std::log((energy_ + kNothing) / (determined_ + kNothing) / kLeastFit);
  rate = fit < 0 ? std::min(rate, 0.0) + kShrinkRate * fit : rate * std::min(1.0, 2 * fit);

  if (rate > 0) return {1, std::expm1(rate)};
  return {relativeMean < kLeastRelativeMean ? 1 : std::exp(rate), 0};
}

void AdaptiveGain::visitState(StateVisitor& visitor) {
  visitor.number("gain_samples", samples_);
  visitor.number("gain_product", product_);
  visitor.number("gain_product_squares", productSquares_);
  visitor.number("gain_energy", energy_);
  visitor.number("gain_determined", determined_);
  visitor.matrix("gain_persistent", persistent_, outputs_);
}

}  // namespace loko
