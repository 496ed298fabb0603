#include "filter/loko_optimizer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "core/status.h"
#include "filter/dense.h"
#include "filter/prediction.h"

namespace loko {
namespace {

// Beyond this a float32 backend would overflow soon; no sane step comes near.
constexpr double kLargest = 1e30;

/// Beyond the range of float32 an infinity, which the guards of a step know; a plain cast is
/// undefined there.
double saturated(double value) {
  constexpr double kMost = std::numeric_limits<float>::max();
  return std::fabs(value) > kMost ? std::copysign(std::numeric_limits<double>::infinity(), value)
                                  : value;
}

/// Backends may hold p in float32; the filter's own copy of an initial value is the same number.
double asStored(double value) {
  return static_cast<double>(static_cast<float>(saturated(value)));
}

bool isSane(const double* values, std::size_t count) {
  return std::all_of(values, values + count, [](double v) { return std::fabs(v) <= kLargest; });
}

bool isSane(const std::vector<double>& values) {
  return isSane(values.data(), values.size());
}

double defaultTrustRegion(const LokoOptions& options) {
  if (options.observation == Observation::kRegression || options.update == Update::kIterated) {
    return std::numeric_limits<double>::infinity();
  }
  return options.observation == Observation::kCategorical ? 2 : 1;
}

/// The ranges that are not the head, neighbours joined.
std::vector<ParameterRange> belowHead(const std::vector<ParameterRange>& ranges) {
  std::vector<ParameterRange> below;
  for (const ParameterRange& range : ranges) {
    if (range.group == ParameterGroup::kHead) continue;
    if (!below.empty() && below.back().end == range.begin) {
      below.back().end = range.end;
    } else {
      below.push_back(range);
    }
  }
  return below;
}

double initialVariance(const InitialCovariance& p0, ParameterGroup group) {
  switch (group) {
    case ParameterGroup::kLoraA:
      return p0.loraA;
    case ParameterGroup::kLoraB:
      return p0.loraB;
    case ParameterGroup::kHead:
    case ParameterGroup::kBias:
      return p0.head;
  }
  return p0.head;
}

}  // namespace

LokoOptimizer::LokoOptimizer(Backend& backend, std::int64_t parameters, int outputs,
                             const LokoOptions& options, const std::vector<ParameterRange>& ranges)
    : options_(options), ranges_(ranges), belowHead_(belowHead(ranges)) {
  validate(options_, outputs, parameters, ranges);
  const bool categorical = options_.observation == Observation::kCategorical;
  noiseMode_ = categorical ? NoiseMode::kModel : options_.noise.value_or(NoiseMode::kEma);
  beta_ = options_.beta.value_or(0.95);
  r0_ = options_.r0.value_or(0.1);
  trustRegion_ = options_.trustRegion.value_or(defaultTrustRegion(options_));
  if (estimatesNoise()) state_.noise.start(outputs, r0_);
  lowRank_ = LowRank(options_.covariance == Covariance::kLowRank ? options_.covarianceRank : 0,
                     options_.gain == Gain::kAdaptive);

  state_.p = backend.makeState(parameters, 0);
  if (lowRank_.factorRows() > 0) {
    state_.factor = backend.makeState(lowRank_.factorRows() * parameters, 0);
  }
  const InitialCovariance& p0 = options_.p0;
  if (p0.kind == InitialCovariance::Kind::kUniform) {
    start(backend, asStored(p0.value), asStored(p0.value));
    startHead(backend, state_.largest);
  } else if (p0.kind == InitialCovariance::Kind::kPerGroup) {
    double smallest = kLargest, largest = 0;
    for (const ParameterRange& range : ranges) {
      const double value = asStored(initialVariance(p0, range.group));
      smallest = std::min(smallest, value);
      largest = std::max(largest, value);
    }
    start(backend, smallest, largest);
    state_.summary.mean = 0;
    for (const ParameterRange& range : ranges) {
      const double value = predicted(asStored(initialVariance(p0, range.group)));
      backend.fill(*state_.p, range.begin, range.end, value);
      const auto share = static_cast<double>(range.end - range.begin);
      state_.summary.mean += value * share / static_cast<double>(parameters);
    }
    startHead(backend, predicted(asStored(p0.head)));
  }
}

void LokoOptimizer::start(Backend& backend, double smallest, double largest) {
  state_.started = true;
  state_.p0 = largest;
  state_.p0Smallest = smallest;
  state_.largest = predicted(largest);
  state_.summary = {state_.largest, predicted(smallest), state_.largest};
  backend.fill(*state_.p, 0, state_.p->size(), state_.largest);
}

/// The row h/p of the factor, from theta as it is now and the head's p. No row where p is 0 or so small that
/// float32 would not hold it: such a head does not move.
void LokoOptimizer::startHead(Backend& backend, double p) {
  if (options_.gain != Gain::kAdaptive || !(p > 0)) return;
  const std::int64_t row = state_.p->size() * (lowRank_.factorRows() - 1);
  bool trained = false;
  for (const ParameterRange& range : ranges_) {
    if (range.group != ParameterGroup::kHead) continue;
    trained = true;
    std::vector<float> head(static_cast<std::size_t>(range.end - range.begin));
    backend.read(Space::kTheta, range.begin, head.data(), range.end - range.begin);
    std::vector<double> scaled(head.begin(), head.end());
    for (double& value : scaled) value /= p;
    if (!std::all_of(scaled.begin(), scaled.end(),
                     [](double value) { return std::fabs(value) <= kLargest; })) {
      return;
    }
    backend.writeState(*state_.factor, row + range.begin, row + range.end, scaled.data());
  }
  if (trained) state_.head.start();
}

bool LokoOptimizer::hasProcessNoise() const {
  return options_.gamma != 1 || options_.q > 0 || options_.qRatio > 0;
}

bool LokoOptimizer::estimatesNoise() const {
  return noiseMode_ == NoiseMode::kEma || noiseMode_ == NoiseMode::kResidual;
}

double LokoOptimizer::processNoise() const {
  return options_.q + options_.qRatio * state_.p0;
}

double LokoOptimizer::largestAllowed() const {
  return options_.pMax.value_or((options_.gain == Gain::kAdaptive ? 100 : 10) * state_.p0);
}

double LokoOptimizer::predicted(double p) const {
  if (!hasProcessNoise() && options_.gain != Gain::kAdaptive) return p;
  return asStored(std::min(largestAllowed(), options_.gamma * options_.gamma * p + processNoise()));
}

void LokoOptimizer::check(const Objective& objective, const Targets& targets) const {
  checkTargets(targets, objective.batch(), objective.outputs());
  const bool regression = options_.observation == Observation::kRegression;
  if (regression == targets.values.empty()) {
    throw Error(ErrorCode::kShapeMismatch,
                regression ? "Observation \"regression\" needs target values [B, m]; got labels."
                           : "This observation needs labels; got target values. Use observation "
                             "\"regression\" for them.");
  }
}

/// e [B, m], and pi where there is one.
void LokoOptimizer::observe(const std::vector<double>& logits, const Targets& targets, int samples,
                            std::vector<double>& innovation) {
  const std::size_t m = logits.size() / static_cast<std::size_t>(samples);
  innovation.resize(logits.size());
  switch (options_.observation) {
    case Observation::kSoftmax:
    case Observation::kCategorical:
      pi_.resize(logits.size());
      for (std::size_t b = 0; b * m < logits.size(); ++b) {
        softmax(logits.data() + b * m, static_cast<int>(m), pi_.data() + b * m);
        softmaxInnovation(pi_.data() + b * m, static_cast<int>(m), targets.labels[b],
                          innovation.data() + b * m);
      }
      return;
    case Observation::kLogits:
      for (std::size_t c = 0; c < logits.size(); ++c) innovation[c] = -logits[c];
      for (std::size_t b = 0; b * m < logits.size(); ++b) {
        innovation[b * m + static_cast<std::size_t>(targets.labels[b])] += 1;
      }
      return;
    case Observation::kRegression:
      for (std::size_t c = 0; c < logits.size(); ++c) innovation[c] = targets.values[c] - logits[c];
      return;
  }
}

/// tau * trace(C)/|H|_F^2 and its analogues, with gram_ = G G^T.
double LokoOptimizer::automaticVariance() const {
  const std::size_t k = static_cast<std::size_t>(basis_.rows);
  double scale = 1, numerator = basis_.rows;
  if (options_.observation == Observation::kSoftmax) {
    // Relative to the largest eigenvalue, whose square may underflow.
    scale = *std::max_element(basis_.scale.begin(), basis_.scale.end());
    numerator = basis_.samples * chooser_.trace() / scale;
  }
  double squares = 0;
  for (std::size_t i = 0; i < k; ++i) {
    const bool scaled = options_.observation == Observation::kSoftmax;
    const double factor = scaled ? basis_.scale[i] / scale : 1;
    squares += factor * factor * gram_[i * (k + 1)];
  }
  const bool plastic =
      options_.observation == Observation::kCategorical && options_.update == Update::kLinear;
  const double tau = options_.p0.tau.value_or(plastic ? 3.0 : 1.0);
  return asStored(tau * numerator / (scale * squares));
}

StepResult LokoOptimizer::step(Objective& objective, const Targets& targets) {
  check(objective, targets);
  StepResult result;
  result.p = state_.summary;
  objective.forward(result.logits);
  if (allFinite(result.logits)) {
    reportPrediction(targets, objective.batch(), objective.outputs(), result);
    result.skipped = learn(objective, targets, result);
  } else {
    result.loss = std::numeric_limits<double>::quiet_NaN();
    result.skipped = SkipReason::kNonFiniteLogits;
  }
  ++(result.skipped == SkipReason::kNone ? state_.steps : state_.skippedSteps);
  result.p0 = state_.p0;
  result.gain = state_.gain.total();
  return result;
}

void LokoOptimizer::control(const StepControl&) {
  throw Error(ErrorCode::kUnsupported,
              "LoKO has no learning rate and no gradient; schedules, clipping and accumulation are "
              "for first-order optimizers.");
}

void LokoOptimizer::visitState(StateVisitor& visitor) {
  visitor.count("steps", state_.steps);
  visitor.count("skipped_steps", state_.skippedSteps);
  visitor.count("jittered_steps", state_.jitteredSteps);
  visitor.count("floored", state_.floored);
  visitor.flag("started", state_.started);
  visitor.number("p0", state_.p0, Domain::kNonNegative);
  visitor.number("p0_smallest", state_.p0Smallest, Domain::kNonNegative);
  visitor.number("largest", state_.largest, Domain::kNonNegative);
  visitor.number("p_mean", state_.summary.mean, Domain::kNonNegative);
  visitor.number("p_min", state_.summary.min, Domain::kNonNegative);
  visitor.number("p_max", state_.summary.max, Domain::kNonNegative);
  if (options_.gain == Gain::kAdaptive) {
    state_.gain.visitState(visitor);
    state_.scale.visitState(visitor);
    state_.head.visitState(visitor);
  }
  if (estimatesNoise()) visitor.matrix("R", state_.noise.values(), state_.noise.outputs());
  visitor.array("p", *state_.p, Domain::kNonNegative);
  if (state_.factor != nullptr) visitor.array("factor", *state_.factor, Domain::kReal);
}

SkipReason LokoOptimizer::learn(Objective& objective, const Targets& targets, StepResult& result) {
  if (result.loss < options_.minLoss) {
    growth_ = 1;  // the adaptive gain has seen nothing
    if (state_.started) predictNext(objective.backend());
    return SkipReason::kNone;
  }
  observe(result.logits, targets, objective.batch(), innovation_);
  labels_.assign(targets.labels.begin(), targets.labels.end());
  if (options_.observation == Observation::kLogits) {
    result.loss = 0;
    for (const double e : innovation_)
      result.loss += e * e / static_cast<double>(innovation_.size());
  }
  chooser_.choose(options_, pi_, innovation_, objective.batch(), basis_);
  result.rows = basis_.rowsPerSample();
  objective.jacobian(basis_.vectors, basis_.rowsPerSample(), gramRequest());
  if (!allFinite(gram_)) return SkipReason::kNonFiniteJacobian;
  if (!lowRank_.reduce(basis_.rows, state_.head.variance(), gram_, directions_)) {
    return SkipReason::kFactorisationFailed;
  }
  const std::size_t k = static_cast<std::size_t>(basis_.rows);
  bool zero = true;
  for (std::size_t i = 0; i < k; ++i) zero = zero && gram_[i * (k + 1)] == 0;
  if (zero) return SkipReason::kZeroJacobian;

  const bool starting = !state_.started;
  if (starting) {
    state_.p0 = state_.p0Smallest = automaticVariance();
    state_.largest = predicted(state_.p0);
    for (double& value : gram_) value *= state_.largest;
  }
  // The automatic p0 is a candidate only, also where memory runs out.
  const auto dropCandidate = [&] {
    if (starting) state_.p0 = state_.p0Smallest = state_.largest = 0;
  };
  try {
    const SkipReason reason = solveSafely(result);
    if (reason != SkipReason::kNone) {
      dropCandidate();
      return reason;
    }
    // From the update on nothing may allocate: a step happens whole or not at all.
    if (noiseMode_ == NoiseMode::kResidual) {
      posterior_.reserve(innovation_.size());
      residual_.reserve(innovation_.size());
      state_.noise.reserve(basis_.rows);
    }
    if (starting) startHead(objective.backend(), state_.largest);
  } catch (...) {
    dropCandidate();
    throw;
  }
  if (starting) start(objective.backend(), state_.p0, state_.p0);
  apply(objective.backend(), result);
  if (noiseMode_ == NoiseMode::kResidual) updateNoiseFromResidual(objective, targets);
  predictNext(objective.backend());
  followHead(objective.backend());
  return SkipReason::kNone;
}

/// Room for the Gram matrix of a step, and what it is of.
GramRequest LokoOptimizer::gramRequest() {
  const std::size_t width = static_cast<std::size_t>(basis_.rows + lowRank_.factorRows());
  gram_.resize(width * width);
  // Before the first step the automatic p0 is open and the factor is 0.
  return {gram_.data(), state_.started ? state_.p.get() : nullptr, state_.factor.get(),
          lowRank_.factorRows()};
}

/// The prior variance of the next step.
void LokoOptimizer::predictNext(Backend& backend) {
  const double factor = options_.gamma * options_.gamma * growth_, added = processNoise();
  if (factor == 1 && added == 0) return;
  const double cap = largestAllowed();
  if (options_.gain == Gain::kAdaptive) {
    backend.transition(*state_.p, 0, state_.p->size(), {factor});
    // s, d and h are kept over p: where a cap takes from p, they have to stay what they are.
    if (factor * state_.largest > cap) {
      const int rows = lowRank_.factorRows();
      backend.capVariance(*state_.p, cap, *state_.factor, rows - lowRank_.dualRows(), rows);
    }
  } else {
    backend.transition(*state_.p, 0, state_.p->size(), {factor, saturated(added), saturated(cap)});
  }
  state_.largest = asStored(std::min(cap, factor * state_.largest + added));
}

/// Sigma <- D Sigma D, D = sqrt(growth) below the head and 1 in it. s, theta - theta0 and h stay what they are: of
/// their rows, which are over p, h has no entry there.
void LokoOptimizer::followHead(Backend& backend) {
  const double cap = largestAllowed();
  const double growth = state_.head.growthBelow(cap / state_.largest);
  if (growth == 1) return;
  const int rows = lowRank_.factorRows(), rank = rows - lowRank_.dualRows();
  for (const ParameterRange& range : belowHead_) {
    backend.transition(*state_.p, range.begin, range.end, {growth, 0, saturated(cap)});
    for (int row = 0; row < rows - 1; ++row) {
      const std::int64_t offset = row * state_.p->size();
      backend.transition(*state_.factor, offset + range.begin, offset + range.end,
                         {1 / (row < rank ? std::sqrt(growth) : growth)});
    }
  }
  state_.largest = asStored(std::min(cap, state_.largest * std::max(1.0, growth)));
}

SkipReason LokoOptimizer::solveSafely(StepResult& result) {
  if (!(state_.largest <= kLargest) || !allFinite(gram_)) return SkipReason::kNonFiniteGain;
  if (!solve(result)) return SkipReason::kFactorisationFailed;
  if (!isSane(gain_.gain) || !isSane(gain_.root)) return SkipReason::kNonFiniteGain;
  if (!holdInTrustRegion(result)) return SkipReason::kNonFiniteGain;
  return planUpdate(result.loss) ? SkipReason::kNone : SkipReason::kNonFiniteGain;
}

/// Everything that the backend's update takes. The gain of the next step is a candidate until apply().
bool LokoOptimizer::planUpdate(double loss) {
  nextGain_ = state_.gain;
  nextScale_ = state_.scale;
  growth_ = 1;
  stretch_ = 0;
  if (options_.gain == Gain::kAdaptive) {
    // e^T dz along both: e is in the span of U.
    growth_ = nextGain_.observe(dot(projectedInnovation_, directions_.sensitivity), loss);
    stretch_ =
        nextScale_.observe(dot(projectedInnovation_, directions_.deviation), nextGain_.room());
  }
  update_ = {};
  update_.rule = options_.covariance == Covariance::kFdekf ? CovarianceRule::kFullyDecoupled
                                                           : CovarianceRule::kVariationalDecoupled;
  update_.floor = options_.pMinRatio * state_.p0Smallest;
  update_.factor = state_.factor.get();
  if (!lowRank_.plan({gain_.gain, gain_.root, response_, growth_, AdaptiveGain::kMemory, stretch_},
                     update_)) {
    return false;
  }
  const auto width = static_cast<std::size_t>(update_.width());
  return isSane(update_.gain, width) &&
         isSane(update_.carry, static_cast<std::size_t>(update_.factorRows) * width);
}

bool LokoOptimizer::solve(StepResult& result) {
  project(basis_, innovation_, projectedInnovation_);
  if (options_.observation == Observation::kCategorical) {
    if (!solveCategorical(result)) return false;
  } else {
    scaleGram(basis_, gram_, scaledGram_);
    const std::size_t k = static_cast<std::size_t>(basis_.rows);
    switch (noiseMode_) {
      case NoiseMode::kEma:
        state_.noise.propose(beta_, basis_, innovation_, scaledGram_);
        state_.noise.projectProposal(basis_, projectedNoise_);
        result.traceR = state_.noise.proposalTrace();
        break;
      case NoiseMode::kResidual:
        state_.noise.projectCurrent(basis_, projectedNoise_);
        result.traceR = state_.noise.trace();
        break;
      case NoiseMode::kModel:
      case NoiseMode::kFixed: {
        const bool fixed = noiseMode_ == NoiseMode::kFixed;
        projectedNoise_.assign(k * k, 0);
        for (std::size_t i = 0; i < k; ++i) {
          projectedNoise_[i * (k + 1)] = fixed ? r0_ : basis_.scale[i];
        }
        result.traceR = fixed ? r0_ * basis_.outputs : chooser_.trace();
        break;
      }
    }
    if (!solveGain(basis_, scaledGram_, projectedNoise_, projectedInnovation_, options_.covariance,
                   gain_)) {
      return false;
    }
  }
  result.nis = gain_.nis;
  result.jitter = gain_.jitter;
  result.pivotRatio = gain_.pivotRatio;
  return true;
}

bool LokoOptimizer::solveCategorical(StepResult& result) {
  result.traceR = chooser_.trace();
  // Also for an iterated update: what is reported of S is of the prediction.
  if (!solveCategoricalGain(basis_, gram_, projectedInnovation_, options_.covariance, gain_)) {
    return false;
  }
  return options_.update == Update::kLinear ||
         solvePosteriorMode({result.logits, labels_}, basis_, gram_, options_.covariance,
                            options_.gain == Gain::kAdaptive ? &directions_.sensitivity : nullptr,
                            gain_, response_);
}

/// Scales the gain; false when the change of some parameter could be out of range.
bool LokoOptimizer::holdInTrustRegion(StepResult& result) {
  const int k = basis_.rows;
  std::vector<double> moved(static_cast<std::size_t>(k));  // M a: the linearised change in k-space
  multiplySymmetric(gram_, k, gain_.gain.data(), moved.data());
  // Rows of U are orthogonal to the ones vector for softmax and categorical: U M a is centred.
  const std::size_t m = static_cast<std::size_t>(basis_.outputs);
  const std::size_t samples = static_cast<std::size_t>(basis_.samples);
  change_.assign(samples * m, 0);
  double energy = 0;  // a^T M a = sum_j delta_j^2 / p_j
  for (std::size_t i = 0; i < moved.size(); ++i) {
    energy += gain_.gain[i] * moved[i];
    double* change = change_.data() + i % samples * m;
    for (std::size_t c = 0; c < m; ++c) change[c] += basis_.vectors[i * m + c] * moved[i];
  }
  double largest = 0;
  for (const double value : change_) largest = std::max(largest, std::fabs(value));
  if (!allFinite(change_) || !std::isfinite(energy)) return false;
  if (largest > trustRegion_) {
    result.trustScale = trustRegion_ / largest;
    for (double& value : gain_.gain) value *= result.trustScale;
    for (double& value : response_) value *= result.trustScale;
    energy *= result.trustScale * result.trustScale;
  }
  // Cauchy-Schwarz: |delta_j| <= sqrt(p_j a^T M a), without a pass over the parameters.
  return std::sqrt(state_.largest * std::max(energy, 0.0)) <= kLargest;
}

void LokoOptimizer::apply(Backend& backend, StepResult& result) {
  const KalmanUpdateResult done = backend.kalmanUpdate(update_, *state_.p);
  state_.gain = nextGain_;
  state_.scale = nextScale_;
  // Not at the step that chose p0, where the head has just got its direction.
  if (lowRank_.headVariance() > 0) {
    state_.head.observe(lowRank_.headStep(), lowRank_.headVariance());
  }
  result.stretch = stretch_;
  if (noiseMode_ == NoiseMode::kEma) state_.noise.commit();
  state_.summary = {done.sum / static_cast<double>(state_.p->size()), done.min, done.max};
  state_.largest = done.max;
  state_.floored += done.floored;
  if (gain_.jitter > 0) ++state_.jitteredSteps;
  result.floored = done.floored;
  result.p = state_.summary;
}

/// R <- beta R + (1 - beta)(e+ e+^T + H Sigma+ H^T): H and its basis are those of the step, e+ and
/// p+ those after it. Unbiased, and positive semidefinite by construction. A posterior forward that
/// is not finite leaves R as it was.
void LokoOptimizer::updateNoiseFromResidual(Objective& objective, const Targets& targets) {
  objective.gram(basis_.rows, gramRequest());
  objective.forward(posterior_);
  if (!allFinite(posterior_) || !allFinite(gram_)) return;
  if (!lowRank_.reduce(basis_.rows, state_.head.variance(), gram_, directions_)) return;
  observe(posterior_, targets, objective.batch(), residual_);
  scaleGram(basis_, gram_, scaledGram_);
  state_.noise.propose(beta_, basis_, residual_, scaledGram_);
  state_.noise.commit();
}

}  // namespace loko
