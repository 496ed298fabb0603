#pragma once

// The options of the Low-Rank Kalman Optimizer (Abdi, Sun, Zhang, Kaski, Pan, arXiv 2410.11551).

#include <cstdint>
#include <optional>
#include <vector>

namespace loko {

/// What the filter takes as its observation y and predicted observation h(theta); z are the logits,
/// pi = softmax(z), C = diag(pi) - pi pi^T.
enum class Observation : std::uint8_t {
  kSoftmax,      // y one-hot, h = pi, H = C J (the paper's reading). Labels.
  kCategorical,  // the categorical likelihood in logit space, noise C, no jitter. Labels.
  kLogits,       // y one-hot, h = z, H = J: least squares on the logits. Labels.
  kRegression,   // y any values, h = z, H = J. Values [1, m].
};

/// Where the observation noise R comes from. M = H diag(p) H^T.
enum class NoiseMode : std::uint8_t {
  kEma,       // R <- beta R + (1-beta)(e e^T + M), prior innovation, applied before S (the paper)
  kModel,     // R = C, the covariance that pi itself implies
  kResidual,  // as kEma but posterior residual and posterior p, after the update: unbiased, one more
              // forward pass
  kFixed,     // R = r0 I
};

enum class Covariance : std::uint8_t {
  kFdekf,    // p <- p - p^2 diag(H^T S^-1 H): fully decoupled EKF, the paper's rule
  kVdekf,    // 1/p <- 1/p + diag(H^T R^-1 H): variational, never above FDEKF
  kLowRank,  // (diag(1/p) + W^T W)^-1: LO-FI, filter/low_rank.h
};

/// Where the likelihood of a categorical observation is linearised.
enum class Update : std::uint8_t {
  kLinear,    // at the prediction: the extended Kalman filter
  kIterated,  // at the mode of the posterior, in k-space: see filter/posterior_mode.h
};

enum class Gain : std::uint8_t {
  kFixed,     // p changes as the filter's equations say, and by the process noise given
  kAdaptive,  // the covariance also grows and shrinks as the stream asks: filter/adaptive_gain.h
};

/// How many of the m - 1 informative directions of a softmax are propagated backwards.
struct RankOption {
  enum class Kind : std::uint8_t { kExact, kAuto, kFixed };
  Kind kind = Kind::kAuto;
  // kAuto: leave out at most this share of trace(C); categorical: or what is beyond max(10, (m - 1) / 8)
  // rows, unless epsilon is 0.
  double epsilon = 0.02;
  int rows = 0;  // kFixed: k, clamped to m - 1
};

/// kHead: modules that are trained whole. kBias: biases elsewhere, which have the p0 of the head.
enum class ParameterGroup : std::uint8_t { kLoraA, kLoraB, kHead, kBias };

/// theta[begin, end) belongs to `group`.
struct ParameterRange {
  std::int64_t begin = 0, end = 0;
  ParameterGroup group = ParameterGroup::kHead;
};

/// The initial variance of every parameter.
struct InitialCovariance {
  enum class Kind : std::uint8_t { kAuto, kUniform, kPerGroup };
  Kind kind = Kind::kAuto;
  /// kAuto: chosen at the first applied step so that the prior variance of the observations matches
  /// their scale: tau * trace(C)/|H|_F^2 (softmax), tau * k/|U^T J|_F^2 (categorical),
  /// tau * m/|J|_F^2 (logits, regression: unit variance per output).
  /// Default: 3 for categorical with a linear update, 1 otherwise (docs/filter.md).
  std::optional<double> tau;
  double value = 0;                       // kUniform
  double loraA = 0, loraB = 0, head = 0;  // kPerGroup; 0 freezes a group while q = 0
};

/// Absent optionals take the documented default, and are an error where the choice of another option
/// leaves them without a meaning.
struct LokoOptions {
  /// The facade's default is categorical (lib/optim/loko.ts); here it is the paper's.
  Observation observation = Observation::kSoftmax;
  /// Default: auto with epsilon 0.02. Softmax and categorical only: the others propagate all m rows.
  std::optional<RankOption> rank;
  /// Default: kEma. Categorical owns its noise. kModel: softmax only.
  std::optional<NoiseMode> noise;
  /// Forgetting factor of R in [0, 1), default 0.95. kEma and kResidual only.
  std::optional<double> beta;
  /// R_0 = r0 I, default 0.1. Not for kModel and categorical.
  std::optional<double> r0;
  /// State transition theta <- theta with variance p <- min(pMax, gamma^2 p + q + qRatio * p0), where
  /// p0 is the largest initial variance. Defaults: none, as in the paper; for streams that drift,
  /// qRatio of 1e-4 to 1e-3.
  double gamma = 1;
  double q = 0;
  double qRatio = 0;
  /// Cap of p under process noise and an adaptive gain, against wind-up of unexcited parameters.
  /// Default: 10 * largest p0; 100 * with an adaptive gain.
  std::optional<double> pMax;
  /// Floor of p relative to the smallest initial variance; floors are counted.
  double pMinRatio = 1e-12;
  /// c: the step is scaled so that no logit moves by more than c (after centring, for softmax and
  /// categorical) in the linearised model; infinity turns it off. Default: 2 for categorical, 1 for
  /// softmax and logits, infinity for an iterated update, whose steps end where the error does, and for
  /// regression, whose outputs have no natural unit.
  std::optional<double> trustRegion;
  InitialCovariance p0;
  Covariance covariance = Covariance::kFdekf;
  /// L, kLowRank: rows of W, at least 1.
  int covarianceRank = 16;
  /// kIterated: categorical only.
  Update update = Update::kLinear;
  /// kAdaptive: with an iterated update only.
  Gain gain = Gain::kFixed;
  /// Softmax and categorical: where the mean loss of a step's samples, in nats, is below this, nothing is
  /// learned from them and no backward pass is made. 0: learn from all.
  double minLoss = 0;

  /// The published algorithm: softmax, all m - 1 rows, EMA noise, no process noise, no trust region.
  static LokoOptions paper();
};

/// Throws Error(kOption) for values or combinations without a meaning, naming option and remedy.
/// `outputs` is m; `ranges` and `parameters` say what theta holds (needed for per-group p0).
void validate(const LokoOptions& options, int outputs, std::int64_t parameters,
              const std::vector<ParameterRange>& ranges);

}  // namespace loko
