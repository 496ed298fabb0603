// The state of optimizers and what controls a step: on the tanh network of filter_testing.h.

#include <limits>

#include "core/status.h"
#include "filter/gradient_optimizer.h"
#include "filter/optimizer_state.h"
#include "filter_testing.h"

namespace loko::test {
namespace {

constexpr int kInputs = 3, kHidden = 4, kOutputs = 5;

struct Problem {
  explicit Problem(Precision precision)
      : network(precision, kInputs, kHidden, kOutputs,
                Random(1).vector(TanhNetwork::size(kInputs, kHidden, kOutputs), 0.5)) {}

  void step(Optimizer& optimizer, int i) {
    network.setBatch({Random(static_cast<std::uint64_t>(100 + i)).vector(kInputs)});
    Targets targets;
    targets.labels = {i % kOutputs};
    REQUIRE(optimizer.step(network, targets).skipped == SkipReason::kNone);
  }
  /// Widened by the objective: a step of given samples.
  StepResult stepOn(GradientOptimizer& optimizer, const std::vector<Vector>& samples,
                    const std::vector<int>& labels, const StepControl& control) {
    network.setBatch(samples);
    Targets targets;
    targets.labels = labels;
    optimizer.control(control);
    return optimizer.step(network, targets);
  }

  TanhNetwork network;
};

std::unique_ptr<Optimizer> makeOptimizer(int kind, Problem& problem) {
  Backend& backend = problem.network.backend();
  const std::int64_t n = problem.network.parameters();
  if (kind == 0) return std::make_unique<LokoOptimizer>(backend, n, kOutputs, LokoOptions::paper());
  if (kind == 1) {
    LokoOptions options;
    options.observation = Observation::kCategorical;
    options.qRatio = 1e-3;
    return std::make_unique<LokoOptimizer>(backend, n, kOutputs, options);
  }
  if (kind == 2 || kind == 3) {
    LokoOptions options;
    options.observation = Observation::kCategorical;
    options.update = Update::kIterated;
    options.gain = Gain::kAdaptive;
    if (kind == 2) return std::make_unique<LokoOptimizer>(backend, n, kOutputs, options);
    options.covariance = Covariance::kLowRank;
    const std::int64_t head = n - kOutputs * (kHidden + 1);
    return std::make_unique<LokoOptimizer>(
        backend, n, kOutputs, options,
        std::vector<ParameterRange>{{0, head, ParameterGroup::kLoraB},
                                    {head, n, ParameterGroup::kHead}});
  }
  GradientOptions options = GradientOptions::defaults(GradientUpdate::Rule::kAdam);
  options.amsgrad = true;
  return std::make_unique<GradientOptimizer>(backend, n, options);
}

}  // namespace

TEST_SUITE("optimizer state") {
  TEST_CASE("what follows a restored state has the same bits, in either precision") {
    for (const Precision precision : {Precision::kDouble, Precision::kFloat}) {
      for (int kind = 0; kind < 5; ++kind) {
        CAPTURE(kind);
        Problem problem(precision), other(precision);
        const auto optimizer = makeOptimizer(kind, problem), restored = makeOptimizer(kind, other);
        for (int i = 0; i < 12; ++i) problem.step(*optimizer, i);
        if (kind == 3) REQUIRE(entryOf(*optimizer, problem.network, "head_scale_followed") != 1);
        other.step(*restored, 9);
        writeState(*restored, other.network, readState(*optimizer, problem.network));
        for (int i = 12; i < 30; ++i) {
          problem.step(*optimizer, i);
          other.step(*restored, i);
        }
        CHECK(sameBits(problem.network.theta(), other.network.theta()));
        CHECK(
            sameBits(readState(*optimizer, problem.network), readState(*restored, other.network)));
      }
    }
  }

  TEST_CASE("numbers that are none are refused by name, and change nothing") {
    Problem problem(Precision::kDouble);
    const auto optimizer = makeOptimizer(0, problem);
    problem.step(*optimizer, 1);
    const std::vector<double> good = readState(*optimizer, problem.network);
    const auto entries = describeState(*optimizer, problem.network.parameters());
    std::size_t begin = 0;
    using Limits = std::numeric_limits<double>;
    for (const StateEntry& entry : entries) {
      for (const double none : {Limits::quiet_NaN(), Limits::infinity()}) {
        std::vector<double> bad = good;
        bad[begin] = none;
        CAPTURE(entry.name);
        try {
          writeState(*optimizer, problem.network, bad);
          FAIL("was accepted");
        } catch (const Error& error) {
          CHECK(error.code() == ErrorCode::kOption);
          CHECK(std::string(error.what()).find('"' + entry.name + '"') != std::string::npos);
        }
        CHECK(sameBits(readState(*optimizer, problem.network), good));
      }
      begin += static_cast<std::size_t>(entry.size);
    }
    CHECK(begin == good.size());
    CHECK_THROWS_AS(writeState(*optimizer, problem.network, {1, 2}), Error);
  }

  TEST_CASE("a variance below 0 and a scale of 0 are refused by name, and change nothing") {
    struct Bad {
      int kind;
      const char* name;
      double value;
    };
    for (const Bad& bad :
         {Bad{3, "p", -1e-30}, Bad{3, "p0", -1}, Bad{3, "head_variance", -0.1},
          Bad{3, "head_scale_followed", 0}, Bad{3, "gain_squares", -1}, Bad{3, "scale_squares", -1},
          Bad{4, "exp_avg_sq", -1}, Bad{4, "max_exp_avg_sq", -1}}) {
      CAPTURE(bad.name);
      Problem problem(Precision::kDouble);
      const auto optimizer = makeOptimizer(bad.kind, problem);
      problem.step(*optimizer, 1);
      const std::vector<double> good = readState(*optimizer, problem.network);
      std::vector<double> changed = good;
      changed[placeOf(*optimizer, problem.network, bad.name)] = bad.value;
      try {
        writeState(*optimizer, problem.network, changed);
        FAIL("was accepted");
      } catch (const Error& error) {
        CHECK(error.code() == ErrorCode::kOption);
        CHECK(std::string(error.what()).find(std::string("\"") + bad.name + "\" must be") == 0);
      }
      CHECK(sameBits(readState(*optimizer, problem.network), good));
    }
  }

  TEST_CASE(
      "uneven batches add up to the step of one batch, clipped to the norm that is asked for") {
    Problem whole(Precision::kDouble), parts(Precision::kDouble);
    GradientOptions options = GradientOptions::defaults(GradientUpdate::Rule::kSgd);
    options.learningRate = 1;
    const std::int64_t n = whole.network.parameters();
    GradientOptimizer one(whole.network.backend(), n, options);
    GradientOptimizer two(parts.network.backend(), n, options);
    const Vector a = Random(5).vector(kInputs), b = Random(6).vector(kInputs),
                 c = Random(7).vector(kInputs);
    const Vector before = whole.network.theta();

    StepControl first, last;
    first.weight = 2.0 / 3, first.apply = false;
    last.weight = 1.0 / 3, last.begin = false;
    CHECK(whole.stepOn(one, {a, b, c}, {0, 3, 1}, {}).skipped == SkipReason::kNone);
    parts.stepOn(two, {a, b}, {0, 3}, first);
    CHECK(sameBits(parts.network.theta(), before));
    CHECK(two.steps() == 0);
    parts.stepOn(two, {c}, {1}, last);
    CHECK(two.steps() == 1);
    // Gradients that wait are float32.
    CHECK(relativeError(parts.network.theta(), whole.network.theta()) < 1e-6);

    Vector gradient = before;
    for (std::size_t i = 0; i < gradient.size(); ++i) gradient[i] -= whole.network.theta()[i];
    double norm = 0;
    for (const double g : gradient) norm += g * g;
    norm = std::sqrt(norm);
    Problem clipped(Precision::kDouble);
    GradientOptimizer third(clipped.network.backend(), n, options);
    StepControl clip;
    clip.maxGradientNorm = norm / 2, clip.learningRate = 0.5;
    const StepResult result = clipped.stepOn(third, {a, b, c}, {0, 3, 1}, clip);
    CHECK(*result.gradientNorm == doctest::Approx(norm).epsilon(1e-6));
    Vector expected = before;
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] -= 0.25 * gradient[i];
    CHECK(relativeError(clipped.network.theta(), expected) < 1e-6);
    clip.maxGradientNorm = 2 * norm;
    Problem free(Precision::kDouble);
    GradientOptimizer fourth(free.network.backend(), n, options);
    free.stepOn(fourth, {a, b, c}, {0, 3, 1}, clip);
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] = before[i] - 0.5 * gradient[i];
    CHECK(relativeError(free.network.theta(), expected) < 1e-12);
  }
}

}  // namespace loko::test
