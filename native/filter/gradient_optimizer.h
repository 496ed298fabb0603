#pragma once

// The first-order baselines: SGD, AdaGrad, RMSProp, Adam, AdamW and (with `amsgrad`) AMSGrad, equal
// to torch.optim step by step. They share LoKO's path: one backward pass whose cotangent is the
// gradient of the loss.

#include <memory>
#include <vector>

#include "filter/optimizer.h"

namespace loko {

/// Hyper-parameters with the names and defaults of PyTorch 2.x; `defaults(rule)` gives those of one
/// optimizer. Fields that a rule does not use are ignored.
struct GradientOptions {
  GradientUpdate::Rule rule = GradientUpdate::Rule::kAdam;
  double learningRate = 1e-3;     // AdaGrad and RMSProp: 1e-2
  double weightDecay = 0;         // AdamW: 1e-2, decoupled; elsewhere added to the gradient
  double beta1 = 0.9;             // Adam, AdamW
  double beta2 = 0.999;           // Adam, AdamW
  double eps = 1e-8;              // AdaGrad: 1e-10
  bool amsgrad = false;           // Adam, AdamW
  double momentum = 0;            // SGD, RMSProp
  double dampening = 0;           // SGD
  bool nesterov = false;          // SGD; needs momentum > 0 and dampening = 0
  double learningRateDecay = 0;   // AdaGrad
  double initialAccumulator = 0;  // AdaGrad: start of the sum of squares
  double alpha = 0.99;            // RMSProp
  bool centered = false;          // RMSProp

  static GradientOptions defaults(GradientUpdate::Rule rule);
};

/// Throws kOption for values that torch.optim refuses.
void validate(const GradientOptions& options);

class GradientOptimizer : public Optimizer {
 public:
  /// State for `parameters` numbers on `backend`, which must outlive the optimizer.
  GradientOptimizer(Backend& backend, std::int64_t parameters, const GradientOptions& options);

  /// Labels: mean cross entropy of the batch. Values: mean squared error over all elements.
  StepResult step(Objective& objective, const Targets& targets) override;
  void control(const StepControl& control) override;
  /// Gradients that wait for the rest of their step are no part of the state.
  void visitState(StateVisitor& visitor) override;

  const GradientOptions& options() const { return options_; }
  std::int64_t steps() const { return steps_; }
  std::int64_t skippedSteps() const { return skippedSteps_; }
  /// The moments, in the order documented at stateArrays().
  const std::vector<std::unique_ptr<StateArray>>& state() const { return state_; }

 private:
  GradientUpdate update(std::int64_t step, double learningRate) const;
  SkipReason differentiate(Objective& objective, const Targets& targets, double weight,
                           StepResult& result);
  SkipReason finishGradient(Objective& objective, const StepControl& control, StepResult& result);
  void forgetWaiting();
  void addWaiting(Backend& backend, std::int64_t parameters);
  void lossGradient(const Targets& targets, int batch, int outputs,
                    const std::vector<double>& logits);

  GradientOptions options_;
  std::int64_t steps_ = 0;
  std::int64_t skippedSteps_ = 0;
  std::vector<std::unique_ptr<StateArray>> state_;
  std::vector<StateArray*> statePointers_;
  StepControl control_;         // of the next step
  std::vector<float> waiting_;  // sum of the gradients that were not applied yet, or empty
  SkipReason waitingReason_ =
      SkipReason::kNone;            // why the step that they belong to will be skipped
  std::vector<float> gradient_;     // scratch
  std::vector<double> cotangents_;  // [B, m]
};

}  // namespace loko
