#pragma once

// The Low-Rank Kalman Optimizer: an extended Kalman filter over the parameters theta (Abdi, Sun, Zhang, Kaski,
// Pan, arXiv 2410.11551) with a covariance that is diagonal or diagonal plus low rank. The samples of
// a batch are one observation: their rows are stacked.

#include <cstdint>
#include <memory>
#include <vector>

#include "filter/adaptive_gain.h"
#include "filter/cotangent_basis.h"
#include "filter/deviation_scale.h"
#include "filter/head_scale.h"
#include "filter/innovation.h"
#include "filter/loko_options.h"
#include "filter/low_rank.h"
#include "filter/optimizer.h"
#include "filter/posterior_mode.h"

namespace loko {

/// Everything that a resumed run needs besides theta and the options.
struct LokoState {
  /// The prior variance of the NEXT step: process noise is added at the end of a step, which equals
  /// adding it at the start of the next one and leaves a skipped step nothing to undo.
  std::unique_ptr<StateArray> p;
  std::unique_ptr<StateArray> factor;  // [r, n], filter/low_rank.h; null where r is 0
  ObservationNoise noise;              // R; unused for kModel, kFixed and categorical
  AdaptiveGain gain;                   // unused for Gain::kFixed, as is the next
  DeviationScale scale;
  HeadScale head;
  bool started = false;       // p holds variances: at once, or after the automatic p0 was chosen
  double p0 = 0;              // largest initial variance
  double p0Smallest = 0;      // smallest initial variance
  double largest = 0;         // no entry of p is above
  CovarianceSummary summary;  // see StepResult::p
  std::int64_t steps = 0;     // applied
  std::int64_t skippedSteps = 0;
  std::int64_t jitteredSteps = 0;
  std::int64_t floored = 0;  // entries, over all steps
};

class LokoOptimizer : public Optimizer {
 public:
  /// State for `parameters` numbers on `backend`, which must outlive the optimizer. `ranges` names
  /// the group of each parameter; needed for per-group p0 only. Throws kOption.
  LokoOptimizer(Backend& backend, std::int64_t parameters, int outputs, const LokoOptions& options,
                const std::vector<ParameterRange>& ranges = {});

  StepResult step(Objective& objective, const Targets& targets) override;
  void control(const StepControl& control) override;
  void visitState(StateVisitor& visitor) override;

  const LokoOptions& options() const { return options_; }
  const LokoState& state() const { return state_; }

 private:
  void start(Backend& backend, double smallest, double largest);
  void startHead(Backend& backend, double p);
  double predicted(double p) const;
  double processNoise() const;
  double largestAllowed() const;
  bool hasProcessNoise() const;
  bool estimatesNoise() const;

  void check(const Objective& objective, const Targets& targets) const;
  void observe(const std::vector<double>& logits, const Targets& targets, int samples,
               std::vector<double>& innovation);
  double automaticVariance() const;
  SkipReason learn(Objective& objective, const Targets& targets, StepResult& result);
  SkipReason solveSafely(StepResult& result);
  bool solve(StepResult& result);
  bool solveCategorical(StepResult& result);
  bool planUpdate(double loss);
  GramRequest gramRequest();
  bool holdInTrustRegion(StepResult& result);
  void apply(Backend& backend, StepResult& result);
  void predictNext(Backend& backend);
  void followHead(Backend& backend);
  void updateNoiseFromResidual(Objective& objective, const Targets& targets);

  LokoOptions options_;
  std::vector<ParameterRange> ranges_, belowHead_;
  NoiseMode noiseMode_;
  double beta_, r0_, trustRegion_;
  LokoState state_;

  // Scratch of one step.
  std::vector<double> pi_, innovation_, projectedInnovation_, gram_, scaledGram_, projectedNoise_;
  std::vector<double> change_, posterior_, residual_;
  BasisChooser chooser_;
  CotangentBasis basis_;
  LowRank lowRank_;
  LowRank::Directions directions_;  // U^T dz/dc and U^T J (theta - theta0)
  std::vector<double> response_;    // the b of the step: filter/posterior_mode.h
  KalmanGain gain_;
  KalmanUpdate update_;
  AdaptiveGain nextGain_;
  DeviationScale nextScale_;
  double growth_ = 1;   // factor of the covariance after this step
  double stretch_ = 0;  // by which share theta - theta0 grows in it
  std::vector<int> labels_;
};

}  // namespace loko
