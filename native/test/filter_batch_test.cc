// Batches: the samples are one observation of the filter, against dense algebra in parameter space.

#include "core/softmax.h"
#include "filter_testing.h"

using namespace loko;
using namespace loko::test;

namespace {

/// z_b = J_b theta + offset_b.
class BatchObjective : public FormulaObjective {
 public:
  BatchObjective(Precision precision, const Vector& theta, std::vector<Matrix> jacobians)
      : FormulaObjective(precision, jacobians[0].rows, theta),
        slopes(std::move(jacobians)),
        offsets(slopes.size(), Vector(static_cast<std::size_t>(slopes[0].rows), 0.0)) {
    batch_ = static_cast<int>(slopes.size());
    backend().reserveJacobian(std::int64_t{outputs()} * batch_, parameters());
  }

  /// All rows, of the first sample first.
  Matrix stacked() const {
    Matrix all(outputs() * batch(), slopes[0].cols);
    all.values.clear();
    for (const Matrix& slope : slopes) {
      all.values.insert(all.values.end(), slope.values.begin(), slope.values.end());
    }
    return all;
  }

  std::vector<Matrix> slopes;
  std::vector<Vector> offsets;

 protected:
  Vector evaluate(int sample, const Vector& theta) override {
    Vector z = slopes[sample] * theta;
    for (std::size_t c = 0; c < z.size(); ++c) z[c] += offsets[sample][c];
    return z;
  }
  Matrix differentiate(int sample, const Vector&) override { return slopes[sample]; }
};

Targets labelsOf(std::vector<int> labels) {
  Targets targets;
  targets.labels = std::move(labels);
  return targets;
}

std::vector<Matrix> drawn(Random& random, int count, int m, int n) {
  std::vector<Matrix> result;
  for (int i = 0; i < count; ++i) result.push_back(random.matrix(m, n));
  return result;
}

constexpr double kTolerance[] = {1e-10, 2e-5};  // of Precision::kDouble, kFloat

}  // namespace

TEST_SUITE("batches") {
  TEST_CASE("one step is the full Kalman filter's with the rows of all samples") {
    const int n = 11, m = 2;
    const std::vector<int> labels = {1, 0, 1};
    for (const Precision precision : {Precision::kDouble, Precision::kFloat}) {
      const double tolerance = kTolerance[static_cast<int>(precision)];
      for (const Covariance covariance : {Covariance::kFdekf, Covariance::kLowRank}) {
        Random random(61);
        BatchObjective objective(precision, random.vector(n, 0.1), drawn(random, 3, m, n));
        FullFilter dense{objective.theta(), 0.75 * Matrix::identity(n)};
        const Matrix h = objective.stacked();
        Vector innovation = h * objective.theta();
        for (double& value : innovation) value = -value;
        for (int b = 0; b < 3; ++b) innovation[b * m + labels[b]] += 1;
        dense.update(h, 0.5 * Matrix::identity(h.rows), innovation);

        LokoOptimizer loko = makeLoko(objective, fixedNoise(covariance, 6));
        const StepResult result = loko.step(objective, labelsOf(labels));
        REQUIRE(result.skipped == SkipReason::kNone);
        CHECK(result.rows == m);
        CHECK(result.predicted.size() == 3);
        CHECK(relativeError(objective.theta(), dense.mean) < tolerance);
        if (covariance == Covariance::kFdekf) {
          CHECK(relativeError(covarianceOf(objective, loko), diagonalOf(dense.covariance)) <
                tolerance);
        }
      }
    }
  }

  TEST_CASE("while the rank holds all that was seen, a batch equals its samples one by one") {
    const int n = 12, m = 2, count = 4;
    Random random(62);
    const Vector theta = random.vector(n, 0.1);
    const std::vector<Matrix> slopes = drawn(random, count, m, n);
    BatchObjective batch(Precision::kDouble, theta, slopes);
    LokoOptimizer together = makeLoko(batch, fixedNoise(Covariance::kLowRank, m * count));
    together.step(batch, labelsOf({0, 1, 1, 0}));
    LinearObjective single(Precision::kDouble, theta, slopes[0]);
    LokoOptimizer apart = makeLoko(single, fixedNoise(Covariance::kLowRank, m * count));
    for (int i = 0; i < count; ++i) {
      single.slope = slopes[i];
      apart.step(single, label(i == 1 || i == 2 ? 1 : 0));
    }
    CHECK(relativeError(batch.theta(), single.theta()) < 1e-10);
  }

  TEST_CASE("the iterated update of a batch is the mode of the likelihood of all its samples") {
    const int n = 9, m = 4;
    const double p0 = 0.75;
    const std::vector<int> labels = {3, 0, 3};
    for (const Precision precision : {Precision::kDouble, Precision::kFloat}) {
      Random random(63);
      BatchObjective objective(precision, random.vector(n, 0.1), drawn(random, 3, m, n));
      objective.offsets[1] = {-6, 6, 0, 0};  // a confident error
      const Vector prior = objective.theta();
      LokoOptimizer loko = makeLoko(objective, iterated(p0));
      REQUIRE(loko.step(objective, labelsOf(labels)).skipped == SkipReason::kNone);
      // There the gradient of the posterior is 0: theta - prior = p0 sum_b J_b^T (y_b - pi_b).
      std::vector<double> logits;
      objective.forward(logits);
      Vector expected(n, 0.0);
      for (int b = 0; b < 3; ++b) {
        Vector pi(m), e(m);
        softmax(logits.data() + b * m, m, pi.data());
        for (int c = 0; c < m; ++c) e[c] = (c == labels[b] ? 1 : 0) - pi[c];
        const Vector gradient = transpose(objective.slopes[b]) * e;
        for (int i = 0; i < n; ++i) expected[i] += p0 * gradient[i];
      }
      Vector moved = objective.theta();
      for (int i = 0; i < n; ++i) moved[i] -= prior[i];
      // The steps end where the value can fall by less than 1e-6 (filter/posterior_mode.cc).
      CHECK(relativeError(moved, expected) < 2e-3);
    }
  }

  TEST_CASE("the estimated noise of a batch of copies is that of one") {
    const int n = 9, m = 4;
    Random random(64);
    const Vector theta = random.vector(n, 0.1);
    const Matrix slope = random.matrix(m, n);
    LokoOptions options;
    options.p0 = uniform(0.1);
    options.rank = exactRank();
    const auto noiseAfter = [&](int copies) {
      BatchObjective objective(Precision::kDouble, theta, std::vector<Matrix>(copies, slope));
      LokoOptimizer loko = makeLoko(objective, options);
      REQUIRE(loko.step(objective, labelsOf(std::vector<int>(copies, 2))).skipped ==
              SkipReason::kNone);
      return loko.state().noise.matrix();
    };
    CHECK(relativeError(noiseAfter(3), noiseAfter(1)) < 1e-12);
  }

  TEST_CASE("the order of the samples of a batch does not matter, with every observation") {
    const int n = 15, m = 4;
    for (const bool adaptive : {false, true}) {
      for (const Observation observation :
           {Observation::kSoftmax, Observation::kCategorical, Observation::kLogits}) {
        if (adaptive && observation != Observation::kCategorical) continue;
        LokoOptions options;
        options.observation = observation;
        if (adaptive) {
          options.update = Update::kIterated;
          options.gain = Gain::kAdaptive;
          options.covariance = Covariance::kLowRank;
        }
        const auto thetaAfter = [&](std::vector<int> order) {
          Random random(65);
          const Vector theta = random.vector(n, 0.1);
          const std::vector<Matrix> slopes = drawn(random, 3, m, n);
          std::vector<Matrix> permuted;
          std::vector<int> labels;
          for (const int i : order) {
            permuted.push_back(slopes[i]);
            labels.push_back(i);
          }
          BatchObjective objective(Precision::kDouble, theta, permuted);
          for (std::size_t b = 0; b < order.size(); ++b) {
            // A sure sample and an undecided one: they need different numbers of rows.
            objective.offsets[b] = {order[b] == 0 ? 8.0 : 0.0, 0, 0, 0};
          }
          LokoOptimizer loko = makeLoko(objective, options);
          for (int step = 0; step < 3; ++step) {
            CHECK(loko.step(objective, labelsOf(labels)).skipped == SkipReason::kNone);
          }
          return objective.theta();
        };
        CHECK(relativeError(thetaAfter({2, 0, 1}), thetaAfter({0, 1, 2})) < 1e-6);
      }
    }
  }
}
