#include "filter/loko_options.h"

#include <cmath>
#include <cstdio>
#include <limits>
#include <string>

#include "core/status.h"

namespace loko {
namespace {

constexpr int kMostCovarianceRank = 256;

[[noreturn]] void fail(const std::string& message) {
  throw Error(ErrorCode::kOption, message);
}

void require(bool ok, const char* name, double value, const char* expected) {
  if (ok) return;
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  fail(std::string("Option ") + name + " must be " + expected + "; got " + text + ".");
}

void requireNonNegative(const char* name, double value) {
  require(value >= 0 && std::isfinite(value), name, value, "a finite number >= 0");
}

void requirePositive(const char* name, double value) {
  require(value > 0 && std::isfinite(value), name, value, "a finite number > 0");
}

/// A variance that float32 holds without overflow or loss of precision.
bool isStorable(double value) {
  using Limits = std::numeric_limits<float>;
  return value == 0 || (value >= Limits::min() && value <= Limits::max());
}

void requireVariance(const char* name, double value) {
  require(isStorable(value), name, value,
          "0 or a positive number in the range of float32 (1.2e-38 to 3.4e38), finite and >= 0");
}

void validateRank(const LokoOptions& options) {
  if (!options.rank) return;
  if (options.observation == Observation::kLogits ||
      options.observation == Observation::kRegression) {
    fail(
        "Option observationRank applies to the softmax and categorical observations; logits and "
        "regression always propagate one row per output. Leave it out.");
  }
  if (options.rank->kind == RankOption::Kind::kAuto) {
    const double epsilon = options.rank->epsilon;
    require(epsilon >= 0 && epsilon < 1, "observationRank.epsilon", epsilon, "in [0, 1)");
  }
  if (options.rank->kind == RankOption::Kind::kFixed) {
    require(options.rank->rows >= 1, "observationRank", options.rank->rows, "at least 1");
  }
}

void validateNoise(const LokoOptions& options) {
  const bool categorical = options.observation == Observation::kCategorical;
  if (categorical && options.noise && *options.noise != NoiseMode::kModel) {
    fail(
        "The categorical observation brings its own noise covariance; leave option noise out or "
        "set it to \"model\".");
  }
  const NoiseMode mode = categorical ? NoiseMode::kModel : options.noise.value_or(NoiseMode::kEma);
  if (mode == NoiseMode::kModel && !categorical && options.observation != Observation::kSoftmax) {
    fail(
        "Option noise \"model\" needs a softmax or categorical observation: logits and regression "
        "imply no covariance. Use \"ema\", \"residual\" or \"fixed\".");
  }
  if (options.beta && (mode == NoiseMode::kModel || mode == NoiseMode::kFixed)) {
    fail(
        "Option beta is the forgetting factor of an estimated noise covariance and has no meaning "
        "where it is given by the model or fixed. Leave it out.");
  }
  if (options.r0 && mode == NoiseMode::kModel) {
    fail(
        "Option r0 has no meaning where the noise covariance is given by the model. Leave it out.");
  }
  if (options.beta)
    require(*options.beta >= 0 && *options.beta < 1, "beta", *options.beta, "in [0, 1)");
  if (options.r0) requirePositive("r0", *options.r0);
}

void refuseProcessNoise(const LokoOptions& options, const char* of, const char* remedy) {
  if (options.q > 0 || options.qRatio > 0 || options.gamma != 1) {
    fail(std::string("Process noise and gamma are not for ") + of + ": " + remedy +
         ", or leave them out.");
  }
}

void validateUpdate(const LokoOptions& options) {
  if (options.update == Update::kIterated && options.observation != Observation::kCategorical) {
    fail(
        "Option update \"iterated\" needs the categorical observation: it looks for the mode of a "
        "categorical likelihood. Leave it out, or set observation to \"categorical\".");
  }
  // The derivative that it follows is of a covariance that nothing else changes.
  if (options.gain == Gain::kAdaptive) {
    refuseProcessNoise(options, "an adaptive gain", "set gain to \"fixed\"");
  }
  if (options.gain == Gain::kAdaptive && options.update != Update::kIterated) {
    fail(
        "Option gain \"adaptive\" needs the categorical observation with update \"iterated\", "
        "whose "
        "likelihood it follows. Leave it out, or set both.");
  }
}

void validateCovariance(const LokoOptions& options) {
  if (options.covariance != Covariance::kLowRank) return;
  require(options.covarianceRank >= 1 && options.covarianceRank <= kMostCovarianceRank,
          "covarianceRank", options.covarianceRank, "from 1 to 256");
  refuseProcessNoise(options, "a low-rank covariance", "set covariance to \"fdekf\" or \"vdekf\"");
}

void validateInitialCovariance(const InitialCovariance& p0, std::int64_t parameters,
                               const std::vector<ParameterRange>& ranges) {
  using Kind = InitialCovariance::Kind;
  if (p0.kind == Kind::kAuto && p0.tau) requirePositive("p0.tau", *p0.tau);
  if (p0.kind == Kind::kUniform) requireVariance("p0", p0.value);
  if (p0.kind != Kind::kPerGroup) return;
  requireVariance("p0.A", p0.loraA);
  requireVariance("p0.B", p0.loraB);
  requireVariance("p0.head", p0.head);
  std::int64_t covered = 0;
  for (const ParameterRange& range : ranges) {
    if (range.begin != covered || range.end < range.begin) break;
    covered = range.end;
  }
  if (covered != parameters) {
    fail("Option p0 per group needs the group of all " + std::to_string(parameters) +
         " parameters in ascending, adjacent ranges; they stop at " + std::to_string(covered) +
         ".");
  }
}

}  // namespace

LokoOptions LokoOptions::paper() {
  LokoOptions options;
  options.rank.emplace().kind = RankOption::Kind::kExact;
  options.noise = NoiseMode::kEma;
  options.trustRegion = std::numeric_limits<double>::infinity();
  return options;
}

void validate(const LokoOptions& options, int outputs, std::int64_t parameters,
              const std::vector<ParameterRange>& ranges) {
  const bool probabilities = options.observation == Observation::kSoftmax ||
                             options.observation == Observation::kCategorical;
  if (probabilities && outputs < 2) {
    fail("The softmax and categorical observations need at least 2 outputs; the model has " +
         std::to_string(outputs) + ". Use observation \"regression\".");
  }
  if (!probabilities && options.minLoss > 0) {
    fail(
        "Option minLoss is a cross entropy in nats, for the softmax and categorical observations. "
        "Leave it out.");
  }
  requireNonNegative("minLoss", options.minLoss);
  validateRank(options);
  validateNoise(options);
  validateUpdate(options);
  validateCovariance(options);
  require(options.gamma > 0 && options.gamma * options.gamma > 0 &&
              isStorable(options.gamma * options.gamma),
          "gamma", options.gamma, "a finite number > 0 whose square is in the range of float32");
  requireVariance("q", options.q);
  requireNonNegative("qRatio", options.qRatio);
  if (options.pMax) {
    const double pMax = *options.pMax;
    require(pMax > 0 && (std::isinf(pMax) || isStorable(pMax)), "pMax", pMax,
            "a number > 0 in the range of float32 (1.2e-38 to 3.4e38), or Infinity for no cap");
  }
  require(options.pMinRatio >= 0 && options.pMinRatio < 1, "pMinRatio", options.pMinRatio,
          "in [0, 1)");
  if (options.trustRegion) {
    require(*options.trustRegion > 0, "trustRegion", *options.trustRegion,
            "a number > 0 (Infinity turns it off)");
  }
  validateInitialCovariance(options.p0, parameters, ranges);
}

}  // namespace loko
