#pragma once

// What all optimizers share: the targets of a batch, the report of one step, the interface.

#include <cstdint>
#include <optional>
#include <vector>

#include "core/objective.h"

namespace loko {

/// The targets of one batch: either labels or values.
struct Targets {
  std::vector<int> labels;     // [B], 0 <= label < m
  std::vector<double> values;  // [B, m]
};

/// Why a step changed nothing. A skipped step leaves parameters, covariance, moments and noise
/// estimate bit-identical.
enum class SkipReason : std::uint8_t {
  kNone,                 // the step was applied
  kNonFiniteLogits,      // the model's outputs hold NaN or infinity
  kNonFiniteJacobian,    // G diag(p) G^T holds NaN or infinity
  kNonFiniteGain,        // the gain, its root, or the change of the parameters is not finite
  kNonFiniteGradient,    // baselines: the gradient holds NaN or infinity
  kZeroJacobian,         // no parameter moves the outputs
  kFactorisationFailed,  // S is not positive definite even with the largest jitter
};

/// The public spelling, for example "non-finite-logits"; "" for kNone.
const char* skipReasonName(SkipReason reason);

/// Over all n parameters: the posterior variances of the last applied step, before the process noise
/// of the next prediction, which the stored p of LokoState holds already. Until a step is applied: the
/// variances that the first one starts from (0 while the automatic p0 is open).
struct CovarianceSummary {
  double mean = 0, min = 0, max = 0;
};

/// What one step saw and did. The first block describes the model BEFORE it learned from the batch.
struct StepResult {
  std::vector<double> logits;  // [B, m]
  std::vector<int> predicted;  // [B], argmax of the logits
  int correct = 0;             // how many of B; 0 when the targets are values
  /// Mean over the batch: cross entropy for labels; mean squared error over B*m elements for values
  /// and for LoKO's logits observation (there against the one-hot target).
  double loss = 0;

  SkipReason skipped = SkipReason::kNone;
  int rows = 0;  // k: cotangent rows propagated (baselines: 1; LoKO: 0 below minLoss)
  /// Baselines, where StepControl::maxGradientNorm is given: the norm before it was clipped.
  std::optional<double> gradientNorm;

  // LoKO only.
  double p0 = 0;          // initial covariance; 0 until the automatic rule has chosen it
  double traceR = 0;      // trace of the observation noise that entered this step
  double nis = 0;         // normalised innovation squared, e^T S^-1 e / k; about 1 if R is right
  double trustScale = 1;  // factor of the step, below 1 where the trust region held it back
  double jitter = 0;      // what had to be added to the diagonal of S; 0 almost always
  double pivotRatio = 0;  // (max/min Cholesky pivot)^2: a LOWER bound of the condition of S
  double gain = 1;        // by how much an adaptive gain has scaled the covariance in all
  double stretch = 0;     // share by which an adaptive gain stretched theta - theta0 in this step
  std::int64_t floored = 0;  // entries of p caught by the floor in this step
  CovarianceSummary p;
};

/// How the next step differs from a plain one. Only optimizers with a learning rate have one.
struct StepControl {
  std::optional<double> learningRate;  // instead of that of the options
  /// The gradient is scaled to this Euclidean norm where it is longer (torch's clip_grad_norm_).
  std::optional<double> maxGradientNorm;
  /// Share of this batch in the loss of the step: B / (samples of all batches of the step).
  double weight = 1;
  /// True: what waits from a step that was never finished is dropped.
  bool begin = true;
  /// False: the gradient is kept and added to that of the next batch, and nothing is updated.
  bool apply = true;
};

/// What a number of the state can be: a state from a file is refused where one is not.
enum class Domain : std::uint8_t { kReal, kNonNegative, kPositive };

/// Takes every number that a step depends on besides theta, the options and the batch, in a fixed
/// order. An optimizer lists them once, for reading and for writing (filter/optimizer_state.h).
class StateVisitor {
 public:
  virtual ~StateVisitor() = default;
  virtual void number(const char* name, double& value, Domain domain) = 0;
  virtual void count(const char* name, std::int64_t& value) = 0;
  virtual void flag(const char* name, bool& value) = 0;
  virtual void matrix(const char* name, std::vector<double>& values, int rows) = 0;
  virtual void array(const char* name, StateArray& values, Domain domain) = 0;
};

/// One optimizer drives one objective; it owns its state, and is used from one thread.
class Optimizer {
 public:
  virtual ~Optimizer() = default;

  /// Predicts, then learns from the objective's current batch once. Throws Error for targets that
  /// do not fit (nothing is changed then); numbers that go wrong make a skipped step instead.
  virtual StepResult step(Objective& objective, const Targets& targets) = 0;

  /// For the next step only. Throws kUnsupported where there is no learning rate.
  virtual void control(const StepControl& control) = 0;

  virtual void visitState(StateVisitor& visitor) = 0;
};

}  // namespace loko
