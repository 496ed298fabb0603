// What the filter refuses, what it survives, and that it leaves no trace of either.

#include <functional>
#include <limits>
#include <string>

#include "core/status.h"
#include "filter_testing.h"

namespace loko::test {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

struct Snapshot {
  Vector theta, p, noise;
  bool operator==(const Snapshot& other) const {
    return sameBits(theta, other.theta) && sameBits(p, other.p) && sameBits(noise, other.noise);
  }
};

Snapshot snapshot(FormulaObjective& objective, const LokoOptimizer& loko) {
  return {objective.theta(), covarianceOf(objective, loko), loko.state().noise.matrix()};
}

ErrorCode codeOf(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    CHECK(std::string(error.what()).size() > 20);
    return error.code();
  }
  FAIL("no error");
  return ErrorCode::kInternal;
}

}  // namespace

TEST_SUITE("filter guards") {
  void nothingChanges(Precision precision, const LokoOptions& options) {
    const int n = 8, m = 4;
    Random random(1);
    const Vector start = random.vector(n);
    LinearObjective objective(precision, start, random.matrix(m, n));
    const Matrix sound = objective.slope;
    LokoOptimizer loko = makeLoko(objective, options);

    const auto expectSkip = [&](SkipReason reason) {
      const Snapshot before = snapshot(objective, loko);
      const double p0 = loko.state().p0;
      const std::int64_t steps = loko.state().steps, skipped = loko.state().skippedSteps;
      const StepResult result = loko.step(objective, label(1));
      CHECK(std::string(skipReasonName(result.skipped)) == skipReasonName(reason));
      CHECK(snapshot(objective, loko) == before);
      CHECK(loko.state().p0 == p0);
      CHECK(loko.state().steps == steps);
      CHECK(loko.state().skippedSteps == skipped + 1);
      objective.slope = sound;
      objective.offset = Vector(m, 0.0);
    };
    const auto allReasons = [&] {
      objective.offset[2] = kNaN;
      expectSkip(SkipReason::kNonFiniteLogits);
      objective.offset[0] = HUGE_VAL;
      expectSkip(SkipReason::kNonFiniteLogits);
      // theta is moved out of the way of the broken column, so that only the Jacobian breaks.
      const Vector theta = objective.theta();
      Vector without = theta;
      without[3] = 0;
      objective.setTheta(without);
      objective.slope(1, 3) = 1e200;  // its square is infinite
      expectSkip(SkipReason::kNonFiniteJacobian);
      objective.setTheta(theta);
      objective.slope = Matrix(m, n);
      expectSkip(SkipReason::kZeroJacobian);
    };
    allReasons();  // before the first applied step: p0 may still be open
    for (int t = 0; t < 3; ++t) CHECK(loko.step(objective, label(t)).skipped == SkipReason::kNone);
    allReasons();
    CHECK(loko.step(objective, label(0)).skipped == SkipReason::kNone);
    CHECK(loko.state().steps == 4);
    CHECK(loko.state().skippedSteps == 8);
  }
  TEST_CASE("bad numbers skip the step, say why, and leave theta, p and R bit-identical") {
    for (const Precision precision : {Precision::kDouble, Precision::kFloat}) {
      LokoOptions options;
      nothingChanges(precision, options);
      options.gamma = 0.999;
      options.qRatio = 1e-3;
      options.noise = NoiseMode::kResidual;
      nothingChanges(precision, options);
      LokoOptions categorical;
      categorical.observation = Observation::kCategorical;
      categorical.q = 1e-3;
      categorical.p0 = uniform(0.1);
      nothingChanges(precision, categorical);
      categorical.update = Update::kIterated;
      nothingChanges(precision, categorical);
      categorical.q = 0;
      categorical.gain = Gain::kAdaptive;
      nothingChanges(precision, categorical);
      categorical.covariance = Covariance::kLowRank;
      nothingChanges(precision, categorical);
    }
  }

  TEST_CASE("a step that would leave the range of float32 is skipped") {
    LinearObjective objective(Precision::kDouble, {0, 0}, Matrix(2, 2));
    // Fixed noise of 1e-60 and a Jacobian of 1e-35: the gain is p * 1e-35 / 1e-60.
    objective.slope(0, 0) = objective.slope(1, 1) = 1e-35;
    LokoOptions options = regression(1, 1e-60);
    LokoOptimizer loko = makeLoko(objective, options);
    const StepResult result = loko.step(objective, values({1e10, 1e10}));
    CHECK(result.skipped == SkipReason::kNonFiniteGain);
    CHECK(sameBits(objective.theta(), {0, 0}));
    CHECK(sameBits(covarianceOf(objective, loko), {1, 1}));
    // No innovation, so no step; but 1/sqrt(S) is 1e31 and would square to infinity in the update of p.
    LokoOptimizer sharp = makeLoko(objective, regression(1, 1e-62));
    CHECK(sharp.step(objective, values({0, 0})).skipped == SkipReason::kNonFiniteGain);
  }

  TEST_CASE("a first sample too confident to scale p0 by is skipped, and the next one starts") {
    LinearObjective objective(Precision::kDouble, {1, 0}, Matrix::identity(2));
    objective.offset = {800, 0};
    LokoOptimizer loko = makeLoko(objective, LokoOptions());
    const StepResult refused = loko.step(objective, label(0));
    CHECK(refused.skipped == SkipReason::kNonFiniteGain);
    CHECK(refused.p0 == 0);
    CHECK(loko.state().p0 == 0);
    CHECK(!loko.state().started);
    objective.offset = {0, 0};
    CHECK(loko.step(objective, label(0)).skipped == SkipReason::kNone);
    CHECK(loko.state().p0 > 0);
  }

  void trustRegion(Precision precision, Observation observation) {
    const int n = 6, m = 4;
    Random random(3);
    const Vector theta = random.vector(n);
    const Matrix slope = random.matrix(m, n);
    LokoOptions options;
    options.observation = observation;
    options.p0 = uniform(64);
    // A truncated basis predicts the change within its span only.
    if (observation != Observation::kLogits) options.rank = exactRank();
    options.trustRegion = HUGE_VAL;
    LinearObjective free(precision, theta, slope);
    LokoOptimizer unbounded = makeLoko(free, options);
    CHECK(unbounded.step(free, label(2)).trustScale == 1);
    options.trustRegion = 0.25;
    LinearObjective held(precision, theta, slope);
    LokoOptimizer bounded = makeLoko(held, options);
    const double scale = bounded.step(held, label(2)).trustScale;
    CHECK(scale < 1);

    // The model is linear: the predicted change of the (centred) logits is the true one.
    const auto largestChange = [&](LinearObjective& objective) {
      const Vector after = slope * objective.theta(), before = slope * theta;
      double mean = 0, largest = 0;
      if (observation != Observation::kLogits)
        for (int c = 0; c < m; ++c) mean += (after[c] - before[c]) / m;
      for (int c = 0; c < m; ++c)
        largest = std::max(largest, std::fabs(after[c] - before[c] - mean));
      return largest;
    };
    const double limit = precision == Precision::kDouble ? 1e-10 : 1e-4;
    CHECK(largestChange(held) == doctest::Approx(0.25).epsilon(limit));
    CHECK(largestChange(free) * scale == doctest::Approx(0.25).epsilon(limit));
    // p learns from the observation whatever happens to the step.
    CHECK(sameBits(covarianceOf(held, bounded), covarianceOf(free, unbounded)));
  }
  TEST_CASE("the trust region bounds the change of the centred logits and scales the step only") {
    for (const Precision precision : {Precision::kDouble, Precision::kFloat})
      for (const Observation observation :
           {Observation::kSoftmax, Observation::kCategorical, Observation::kLogits})
        trustRegion(precision, observation);
  }

  void untouchedColumns(Precision precision) {
    // As lora_A at B = 0: columns 0..3 are exactly zero.
    const int n = 9, m = 5;
    Random random(4);
    LinearObjective objective(precision, random.vector(n), random.matrix(m, n));
    for (int c = 0; c < m; ++c)
      for (int j = 0; j < 4; ++j) objective.slope(c, j) = 0;
    for (const Observation observation : {Observation::kSoftmax, Observation::kCategorical}) {
      LokoOptions options;
      options.observation = observation;
      options.p0 = uniform(0.1);
      LokoOptimizer loko = makeLoko(objective, options);
      const Snapshot before = snapshot(objective, loko);
      for (int t = 0; t < 5; ++t) loko.step(objective, label(random.below(m)));
      const Snapshot after = snapshot(objective, loko);
      for (int j = 0; j < n; ++j) {
        CHECK((after.theta[j] == before.theta[j]) == (j < 4));
        CHECK((after.p[j] == before.p[j]) == (j < 4));
      }
    }
  }
  TEST_CASE("parameters that the outputs do not depend on keep value and variance to the bit") {
    untouchedColumns(Precision::kDouble);
    untouchedColumns(Precision::kFloat);
  }

  TEST_CASE("the floor holds p up and is counted") {
    LinearObjective objective(Precision::kDouble, {0, 0}, Matrix::identity(2));
    LokoOptions options = regression(1, 1e-6);
    options.pMinRatio = 1e-3;
    LokoOptimizer loko = makeLoko(objective, options);
    const StepResult result = loko.step(objective, values({1, 1}));
    CHECK(result.floored == 2);
    CHECK(loko.state().floored == 2);
    CHECK(sameBits(covarianceOf(objective, loko), {1e-3, 1e-3}));
    CHECK(result.p.mean == 1e-3);
  }

  TEST_CASE("jitter is added only when the factorisation fails, and is reported") {
    // Two equal rows and hardly any noise: S is singular to rounding.
    LinearObjective objective(Precision::kDouble, {0, 0}, Matrix(2, 2));
    for (double& v : objective.slope.values) v = 1;
    LokoOptions options = regression(1, 1e-18);
    LokoOptimizer loko = makeLoko(objective, options);
    const StepResult result = loko.step(objective, values({1, 1}));
    CHECK(result.skipped == SkipReason::kNone);
    CHECK(result.jitter == doctest::Approx(1e-6 * 2).epsilon(1e-12));  // trace(S)/k = 2
    CHECK(loko.state().jitteredSteps == 1);
    CHECK(objective.theta()[0] == doctest::Approx(0.5).epsilon(1e-6));
    LokoOptimizer sound = makeLoko(objective, regression(1, 1));
    CHECK(sound.step(objective, values({1, 1})).jitter == 0);
  }

  TEST_CASE("below minLoss nothing is learned, but time passes; from it on all is as without") {
    Random random(91);
    const Matrix slope = random.matrix(3, 4);
    const Vector theta = random.vector(4);
    const auto options = [](double minLoss) {
      LokoOptions result;
      result.observation = Observation::kCategorical;
      result.p0 = uniform(0.5);
      result.q = 0.25;
      result.minLoss = minLoss;
      return result;
    };
    LinearObjective objective(Precision::kDouble, theta, slope);
    LinearObjective other(Precision::kDouble, theta, slope);
    const Vector before = objective.theta();
    LokoOptimizer always = makeLoko(other, options(0));
    const double loss = always.step(other, label(1)).loss;

    LokoOptimizer loko = makeLoko(objective, options(loss * (1 + 1e-12)));
    const StepResult passed = loko.step(objective, label(1));
    CHECK(passed.skipped == SkipReason::kNone);
    CHECK(passed.rows == 0);
    CHECK(passed.loss == loss);
    CHECK(sameBits(objective.theta(), before));
    // p0 + q when it was made, and q once more.
    CHECK(sameBits(covarianceOf(objective, loko), Vector(4, 1)));
    CHECK(loko.state().steps == 1);

    LinearObjective third(Precision::kDouble, theta, slope);
    LokoOptimizer from = makeLoko(third, options(loss));
    CHECK(from.step(third, label(1)).rows == 2);
    CHECK(sameBits(third.theta(), other.theta()));
    CHECK(sameBits(covarianceOf(third, from), covarianceOf(other, always)));

    // Where p0 is still open it stays open.
    LokoOptions open = options(loss * 2);
    open.p0 = {};
    LinearObjective fourth(Precision::kDouble, theta, slope);
    LokoOptimizer waiting = makeLoko(fourth, open);
    CHECK(waiting.step(fourth, label(1)).p0 == 0);
    CHECK(!waiting.state().started);
  }

  TEST_CASE("options without a meaning are refused") {
    LinearObjective objective(Precision::kDouble, {0, 0}, Matrix(2, 2));
    const auto refuses = [&](const LokoOptions& options) {
      CHECK(codeOf([&] { makeLoko(objective, options); }) == ErrorCode::kOption);
    };
    const LokoOptions base;
    LokoOptions o = base;
    o.beta = 1;
    refuses(o);
    o = base, o.r0 = 0, refuses(o);
    o = base, o.gamma = 0, refuses(o);
    o = base, o.q = -1, refuses(o);
    o = base, o.qRatio = kNaN, refuses(o);
    o = base, o.pMax = 0, refuses(o);
    o = base, o.pMinRatio = 1, refuses(o);
    o = base, o.minLoss = -1, refuses(o);
    o = base, o.minLoss = kNaN, refuses(o);
    o = regression(1, 1), o.minLoss = 0.1, refuses(o);
    // Variances live in float32.
    for (const double beyond : {1e-50, 1e39}) {
      o = base, o.p0 = uniform(beyond), refuses(o);
      o = base, o.q = beyond, refuses(o);
      o = base, o.pMax = beyond, refuses(o);
    }
    o = base, o.gamma = 1e20, refuses(o);
    o = base, o.gamma = 1e-20, refuses(o);
    o = base, o.gamma = 1e-200, refuses(o);
    o = base, o.trustRegion = 0, refuses(o);
    o = base, o.p0.tau = 0, refuses(o);
    o = base, o.p0 = uniform(-1), refuses(o);
    o = base, o.p0.kind = InitialCovariance::Kind::kPerGroup, refuses(o);  // no ranges
    o = base, o.rank = RankOption{RankOption::Kind::kFixed, 0, 0}, refuses(o);
    o = base, o.rank = RankOption{RankOption::Kind::kAuto, 1, 0}, refuses(o);
    o = base, o.noise = NoiseMode::kFixed, o.beta = 0.9, refuses(o);
    o = base, o.noise = NoiseMode::kModel, o.r0 = 0.1, refuses(o);
    o = base, o.observation = Observation::kCategorical, o.noise = NoiseMode::kEma, refuses(o);
    o = base, o.observation = Observation::kCategorical, o.beta = 0.9, refuses(o);
    o = base, o.observation = Observation::kRegression, o.noise = NoiseMode::kModel, refuses(o);
    o = base, o.observation = Observation::kLogits, o.rank = exactRank(), refuses(o);
    o = base, o.update = Update::kIterated, refuses(o);  // softmax
    o = base, o.observation = Observation::kCategorical, o.gain = Gain::kAdaptive, refuses(o);
    LinearObjective single(Precision::kDouble, {0}, Matrix(1, 1));
    CHECK(codeOf([&] { makeLoko(single, base); }) == ErrorCode::kOption);
  }

  TEST_CASE("targets that do not fit are refused before anything happens") {
    LinearObjective objective(Precision::kDouble, {0, 0}, Matrix::identity(2));
    LokoOptimizer loko = makeLoko(objective, LokoOptions());
    const auto code = [&](const Targets& targets) {
      return codeOf([&] { loko.step(objective, targets); });
    };
    CHECK(code(label(2)) == ErrorCode::kLabelRange);
    CHECK(code(label(-1)) == ErrorCode::kLabelRange);
    CHECK(code({}) == ErrorCode::kShapeMismatch);
    CHECK(code({{0, 1}, {}}) == ErrorCode::kShapeMismatch);
    CHECK(code(values({0, 1})) == ErrorCode::kShapeMismatch);
    LokoOptimizer least = makeLoko(objective, regression(1, 1));
    const auto leastCode = [&](const Targets& targets) {
      return codeOf([&] { least.step(objective, targets); });
    };
    CHECK(leastCode(label(1)) == ErrorCode::kShapeMismatch);
    CHECK(leastCode(values({1})) == ErrorCode::kShapeMismatch);
    CHECK(leastCode(values({1, kNaN})) == ErrorCode::kInputNotFinite);
    CHECK(objective.forwards == 0);

    TanhNetwork network(Precision::kDouble, 1, 1, 2, Vector(TanhNetwork::size(1, 1, 2), 0.0));
    network.setBatch({{1}, {2}});
    LokoOptimizer pair = makeLoko(network, LokoOptions());
    CHECK(codeOf([&] { pair.step(network, label(0)); }) == ErrorCode::kShapeMismatch);
    CHECK(codeOf([&] { pair.step(network, {{0, 2}, {}}); }) == ErrorCode::kLabelRange);
  }

  TEST_CASE("the result describes the prediction before the step") {
    LinearObjective objective(Precision::kDouble, {0, 0, 0}, Matrix::identity(3));
    objective.offset = {0, 1, 0};
    LokoOptimizer loko = makeLoko(objective, LokoOptions());
    const StepResult result = loko.step(objective, label(2));
    CHECK(sameBits(result.logits, {0, 1, 0}));
    CHECK(result.predicted == std::vector<int>{1});
    CHECK(result.correct == 0);
    CHECK(result.loss == doctest::Approx(std::log(2 + std::exp(1))).epsilon(1e-14));
    CHECK(result.rows == 2);
    CHECK(result.pivotRatio >= 1);

    LokoOptions options;
    options.observation = Observation::kLogits;
    LokoOptimizer squares = makeLoko(objective, options);
    objective.setTheta({0, 0, 0});
    CHECK(squares.step(objective, label(1)).loss == 0);
  }
}

}  // namespace loko::test
