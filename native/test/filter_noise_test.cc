// The observation noise R, process noise and the first variance, against hand numbers, fixed points
// of scalar filters, and the definition of each rule.

#include <limits>

#include "filter_testing.h"

namespace loko::test {
namespace {

/// A random walk of variance q per step seen through unit noise: y_t = theta_t + v_t, R = 1.
struct Averages {
  double noise = 0, nis = 0;
};

Averages followRandomWalk(NoiseMode mode, double q) {
  LinearObjective objective(Precision::kDouble, {0}, Matrix::identity(1));
  LokoOptions options;
  options.observation = Observation::kRegression;
  options.noise = mode;
  if (mode != NoiseMode::kFixed) options.beta = 0.999;
  options.r0 = 1;
  options.q = q;
  options.pMax = 1e6;
  options.p0 = uniform(1);
  LokoOptimizer loko = makeLoko(objective, options);
  Random random(5);
  double state = 0;
  Averages sum;
  const int steps = 200000, burnIn = 20000;
  for (int t = 0; t < steps; ++t) {
    state += std::sqrt(q) * random.normal();
    const StepResult result = loko.step(objective, values({state + random.normal()}));
    if (t < burnIn) continue;
    sum.noise += result.traceR / (steps - burnIn);
    sum.nis += result.nis / (steps - burnIn);
  }
  return sum;
}

}  // namespace

TEST_SUITE("filter noise") {
  TEST_CASE("residual noise finds the true R, and a correct filter has unit NIS") {
    CHECK(relativeError({followRandomWalk(NoiseMode::kResidual, 0.1).noise}, {1}) < 0.02);
    CHECK(relativeError({followRandomWalk(NoiseMode::kFixed, 0.1).nis}, {1}) < 0.02);
  }
  TEST_CASE("EMA noise settles at R plus twice the predicted variance") {
    const double q = 0.1;
    // Fixed point R' = E[e^2] + P for a filter that believes R': P is its own predicted variance,
    // V the true one under its gain. Where both agree this is R + 2 P.
    double believed = 1, p = 0, v = 0;
    for (int i = 0; i < 1000; ++i) {
      p = 0.5 * (q + std::sqrt(q * q + 4 * q * believed));
      const double gain = p / (p + believed);
      v = (q + gain * gain) / (1 - (1 - gain) * (1 - gain));
      believed = v + 1 + p;
    }
    CHECK(believed > 1.5);
    CHECK(relativeError({followRandomWalk(NoiseMode::kEma, q).noise}, {believed}) < 0.02);
  }

  TEST_CASE("the first EMA noise is made before the gain: hand numbers") {
    // z = 0, two classes: pi = 1/2, e = (1/2, -1/2), C = [1 -1; -1 1]/4, J = I, p = 2:
    // H = C, M = 2 C C = C. R = .95 * .1 I + .05 (e e^T + C) = .095 I + .05 [.5 -.5; -.5 .5].
    LinearObjective objective(Precision::kDouble, {0, 0}, Matrix::identity(2));
    LokoOptions options = LokoOptions::paper();
    options.p0 = uniform(2);
    LokoOptimizer loko = makeLoko(objective, options);
    const StepResult result = loko.step(objective, label(0));
    const Vector r = loko.state().noise.matrix();
    CHECK(r[0] == doctest::Approx(0.12).epsilon(1e-14));
    CHECK(r[1] == doctest::Approx(-0.025).epsilon(1e-14));
    CHECK(r[2] == r[1]);
    CHECK(r[3] == doctest::Approx(0.12).epsilon(1e-14));
    CHECK(result.traceR == doctest::Approx(0.24).epsilon(1e-14));
    // Along u = (1, -1)/sqrt 2: M_k = 1/2, R_k = .145, e_k = 1/sqrt 2, so S = .645 and
    // delta = p H^T u = 2 * (1/2) u e_k / S = (1/2, -1/2) / .645.
    CHECK(objective.theta()[0] == doctest::Approx(0.5 / 0.645).epsilon(1e-14));
    CHECK(objective.theta()[1] == doctest::Approx(-0.5 / 0.645).epsilon(1e-14));
    CHECK(result.nis == doctest::Approx(0.5 / 0.645).epsilon(1e-14));
  }

  TEST_CASE("R stays symmetric and positive semidefinite through a stream") {
    const int n = 12, m = 5;
    Random random(6);
    LinearObjective objective(Precision::kFloat, random.vector(n), Matrix(m, n));
    LokoOptions options = LokoOptions::paper();
    options.p0 = uniform(0.5);
    LokoOptimizer loko = makeLoko(objective, options);
    for (int t = 0; t < 200; ++t) {
      objective.slope = random.matrix(m, n);
      loko.step(objective, label(random.below(m)));
      Matrix r(m, m);
      r.values = loko.state().noise.matrix();
      for (int i = 0; i < m; ++i)
        for (int j = 0; j < m; ++j) CHECK(r(i, j) == r(j, i));
      for (int trial = 0; trial < 5; ++trial) {
        const Vector x = random.vector(m), rx = r * x;
        double form = 0;
        for (int i = 0; i < m; ++i) form += x[i] * rx[i];
        CHECK(form > 0);
      }
    }
  }

  TEST_CASE("residual noise takes the posterior residual and variance, one forward pass more") {
    // Scalar: H = 1, p = 1, R = r0 = .5, y = 3: S = 1.5, theta = 2, e+ = 1, p+ = 1/3.
    LinearObjective objective(Precision::kDouble, {0}, Matrix::identity(1));
    LokoOptions options = regression(1, 0.5);
    options.noise = NoiseMode::kResidual;
    LokoOptimizer loko = makeLoko(objective, options);
    const StepResult result = loko.step(objective, values({3}));
    CHECK(result.traceR == 0.5);
    CHECK(loko.state().noise.trace() ==
          doctest::Approx(0.95 * 0.5 + 0.05 * (1 + 1.0 / 3)).epsilon(1e-14));
    CHECK(objective.forwards == 2);
  }

  void processNoise(Precision precision) {
    // Coordinate 1 is never observed: it grows by gamma^2 p + q only, up to the cap.
    const double p0 = 0.5, gamma = 0.75, q = 0.25, cap = 0.5625;
    LinearObjective objective(precision, {0, 0}, Matrix(1, 2));
    objective.slope(0, 0) = 1;
    LokoOptions options = regression(p0, 1);
    options.gamma = gamma;
    options.q = q;
    options.pMax = cap;
    LokoOptimizer loko = makeLoko(objective, options);
    // The state holds the prior of the next step, so the first prediction is in it already.
    double expected = gamma * gamma * p0 + q, observed = expected;
    for (int t = 0; t < 6; ++t) {
      const Vector p = covarianceOf(objective, loko);
      CHECK(p[1] == doctest::Approx(expected).epsilon(1e-6));
      CHECK(p[0] == doctest::Approx(observed).epsilon(1e-6));
      loko.step(objective, values({1}));
      observed = std::min(cap, gamma * gamma * observed / (1 + observed) + q);
      expected = std::min(cap, gamma * gamma * expected + q);
    }
    CHECK(expected == cap);
  }
  TEST_CASE("process noise grows the variance of unseen parameters up to the cap") {
    processNoise(Precision::kDouble);
    processNoise(Precision::kFloat);
  }
  TEST_CASE("an infinite cap is none, and noise beyond float32 skips steps instead of breaking p") {
    LinearObjective objective(Precision::kFloat, {0, 0}, Matrix(1, 2));
    objective.slope(0, 0) = 1;
    LokoOptions options = regression(0.5, 1);
    options.q = 100;
    options.pMax = std::numeric_limits<double>::infinity();
    LokoOptimizer free = makeLoko(objective, options);
    for (int t = 0; t < 3; ++t) free.step(objective, values({1}));
    CHECK(covarianceOf(objective, free)[1] == 400.5);
    options.qRatio = 1e300;
    LokoOptimizer broken = makeLoko(objective, options);
    CHECK(broken.step(objective, values({1})).skipped != SkipReason::kNone);
  }
  TEST_CASE("the reported variances are those after the update, before the next process noise") {
    // p = 3 meets h = 1, R = 1: p+ = 3 - 9 / 4; the stored one is the prior of the next step.
    LinearObjective objective(Precision::kDouble, {0}, Matrix::identity(1));
    LokoOptions options = regression(1, 1);
    options.q = 2;
    LokoOptimizer loko = makeLoko(objective, options);
    const StepResult result = loko.step(objective, values({1}));
    CHECK(result.p.mean == doctest::Approx(0.75).epsilon(1e-14));
    CHECK(covarianceOf(objective, loko)[0] == doctest::Approx(2.75).epsilon(1e-14));
  }
  TEST_CASE("before any step was applied the reported variances are the initial ones") {
    LinearObjective objective(Precision::kDouble, {0, 0, 0, 0}, Matrix(1, 4));
    LokoOptions options = regression(1, 1);
    options.p0.kind = InitialCovariance::Kind::kPerGroup;
    options.p0.loraA = 1;
    options.p0.head = 5;
    LokoOptimizer loko(objective.backend(), 4, 1, options,
                       {{0, 3, ParameterGroup::kLoraA}, {3, 4, ParameterGroup::kHead}});
    const StepResult result = loko.step(objective, values({1}));
    CHECK(result.skipped == SkipReason::kZeroJacobian);
    CHECK(result.p.mean == 2);
    CHECK(result.p.min == 1);
    CHECK(result.p.max == 5);
  }
  TEST_CASE("relative process noise is a share of p0, and the default cap ten times p0") {
    LinearObjective objective(Precision::kDouble, {0, 0}, Matrix(1, 2));
    objective.slope(0, 0) = 1;
    LokoOptions options = regression(0.5, 1);
    options.qRatio = 1.0;
    LokoOptimizer loko = makeLoko(objective, options);
    CHECK(covarianceOf(objective, loko)[1] == 1);
    for (int t = 0; t < 20; ++t) loko.step(objective, values({1}));
    CHECK(covarianceOf(objective, loko)[1] == 5);
  }

  /// p0 that each automatic rule must choose, from its definition with dense matrices.
  double expectedVariance(Observation observation, const LinearObjective& objective,
                          const Vector& z, double tau) {
    const int m = static_cast<int>(z.size());
    double sum = 0;
    Vector pi(m);
    for (int c = 0; c < m; ++c) sum += pi[c] = std::exp(z[c]);
    for (double& p : pi) p /= sum;
    const Matrix c = Matrix::diagonal(pi) - outer(pi, pi);
    Matrix h = objective.slope;
    double numerator = m;
    if (observation == Observation::kSoftmax) {
      h = c * objective.slope;
      const Vector d = diagonalOf(c);
      numerator = 0;
      for (const double v : d) numerator += v;
    } else if (observation == Observation::kCategorical) {
      h = (Matrix::identity(m) - (1.0 / m) * outer(Vector(m, 1.0), Vector(m, 1.0))) * h;
      numerator = m - 1;
    }
    double squares = 0;
    for (const double v : h.values) squares += v * v;
    return tau * numerator / squares;
  }
  TEST_CASE("the automatic variance follows its rule for every observation and is reported") {
    const int n = 7, m = 4;
    for (const Observation observation : {Observation::kSoftmax, Observation::kCategorical,
                                          Observation::kLogits, Observation::kRegression}) {
      const bool probabilities =
          observation == Observation::kSoftmax || observation == Observation::kCategorical;
      Random random(8);
      const Vector theta = random.vector(n);
      const Matrix slope = random.matrix(m, n);
      const Targets targets =
          observation == Observation::kRegression ? values(random.vector(m)) : label(1);
      LokoOptions options;
      options.observation = observation;
      options.p0.tau = 3;
      if (probabilities) options.rank = exactRank();

      LinearObjective objective(Precision::kDouble, theta, slope);
      LokoOptimizer loko = makeLoko(objective, options);
      const StepResult result = loko.step(objective, targets);
      // p0 is rounded to float32.
      CHECK(relativeError({result.p0},
                          {expectedVariance(observation, objective, slope * theta, 3)}) < 1e-7);
      CHECK(result.p.max <= result.p0);

      // The same number given goes the same way.
      LinearObjective again(Precision::kDouble, theta, slope);
      options.p0 = uniform(result.p0);
      LokoOptimizer given = makeLoko(again, options);
      given.step(again, targets);
      CHECK(relativeError(again.theta(), objective.theta()) < 1e-12);
      CHECK(relativeError(covarianceOf(again, given), covarianceOf(objective, loko)) < 1e-12);
    }
  }
}

}  // namespace loko::test
