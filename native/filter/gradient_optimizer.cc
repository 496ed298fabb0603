#include "filter/gradient_optimizer.h"

#include <cmath>
#include <string>
#include <utility>

#include "core/status.h"
#include "filter/gradient_rules.h"
#include "filter/prediction.h"

namespace loko {

using Rule = GradientUpdate::Rule;

GradientOptions GradientOptions::defaults(Rule rule) {
  GradientOptions options;
  options.rule = rule;
  if (rule == Rule::kAdaGrad || rule == Rule::kRmsProp) options.learningRate = 1e-2;
  if (rule == Rule::kAdaGrad) options.eps = 1e-10;
  if (rule == Rule::kAdamW) options.weightDecay = 1e-2;
  return options;
}

void validate(const GradientOptions& options) {
  const auto require = [](bool ok, const char* name, double value, const char* expected) {
    if (ok) return;
    throw Error(ErrorCode::kOption, std::string("Option ") + name + " must be " + expected +
                                        "; got " + std::to_string(value) + ".");
  };
  const auto nonNegative = [&](const char* name, double value) {
    require(value >= 0 && std::isfinite(value), name, value, "a finite number >= 0");
  };
  nonNegative("lr", options.learningRate);
  nonNegative("weightDecay", options.weightDecay);
  nonNegative("eps", options.eps);
  nonNegative("momentum", options.momentum);
  nonNegative("lrDecay", options.learningRateDecay);
  nonNegative("initialAccumulatorValue", options.initialAccumulator);
  nonNegative("alpha", options.alpha);
  require(std::isfinite(options.dampening), "dampening", options.dampening, "finite");
  require(options.beta1 >= 0 && options.beta1 < 1, "betas[0]", options.beta1, "in [0, 1)");
  require(options.beta2 >= 0 && options.beta2 < 1, "betas[1]", options.beta2, "in [0, 1)");
  if (options.nesterov && (options.momentum <= 0 || options.dampening != 0)) {
    throw Error(ErrorCode::kOption, "Option nesterov needs momentum > 0 and dampening = 0.");
  }
}

GradientOptimizer::GradientOptimizer(Backend& backend, std::int64_t parameters,
                                     const GradientOptions& options)
    : options_(options) {
  validate(options_);
  const double initial = options_.rule == Rule::kAdaGrad ? options_.initialAccumulator : 0;
  for (int i = 0; i < stateArrays(update(1, options_.learningRate)); ++i) {
    state_.push_back(backend.makeState(parameters, initial));
    statePointers_.push_back(state_.back().get());
  }
}

GradientUpdate GradientOptimizer::update(std::int64_t step, double learningRate) const {
  GradientUpdate u;
  u.rule = options_.rule;
  u.step = step;
  u.learningRate = learningRate;
  u.weightDecay = options_.weightDecay;
  u.beta1 = options_.beta1;
  u.beta2 = options_.beta2;
  u.eps = options_.eps;
  u.amsgrad = options_.amsgrad;
  u.momentum = options_.momentum;
  u.dampening = options_.dampening;
  u.nesterov = options_.nesterov;
  u.learningRateDecay = options_.learningRateDecay;
  u.alpha = options_.alpha;
  u.centered = options_.centered;
  return u;
}

void GradientOptimizer::lossGradient(const Targets& targets, int batch, int outputs,
                                     const std::vector<double>& logits) {
  cotangents_.resize(logits.size());
  for (int b = 0; b < batch; ++b) {
    const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(b) * outputs;
    const double* z = logits.data() + row;
    double* v = cotangents_.data() + row;
    if (!targets.labels.empty()) {
      softmax(z, outputs, v);
      v[targets.labels[static_cast<std::size_t>(b)]] -= 1;
      for (int c = 0; c < outputs; ++c) v[c] /= batch;
    } else {
      const double scale = 2.0 / (static_cast<double>(batch) * outputs);
      for (int c = 0; c < outputs; ++c) {
        v[c] = scale * (z[c] - targets.values[static_cast<std::size_t>(row + c)]);
      }
    }
  }
}

void GradientOptimizer::control(const StepControl& control) {
  control_ = control;
}

StepResult GradientOptimizer::step(Objective& objective, const Targets& targets) {
  const StepControl control = std::exchange(control_, {});
  if (control.begin) forgetWaiting();
  checkTargets(targets, objective.batch(), objective.outputs());
  StepResult result;
  result.rows = 1;
  result.skipped = differentiate(objective, targets, control.weight, result);
  if (!control.apply) {
    if (result.skipped != SkipReason::kNone) {
      waitingReason_ = result.skipped;
    } else {
      addWaiting(objective.backend(), objective.parameters());
    }
    return result;
  }
  if (result.skipped == SkipReason::kNone)
    result.skipped = finishGradient(objective, control, result);
  forgetWaiting();
  if (result.skipped != SkipReason::kNone) {
    ++skippedSteps_;
    return result;
  }
  const double rate = control.learningRate.value_or(options_.learningRate);
  objective.backend().gradientUpdate(update(steps_ + 1, rate), statePointers_);
  ++steps_;
  return result;
}

void GradientOptimizer::forgetWaiting() {
  waiting_.clear();
  waitingReason_ = SkipReason::kNone;
}

/// Predicts the batch and leaves its weighted gradient in Jacobian row 0.
SkipReason GradientOptimizer::differentiate(Objective& objective, const Targets& targets,
                                            double weight, StepResult& result) {
  const int batch = objective.batch(), outputs = objective.outputs();
  objective.forward(result.logits);
  if (!allFinite(result.logits)) {
    result.loss = std::nan("");
    return SkipReason::kNonFiniteLogits;
  }
  reportPrediction(targets, batch, outputs, result);
  lossGradient(targets, batch, outputs, result.logits);
  for (double& value : cotangents_) value *= weight;
  objective.gradient(cotangents_);
  return objective.backend().gradientIsFinite() ? SkipReason::kNone
                                                : SkipReason::kNonFiniteGradient;
}

/// Completes row 0 by what waits for it, and clips it.
SkipReason GradientOptimizer::finishGradient(Objective& objective, const StepControl& control,
                                             StepResult& result) {
  if (waitingReason_ != SkipReason::kNone) return waitingReason_;
  Backend& backend = objective.backend();
  const std::int64_t n = objective.parameters();
  if (!waiting_.empty()) {
    addWaiting(backend, n);
    backend.write(Space::kJacobian, 0, waiting_.data(), n);
    if (!backend.gradientIsFinite()) return SkipReason::kNonFiniteGradient;
  }
  if (!control.maxGradientNorm) return SkipReason::kNone;
  gradient_.resize(static_cast<std::size_t>(n));
  backend.read(Space::kJacobian, 0, gradient_.data(), n);
  double squares = 0;
  for (const float value : gradient_) squares += double{value} * double{value};
  result.gradientNorm = std::sqrt(squares);
  // The 1e-6 is torch's.
  const double scale = *control.maxGradientNorm / (*result.gradientNorm + 1e-6);
  if (scale >= 1) return SkipReason::kNone;
  for (float& value : gradient_) value *= static_cast<float>(scale);
  backend.write(Space::kJacobian, 0, gradient_.data(), n);
  return SkipReason::kNone;
}

/// Adds row 0 to the gradients that wait, in float32 as torch does.
void GradientOptimizer::addWaiting(Backend& backend, std::int64_t parameters) {
  gradient_.resize(static_cast<std::size_t>(parameters));
  backend.read(Space::kJacobian, 0, gradient_.data(), parameters);
  if (waiting_.empty()) {
    waiting_ = gradient_;
    return;
  }
  for (std::size_t i = 0; i < waiting_.size(); ++i) waiting_[i] += gradient_[i];
}

void GradientOptimizer::visitState(StateVisitor& visitor) {
  visitor.count("steps", steps_);
  visitor.count("skipped_steps", skippedSteps_);
  const std::vector<StateName> names = stateNames(update(1, options_.learningRate));
  for (std::size_t i = 0; i < state_.size(); ++i) {
    visitor.array(names[i].name, *state_[i],
                  names[i].ofSquares ? Domain::kNonNegative : Domain::kReal);
  }
}

}  // namespace loko
