// The iterated categorical update and the adaptive gain, against dense algebra in parameter space and
// streams whose right answer is known.

#include "core/softmax.h"
#include "filter/adaptive_gain.h"
#include "filter/deviation_scale.h"
#include "filter_testing.h"

using namespace loko;
using namespace loko::test;

namespace {

Vector probabilities(const Vector& z) {
  Vector pi(z.size());
  softmax(z.data(), static_cast<int>(z.size()), pi.data());
  return pi;
}

Matrix curvature(const Vector& pi) {
  return Matrix::diagonal(pi) - outer(pi, pi);
}

/// The mode of logistic regression with the prior N(theta0, p0 I), by Newton's method on theta.
struct DenseMode {
  Vector theta;
  Matrix covariance;  // (I / p0 + J^T C J)^-1 at the mode

  DenseMode(LinearObjective& objective, double p0, int target) : theta(objective.theta()) {
    const Vector prior = theta;
    const Matrix& j = objective.slope;
    const int n = j.cols;
    for (int step = 0; step < 200; ++step) {
      Vector z = j * theta;
      for (std::size_t c = 0; c < z.size(); ++c) z[c] += objective.offset[c];
      const Vector pi = probabilities(z);
      covariance = inverse((1 / p0) * Matrix::identity(n) + transpose(j) * curvature(pi) * j);
      Vector e(pi.size());
      for (std::size_t c = 0; c < e.size(); ++c) e[c] = -pi[c];
      e[target] += 1;
      Vector gradient = transpose(j) * e;
      for (int i = 0; i < n; ++i) gradient[i] -= (theta[i] - prior[i]) / p0;
      const Vector direction = covariance * gradient;
      // Short steps: from a confident error, full ones overshoot for ever.
      double largest = 0;
      for (const double value : j* direction) largest = std::max(largest, std::fabs(value));
      const double length = largest > 1 ? 1 / largest : 1;
      for (int i = 0; i < n; ++i) theta[i] += length * direction[i];
    }
  }
};

LokoOptions iteratedOfRank(double p0, int rank) {
  LokoOptions options = iterated(p0);
  if (rank > 0) {
    options.covariance = Covariance::kLowRank;
    options.covarianceRank = rank;
  }
  return options;
}

/// (1/p + W^T W)^-1 of one parameter.
double varianceOf(LinearObjective& objective, const LokoOptimizer& loko, int rank) {
  double precision = 1 / covarianceOf(objective, loko)[0];
  const Vector factor = factorValuesOf(objective, loko);
  for (int i = 0; i < rank; ++i) precision += factor[i] * factor[i];
  return 1 / precision;
}

}  // namespace

TEST_SUITE("iterated update and adaptive gain") {
  void equalsDenseMode(Precision precision, double confidence) {
    const int n = 9, m = 5, target = 3;
    const double p0 = 0.75;
    Random random(31);
    LinearObjective objective(precision, random.vector(n, 0.1), random.matrix(m, n));
    objective.offset[0] = confidence;
    const DenseMode dense(objective, p0, target);
    const Vector prior = objective.theta();
    LokoOptimizer loko = makeLoko(objective, iterated(p0));
    const StepResult result = loko.step(objective, label(target));
    CHECK(result.skipped == SkipReason::kNone);
    CHECK(result.trustScale == 1);
    // The steps end where the value can fall by less than 1e-6, a deviation of sqrt(2e-6) at most; each
    // Newton step before squares the error, so that most ends are far closer.
    CHECK(relativeError(objective.theta(), dense.theta) < 2e-3);
    CHECK(relativeError(covarianceOf(objective, loko), diagonalOf(dense.covariance)) < 2e-3);
  }
  TEST_CASE(
      "one step from a diagonal prior is the mode and Laplace covariance of logistic regression") {
    for (const double confidence : {0.0, 3.0, 30.0}) {
      CAPTURE(confidence);
      equalsDenseMode(Precision::kDouble, confidence);
      equalsDenseMode(Precision::kFloat, confidence);
    }
  }

  TEST_CASE("a confident error is corrected and not overshot, where the linear update overshoots") {
    Random random(32);
    const int n = 40, m = 4;
    const Matrix slope = random.matrix(m, n);
    const auto marginAfter = [&](Update update) {
      LinearObjective objective(Precision::kDouble, Vector(n, 0.0), slope);
      objective.offset = {20, 0, 0, 0};
      LokoOptions options = iterated(10);
      options.update = update;
      options.trustRegion = HUGE_VAL;
      LokoOptimizer loko = makeLoko(objective, options);
      loko.step(objective, label(1));
      Vector z;
      objective.forward(z);
      return z[1] - z[0];
    };
    CHECK(marginAfter(Update::kIterated) > 0);
    CHECK(marginAfter(Update::kIterated) < 10);
    CHECK(marginAfter(Update::kLinear) > 100);
  }

  TEST_CASE("with little variance the iterated update is the linear one") {
    Random random(33);
    const Matrix slope = random.matrix(5, 9);
    const auto after = [&](Update update) {
      LinearObjective objective(Precision::kDouble, Vector(9, 0.0), slope);
      objective.offset = {0.5, -0.2, 0.1, 0, 0.3};
      LokoOptions options = iterated(1e-6);
      options.update = update;
      LokoOptimizer loko = makeLoko(objective, options);
      loko.step(objective, label(2));
      return objective.theta();
    };
    // The forms differ in the second order of M, about 9e-6 here; so does the Newton step that is left out
    // below the tolerance.
    CHECK(relativeError(after(Update::kIterated), after(Update::kLinear)) < 1e-4);
  }

  TEST_CASE("slopes that are chance leave the gain nearly alone, also where one is huge") {
    Random random(35);
    AdaptiveGain gain;
    double log = 0;
    for (int i = 0; i < 2000; ++i)
      log += std::log(gain.observe((i == 700 ? 1e6 : 1) * random.normal(), 100));
    // The rate upwards is twice that downwards: the mean of |t| beyond the band, 0.17 for a normal t, leaves a
    // drift of (0.06 - 0.03) * 0.17 / 2 a sample, and the sum wanders by about as much.
    CHECK(std::fabs(log) < 2 * 2000 * 0.03 * 0.17 / 2);
  }

  TEST_CASE(
      "slopes of one sign raise or lower the gain by e within 20 samples, and not without end") {
    AdaptiveGain growing, falling;
    double up = 0, down = 0;
    for (int i = 0; i < 20; ++i) {
      up += std::log(growing.observe(0.1, 100));
      down += std::log(falling.observe(-0.1, 100));
    }
    CHECK(up > 1);
    CHECK(down < -0.5);
    for (int i = 0; i < 1000; ++i) {
      up += std::log(growing.observe(0.1, 100));
      down += std::log(falling.observe(-0.1, 100));
    }
    CHECK(up == doctest::Approx(4.6).epsilon(1e-9));
    CHECK(down == doctest::Approx(-3).epsilon(1e-9));
  }

  TEST_CASE(
      "where nothing is left to gain the gain stays, however sure the slopes are of their sign") {
    AdaptiveGain gain;
    double log = 0;
    for (int i = 0; i < 500; ++i) log += std::log(gain.observe(1e-8, 1e-6));
    // At most 0.18 a sample, times loss / (loss + 0.1).
    CHECK(log < 500 * 0.18 * 1e-5);
  }

  TEST_CASE("a p0 that is far too small still moves, so that the gain has something to follow") {
    Random random(38);
    LinearObjective objective(Precision::kDouble, Vector(7, 0.0), random.matrix(3, 7));
    LokoOptions options = iterated(1e-10);
    options.gain = Gain::kAdaptive;
    LokoOptimizer loko = makeLoko(objective, options);
    StepResult result;
    for (int i = 0; i < 60; ++i) result = loko.step(objective, label(1));
    CHECK(objective.theta() != Vector(7, 0.0));
    CHECK(result.gain > 10);
  }

  /// theta after `steps` samples with every covariance of the filter scaled by e^c, at a fixed gain.
  Vector thetaAfter(int steps, double c, const std::vector<Matrix>& slopes, int rank) {
    LinearObjective objective(Precision::kDouble, Vector(slopes[0].cols, 0.0), slopes[0]);
    LokoOptimizer loko = makeLoko(objective, iteratedOfRank(0.3 * std::exp(c), rank));
    for (int i = 0; i < steps; ++i) {
      objective.slope = slopes[i];
      CHECK(loko.step(objective, label(i % 3)).skipped == SkipReason::kNone);
    }
    return objective.theta();
  }

  TEST_CASE(
      "the sensitivity of the first step is the derivative of theta by the log of the covariance") {
    // Of one step exactly (central differences); of more, p after a step is taken as given, so that only the
    // first is compared. Where c is 0 the gain is that of the prior.
    Random random(37);
    const std::vector<Matrix> slopes = {random.matrix(3, 7), random.matrix(3, 7)};
    const double h = 1e-5;
    const Vector up = thetaAfter(1, h, slopes, 0), down = thetaAfter(1, -h, slopes, 0);
    for (const int rank : {0, 2}) {
      CAPTURE(rank);
      LinearObjective objective(Precision::kDouble, Vector(7, 0.0), slopes[0]);
      LokoOptions options = iteratedOfRank(0.3, rank);
      options.gain = Gain::kAdaptive;
      LokoOptimizer loko = makeLoko(objective, options);
      loko.step(objective, label(0));
      const Vector p = covarianceOf(objective, loko);
      const Vector factor = factorValuesOf(objective, loko);
      for (int j = 0; j < 7; ++j) {
        const double expected = AdaptiveGain::kMemory * (up[j] - down[j]) / (2 * h);
        // The mode is found to a deviation of about 1e-6 of the step; the quotient of differences to h^2.
        CHECK(factor[rank * 7 + j] * p[j] == doctest::Approx(expected).epsilon(1e-3));
      }
    }
  }

  TEST_CASE("slopes of the deviation that are chance take little of it back, whatever their size") {
    for (const double size : {1e-3, 1e-2, 0.1, 1.0}) {
      CAPTURE(size);
      Random random(39);
      DeviationScale scale;
      double log = 0;
      for (int i = 0; i < 4000; ++i) log += std::log1p(scale.observe(size * random.normal(), 1));
      // By simulation of the rule in NumPy, means of five runs: 2e-4, 1.9e-3, 7e-4 and 6e-5 a sample.
      CHECK(log < 0);
      CHECK(log > -4000 * 0.003);
    }
  }

  TEST_CASE("a deviation that does harm is taken back, one that helps grows by a percent at most") {
    DeviationScale harmful, helpful;
    double fall = 0, growth = 0;
    for (int i = 0; i < 20; ++i) {
      const double down = harmful.observe(-0.5, 0), up = helpful.observe(0.5, 1);
      CHECK(down <= 0);
      CHECK(down >= -0.5);
      CHECK(up >= 0);
      CHECK(up <= 0.01);
      fall += std::log1p(down);
      growth += std::log1p(up);
    }
    CHECK(fall < -1);
    CHECK(growth > 0.1);
    // A Newton step answers all slopes so far: what was taken back is not taken back again for them.
    DeviationScale once;
    double change = 0;
    for (int i = 0; i < 10; ++i) change = once.observe(-2, 1);
    CHECK(change < 0);
    CHECK(once.observe(0, 1) > 0.2 * change);
    // Where nothing is left to gain it does not grow.
    CHECK(helpful.observe(0.5, 0) == 0);
  }

  TEST_CASE(
      "a step moves by the update and by its share of the deviation, which is carried beside it") {
    // One parameter: the covariance is a number, and the dense mode from it is the update.
    for (const int rank : {0, 1}) {
      CAPTURE(rank);
      Random random(40);
      const double start = 0.2;
      LinearObjective objective(Precision::kDouble, Vector(1, start), random.matrix(3, 1));
      LokoOptions options = iteratedOfRank(0.5, rank);
      options.gain = Gain::kAdaptive;
      LokoOptimizer loko = makeLoko(objective, options);
      bool fell = false, grew = false;
      for (int i = 0; i < 120; ++i) {
        // Learnable, then random, so that what was learned does harm.
        objective.slope = random.matrix(3, 1);
        const int target = i < 40 ? (objective.slope(0, 0) > objective.slope(1, 0) ? 0 : 1)
                                  : static_cast<int>(1e6 * std::fabs(random.normal())) % 3;
        const double before = objective.theta()[0], p = varianceOf(objective, loko, rank);
        const DenseMode dense(objective, p, target);
        const StepResult result = loko.step(objective, label(target));
        REQUIRE(result.skipped == SkipReason::kNone);
        const double expected = dense.theta[0] + result.stretch * (before - start);
        CHECK(objective.theta()[0] == doctest::Approx(expected).epsilon(2e-3));
        fell = fell || result.stretch < -1e-3;
        grew = grew || result.stretch > 1e-3;
        const Vector factor = factorValuesOf(objective, loko);
        CHECK(factor[rank + 1] * covarianceOf(objective, loko)[0] ==
              doctest::Approx(objective.theta()[0] - start).epsilon(1e-9));
      }
      CHECK(fell);
      CHECK(grew);
    }
  }

  TEST_CASE("a frozen group stays frozen while the gain adapts") {
    Random random(36);
    LinearObjective objective(Precision::kFloat, Vector(6, 0.0), random.matrix(3, 6));
    LokoOptions options = iterated(0.1);
    options.gain = Gain::kAdaptive;
    options.p0 = {};
    options.p0.kind = InitialCovariance::Kind::kPerGroup;
    options.p0.head = 0.1;
    LokoOptimizer loko(objective.backend(), 6, 3, options,
                       {{0, 3, ParameterGroup::kLoraA}, {3, 6, ParameterGroup::kHead}});
    for (int i = 0; i < 40; ++i) {
      objective.offset = {8, 0, 0};  // always the same confident error
      loko.step(objective, label(1));
    }
    const Vector theta = objective.theta(), p = covarianceOf(objective, loko);
    for (int i = 0; i < 3; ++i) {
      CHECK(theta[i] == 0);
      CHECK(p[i] == 0);
      CHECK(theta[i + 3] != 0);
    }
  }
}
