// The iterated categorical update and the adaptive gain, against dense algebra in parameter space and
// streams whose right answer is known.

#include "core/softmax.h"
#include "filter/adaptive_gain.h"
#include "filter_testing.h"

using namespace loko;
using namespace loko::test;

namespace {

LokoOptions iterated(double p0) {
  LokoOptions options;
  options.observation = Observation::kCategorical;
  options.rank = exactRank();
  options.p0 = uniform(p0);
  options.update = Update::kIterated;
  return options;
}

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

/// What a stream of predictions does to a gain: the log of how much mean(p) is scaled in all.
struct Plasticity {
  AdaptiveGain gain;
  double log = 0;

  explicit Plasticity(int outputs) { gain.start(outputs); }
  void see(const Vector& pi, int target, const Evidence& evidence, double relativeMean = 1) {
    Vector e(pi.size());
    for (std::size_t c = 0; c < e.size(); ++c) e[c] = -pi[c];
    e[target] += 1;
    const CovarianceChange change = gain.observe(pi, e, evidence, relativeMean);
    log += std::log(change.factor + change.share);
  }
};

constexpr Evidence kFits{1, 1};

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

  TEST_CASE("the evidence is the prior's norm of the step and the trace of what was determined") {
    const int n = 9, m = 5, target = 3;
    const double p0 = 0.75;
    Random random(34);
    LinearObjective objective(Precision::kDouble, random.vector(n, 0.1), random.matrix(m, n));
    const DenseMode dense(objective, p0, target);
    CotangentBasis basis;  // e_c - mean, orthonormalised: Helmert
    basis.rows = m - 1;
    basis.outputs = m;
    basis.scale.assign(m - 1, 1);
    for (int i = 1; i < m; ++i) {
      const double norm = std::sqrt(static_cast<double>(i) * (i + 1));
      for (int c = 0; c < m; ++c) {
        basis.vectors.push_back(c < i ? 1 / norm : c == i ? -i / norm : 0);
      }
    }
    Matrix u(m - 1, m);
    u.values = basis.vectors;
    const Matrix g = u * objective.slope;
    Vector z;
    objective.forward(z);
    KalmanGain gain;
    Evidence evidence;
    REQUIRE(solvePosteriorMode({z, target}, basis, (p0 * g * transpose(g)).values,
                               Covariance::kFdekf, gain, evidence));
    double energy = 0, determined = n;
    const Vector prior = objective.theta();
    for (int i = 0; i < n; ++i) {
      energy += (dense.theta[i] - prior[i]) * (dense.theta[i] - prior[i]) / p0;
      determined -= dense.covariance(i, i) / p0;
    }
    CHECK(evidence.energy == doctest::Approx(energy).epsilon(5e-3));
    CHECK(evidence.determined == doctest::Approx(determined).epsilon(5e-3));
  }

  TEST_CASE("errors that are drawn from the predictions leave the gain nearly alone") {
    Random random(35);
    Plasticity plasticity(4);
    for (int i = 0; i < 2000; ++i) {
      const Vector pi = probabilities(random.vector(4, 1.5));
      double left = std::fmod(std::fabs(random.normal()) * 1e4, 1.0);
      int target = 0;
      while (target < 3 && (left -= pi[target]) > 0) ++target;
      plasticity.see(pi, target, kFits);
    }
    // Twenty samples of chance beyond the band, not a trend: e^1 in 2,000 samples either way.
    CHECK(std::fabs(plasticity.log) < 1.5);
  }

  TEST_CASE(
      "errors that come back let p grow within 50 samples, and those that turn around let it "
      "fall") {
    Plasticity growing(3), falling(2);
    const Vector sure = {0.9, 0.05, 0.05};
    for (int i = 0; i < 50; ++i) {
      growing.see(sure, 1, kFits);
      falling.see({0.5, 0.5}, i % 2, kFits);
    }
    CHECK(growing.log > std::log(10.0));
    CHECK(falling.log < 0);
  }

  TEST_CASE(
      "p falls when the samples confirm less than half of what it promises, whatever the errors") {
    Plasticity plasticity(3);
    for (int i = 0; i < 50; ++i) plasticity.see({0.9, 0.05, 0.05}, 1, {0.1, 1});
    CHECK(plasticity.log < -1);
    // But not below a tenth of p0 in the mean.
    Plasticity small(3);
    for (int i = 0; i < 50; ++i) small.see({0.9, 0.05, 0.05}, 1, {0.1, 1}, 0.05);
    CHECK(small.log == 0);
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
