// The direction in which the head is more or less sure of itself, against dense algebra in parameter space and a
// stream whose right answer is known.

#include "core/softmax.h"
#include "filter_testing.h"

using namespace loko;
using namespace loko::test;

namespace {

constexpr double kVariance = 0.1;  // v at the beginning: docs/filter.md

/// Parameters [0, head) are an adapter's and biases elsewhere, the others are the head.
std::vector<ParameterRange> rangesOf(int head, int parameters) {
  return {{0, head / 2, ParameterGroup::kLoraA},
          {head / 2, head, ParameterGroup::kBias},
          {head, parameters, ParameterGroup::kHead}};
}

LokoOptimizer makeWithHead(FormulaObjective& objective, const LokoOptions& options, int head) {
  const int n = static_cast<int>(objective.parameters());
  return LokoOptimizer(objective.backend(), n, objective.outputs(), options, rangesOf(head, n));
}

LokoOptions adaptive(double p0, int rank) {
  LokoOptions options = iterated(p0);
  options.gain = Gain::kAdaptive;
  options.covariance = Covariance::kLowRank;
  options.covarianceRank = rank;
  return options;
}

/// theta with 0 before `head`.
Vector headOf(Vector theta, int head) {
  std::fill_n(theta.begin(), head, 0.0);
  return theta;
}

Matrix curvature(const Vector& z) {
  Vector pi(z.size());
  softmax(z.data(), static_cast<int>(z.size()), pi.data());
  return Matrix::diagonal(pi) - outer(pi, pi);
}

/// The mode of -log softmax(J theta)_target under the prior N(theta0, covariance), by Newton's method.
Vector denseMode(const Matrix& j, const Vector& prior, const Matrix& covariance, int target) {
  const Matrix precision = inverse(covariance);
  Vector theta = prior;
  for (int step = 0; step < 100; ++step) {
    const Vector z = j * theta;
    Vector pi(z.size()), e(z.size()), away(theta.size());
    softmax(z.data(), static_cast<int>(z.size()), pi.data());
    for (std::size_t c = 0; c < z.size(); ++c) e[c] = (static_cast<int>(c) == target) - pi[c];
    for (std::size_t i = 0; i < theta.size(); ++i) away[i] = theta[i] - prior[i];
    Vector gradient = transpose(j) * e;
    const Vector pull = precision * away;
    for (std::size_t i = 0; i < theta.size(); ++i) gradient[i] -= pull[i];
    const Vector direction = inverse(precision + transpose(j) * curvature(z) * j) * gradient;
    for (std::size_t i = 0; i < theta.size(); ++i) theta[i] += direction[i];
  }
  return theta;
}

}  // namespace

TEST_SUITE("scale of the head") {
  TEST_CASE("one step is the mode under the prior p0 I + v h h^T, and v falls by what it saw") {
    const int n = 9, m = 4, head = 4, target = 2;
    for (const Precision precision : {Precision::kDouble, Precision::kFloat}) {
      Random random(71);
      LinearObjective objective(precision, random.vector(n), random.matrix(m, n));
      const Vector prior = objective.theta(), h = headOf(prior, head);
      LokoOptimizer loko = makeWithHead(objective, adaptive(0.05, 6), head);
      const Vector dense = denseMode(objective.slope, prior,
                                     0.05 * Matrix::identity(n) + kVariance * outer(h, h), target);
      REQUIRE(loko.step(objective, label(target)).skipped == SkipReason::kNone);
      // As for the mode without a head: filter_adaptive_test.cc.
      CHECK(relativeError(objective.theta(), dense) < 2e-3);
      const Vector seen = objective.slope * h;
      const Vector curved = curvature(objective.slope * objective.theta()) * seen;
      double information = 0;
      for (int c = 0; c < m; ++c) information += seen[c] * curved[c];
      const double expected = kVariance / (1 + kVariance * information) / 0.99;
      REQUIRE(expected < kVariance);
      CHECK(loko.state().head.variance() == doctest::Approx(expected).epsilon(1e-4));
    }
  }

  TEST_CASE(
      "below a head that is less sure, the covariance is that of parameters in larger units") {
    const int n = 9, m = 4, head = 4, rank = 6;
    for (const Precision precision : {Precision::kDouble, Precision::kFloat}) {
      Random random(75);
      // Logits of some units, and a label that has the least of them.
      LinearObjective objective(precision, random.vector(n, 2), random.matrix(m, n));
      const Vector prior = objective.theta(), h = headOf(prior, head), z = objective.slope * prior;
      const int target = static_cast<int>(std::min_element(z.begin(), z.end()) - z.begin());
      LokoOptimizer loko = makeWithHead(objective, adaptive(0.05, rank), head);
      REQUIRE(loko.step(objective, label(target)).skipped == SkipReason::kNone);

      const Vector moved = objective.theta();
      const Vector mode = denseMode(objective.slope, prior,
                                    0.05 * Matrix::identity(n) + kVariance * outer(h, h), target);
      Vector left = objective.slope * mode, pi(m);
      softmax(left.data(), m, pi.data());
      for (int c = 0; c < m; ++c) left[c] = (c == target) - pi[c];
      const Vector slope = transpose(objective.slope) * left;
      double alpha = 0;  // the share of h in Sigma G^T a, a = y - pi at the mode
      for (int i = 0; i < n; ++i) alpha += kVariance * h[i] * slope[i];
      REQUIRE(alpha < -0.05);
      REQUIRE(alpha > -0.7);

      Matrix units = Matrix::identity(n);
      for (int i = 0; i < head; ++i) units(i, i) = 1 / (1 + alpha);
      const Matrix precisionAfter =
          20 * Matrix::identity(n) +
          transpose(objective.slope) * curvature(objective.slope * mode) * objective.slope;
      const Matrix expected = units * inverse(precisionAfter) * units;
      const Vector p = covarianceOf(objective, loko), factor = factorValuesOf(objective, loko);
      Matrix kept(n, n);
      for (int i = 0; i < n; ++i) kept(i, i) = 1 / p[i];
      for (int row = 0; row < rank; ++row) {
        const Vector w(factor.begin() + row * n, factor.begin() + (row + 1) * n);
        kept = kept + outer(w, w);
      }
      // As for the mode, which the covariance follows: the first test.
      CHECK(relativeError(inverse(kept).values, expected.values) < 2e-3);

      // What was moved is what it was, in whatever units.
      Vector away(n), row(n);
      for (int i = 0; i < n; ++i) {
        away[i] = moved[i] - prior[i] - alpha * h[i];
        row[i] = p[i] * factor[(rank + 1) * n + i];
      }
      CHECK(relativeError(row, away) < 2e-3);
    }
  }

  TEST_CASE("the variance below follows the scale in steps, between 0.3 and its inverse") {
    HeadScale head;
    CHECK(head.growthBelow(100) == 1);
    head.start();
    head.observe(-0.04, kVariance);
    CHECK(head.growthBelow(100) == 1);
    head.observe(-0.04, kVariance);
    CHECK(head.growthBelow(100) == doctest::Approx(1 / (0.92 * 0.92)).epsilon(1e-12));
    CHECK(head.growthBelow(100) == 1);
    head.observe(-0.32, kVariance);  // 0.6
    CHECK(head.growthBelow(2) == doctest::Approx(2).epsilon(1e-12));
    CHECK(head.growthBelow(100) == doctest::Approx(0.92 * 0.92 / 0.36 / 2).epsilon(1e-12));
    head.observe(-5, kVariance);
    CHECK(head.growthBelow(100) == doctest::Approx(4).epsilon(1e-12));
    CHECK(head.growthBelow(100) == 1);
    head.observe(50, kVariance);
    CHECK(head.growthBelow(100) == doctest::Approx(0.3 * 0.3 * 0.3 * 0.3).epsilon(1e-12));
  }

  TEST_CASE("a cap that is below p0 is no reason to shrink what is below the head") {
    // Also where there is no such scale: the cap is of process noise and of an adaptive gain.
    const int n = 9, m = 4, head = 4;
    const auto run = [&](LokoOptions options, bool capped) {
      Random random(76);
      LinearObjective objective(Precision::kDouble, random.vector(n), random.matrix(m, n));
      if (capped) options.pMax = 0.02;
      LokoOptimizer loko = makeWithHead(objective, options, head);
      for (int step = 0; step < 30; ++step) {
        objective.slope = random.matrix(m, n);
        REQUIRE(loko.step(objective, label(random.below(m))).skipped == SkipReason::kNone);
      }
      return covarianceOf(objective, loko);
    };
    for (const Covariance covariance :
         {Covariance::kFdekf, Covariance::kVdekf, Covariance::kLowRank}) {
      LokoOptions fixed = iterated(0.05);
      fixed.covariance = covariance;
      CHECK(sameBits(run(fixed, true), run(fixed, false)));
    }
    HeadScale scale;
    scale.start();
    scale.observe(-0.3, kVariance);
    CHECK(scale.growthBelow(0.4) == 1);
  }

  TEST_CASE("theta is where it began, what was moved and the scale of the head, at any cap of p") {
    // Labels that nothing explains make the head less sure and p grow below it; then there is something to learn, and the
    // gain grows as far as it may.
    const int inputs = 3, hidden = 4, m = 3, head = hidden * inputs, rank = 4;
    const int n = TanhNetwork::size(inputs, hidden, m);
    const double p0 = 0.0625;  // as are the caps, a number of float32
    for (const double cap : {0.0, 1.25 * p0, 0.5 * p0}) {
      CAPTURE(cap);
      Random random(77);
      TanhNetwork network(Precision::kDouble, inputs, hidden, m, random.vector(n, 2));
      const Vector prior = network.theta(), h = headOf(prior, head);
      LokoOptions options = adaptive(p0, rank);
      if (cap > 0) options.pMax = cap;
      LokoOptimizer loko = makeWithHead(network, options, head);
      double largest = 0;
      for (int step = 0; step < 500; ++step) {
        const Vector x = random.vector(inputs);
        network.setBatch({x});
        const int target = step < 200 ? random.below(m) : x[0] > 0;
        REQUIRE(loko.step(network, label(target)).skipped == SkipReason::kNone);
        const Vector p = covarianceOf(network, loko);
        largest = std::max(largest, *std::max_element(p.begin(), p.end()));
      }
      const double most = cap > 0 ? cap : 100 * p0;
      CHECK(largest <= most);
      CHECK(largest > 0.99 * most);
      const Vector p = covarianceOf(network, loko), factor = factorValuesOf(network, loko);
      const Vector theta = network.theta();
      const double alpha = entryOf(loko, network, "head_scale") - 1;
      Vector away(n), moved(n), kept(n);
      for (int i = 0; i < n; ++i) {
        away[i] = theta[i] - prior[i] - alpha * h[i];
        moved[i] = p[i] * factor[(rank + 1) * n + i];
        kept[i] = p[i] * factor[(rank + 2) * n + i];
      }
      // Numbers that leave a backend as float32, and the rounding of 500 updates.
      CHECK(relativeError(moved, away) < 1e-5);
      CHECK(relativeError(kept, h) < 1e-5);
    }
  }

  TEST_CASE("the direction stays the head that the filter began with, whatever p and the gain do") {
    const int n = 9, m = 4, head = 4, rank = 3;
    Random random(72);
    LinearObjective objective(Precision::kDouble, random.vector(n), random.matrix(m, n));
    const Vector h = headOf(objective.theta(), head);
    LokoOptions options = adaptive(0.05, rank);
    options.p0 = {};  // chosen at the first step
    LokoOptimizer loko = makeWithHead(objective, options, head);
    for (int step = 0; step < 40; ++step) {
      objective.slope = random.matrix(m, n);
      REQUIRE(loko.step(objective, label(random.below(m))).skipped == SkipReason::kNone);
    }
    CHECK(loko.state().gain.total() != 1);
    const Vector p = covarianceOf(objective, loko), factor = factorValuesOf(objective, loko);
    Vector kept(n);
    for (int i = 0; i < n; ++i) kept[i] = p[i] * factor[(rank + 2) * n + i];
    // theta leaves a backend as float32: half a unit in its last place.
    CHECK(relativeError(kept, h) < 6e-8);
    CHECK(loko.state().head.variance() > 0);
    CHECK(loko.state().head.variance() <= kVariance);
  }

  TEST_CASE("a head whose p0 is 0 is not scaled either") {
    const int n = 9, m = 4, head = 4;
    Random random(73);
    LinearObjective objective(Precision::kDouble, random.vector(n), random.matrix(m, n));
    const Vector before = headOf(objective.theta(), head);
    LokoOptions options = adaptive(0, 3);
    options.p0.kind = InitialCovariance::Kind::kPerGroup;
    options.p0.loraA = options.p0.loraB = 0.05;
    LokoOptimizer loko = makeWithHead(objective, options, head);
    for (int step = 0; step < 10; ++step) loko.step(objective, label(step % m));
    CHECK(sameBits(headOf(objective.theta(), head), before));
  }

  TEST_CASE("a model that is right and too sure of itself learns that, and little else") {
    // Labels are drawn from softmax(z / 6).
    const int n = 60, m = 5;
    const auto run = [&](bool known, double& movedAcross) {
      Random random(74);
      LinearObjective objective(Precision::kDouble, random.vector(n), random.matrix(m, n));
      const Vector h = objective.theta();
      LokoOptimizer loko = known ? makeWithHead(objective, adaptive(0.01, 6), 0)
                                 : makeLoko(objective, adaptive(0.01, 6));
      double loss = 0;
      for (int step = 0; step < 300; ++step) {
        objective.slope = random.matrix(m, n, 0.8);
        Vector z = objective.slope * h;
        int target = 0;
        for (int c = 0; c < m; ++c) {
          z[c] = z[c] / 6 - std::log(-std::log((random.below(1 << 20) + 0.5) / (1 << 20)));
          if (z[c] > z[target]) target = c;
        }
        loss += loko.step(objective, label(target)).loss / 300;
      }
      double along = 0, squares = 0;
      const Vector theta = objective.theta();
      for (int i = 0; i < n; ++i) {
        along += theta[i] * h[i];
        squares += h[i] * h[i];
      }
      movedAcross = 0;
      for (int i = 0; i < n; ++i) {
        const double across = theta[i] - along / squares * h[i];
        movedAcross += across * across / squares;
      }
      return loss;
    };
    double across = 0, acrossWithout = 0;
    const double loss = run(true, across), without = run(false, acrossWithout);
    CHECK(loss < 0.8 * without);
    CHECK(across < 0.5 * acrossWithout);
  }
}
