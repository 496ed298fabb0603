// The covariance that is diagonal plus low rank, against dense Kalman filters.

#include "filter/symmetric_eigen.h"
#include "filter_testing.h"

using namespace loko;
using namespace loko::test;

namespace {

LokoOptions lowRank(int rank, double p0) {
  LokoOptions options = fixedNoise(Covariance::kLowRank, rank);
  options.p0 = uniform(p0);
  return options;
}

Matrix factorOf(FormulaObjective& objective, const LokoOptimizer& loko, int rank) {
  Matrix w(rank, static_cast<int>(objective.parameters()));
  w.values = factorValuesOf(objective, loko);
  w.values.resize(static_cast<std::size_t>(rank) *
                  static_cast<std::size_t>(objective.parameters()));
  return w;
}

/// (diag(1/p) + W^T W)^-1.
Matrix covarianceMatrix(FormulaObjective& objective, const LokoOptimizer& loko, int rank) {
  Vector precision = covarianceOf(objective, loko);
  for (double& value : precision) value = 1 / value;
  const Matrix w = factorOf(objective, loko, rank);
  return inverse(Matrix::diagonal(precision) + transpose(w) * w);
}

}  // namespace

TEST_SUITE("low-rank covariance") {
  TEST_CASE(
      "while the rank holds all that was seen, it is the full Kalman filter, mean and covariance") {
    // Five steps of two outputs have rank 10.
    const int n = 14, m = 2, rank = 10;
    for (const Precision precision : {Precision::kDouble, Precision::kFloat}) {
      const double tolerance = precision == Precision::kDouble ? 1e-10 : 2e-5;
      Random random(51);
      LinearObjective objective(precision, random.vector(n, 0.1), random.matrix(m, n));
      LokoOptimizer loko = makeLoko(objective, lowRank(rank, 0.75));
      FullFilter dense{objective.theta(), 0.75 * Matrix::identity(n)};
      for (int step = 0; step < 5; ++step) {
        CAPTURE(step);
        objective.slope = random.matrix(m, n);
        Vector innovation = objective.slope * objective.theta();
        for (double& value : innovation) value = -value;
        innovation[step % m] += 1;
        dense.update(objective.slope, 0.5 * Matrix::identity(m), innovation);
        REQUIRE(loko.step(objective, label(step % m)).skipped == SkipReason::kNone);
        CHECK(relativeError(objective.theta(), dense.mean) < tolerance);
        CHECK(relativeError(covarianceMatrix(objective, loko, rank).values,
                            dense.covariance.values) < tolerance);
      }
    }
  }

  TEST_CASE(
      "beyond the rank, the largest directions are kept and the diagonal of the precision is "
      "exact") {
    const int n = 12, m = 3, rank = 4;
    Random random(52);
    LinearObjective objective(Precision::kDouble, random.vector(n, 0.1), random.matrix(m, n));
    LokoOptimizer loko = makeLoko(objective, lowRank(rank, 0.75));
    Matrix precision = (1 / 0.75) * Matrix::identity(n);
    for (int step = 0; step < 6; ++step) {
      objective.slope = random.matrix(m, n);
      loko.step(objective, label(step % m));
      precision = precision + (1 / 0.5) * (transpose(objective.slope) * objective.slope);
      // What is dropped goes to the diagonal: that of the precision loses nothing.
      const Matrix kept = inverse(covarianceMatrix(objective, loko, rank));
      CHECK(relativeError(diagonalOf(kept), diagonalOf(precision)) < 1e-10);
    }
    // And the off-diagonal part is nearer to the whole than that of a diagonal filter, which has none.
    const Matrix kept = inverse(covarianceMatrix(objective, loko, rank));
    double left = 0, whole = 0;
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) {
        if (i == j) continue;
        left += std::pow(kept(i, j) - precision(i, j), 2);
        whole += std::pow(precision(i, j), 2);
      }
    }
    CHECK(left < 0.5 * whole);
  }

  TEST_CASE(
      "it exceeds neither the prior nor, after the first step, what one pass over the data "
      "allows") {
    const int n = 9, m = 3;
    Random random(53);
    for (const int rank : {1, 2, 5}) {
      LinearObjective objective(Precision::kFloat, random.vector(n, 0.1), random.matrix(m, n));
      LokoOptimizer loko = makeLoko(objective, lowRank(rank, 0.75));
      Vector before(n, 0.75);
      for (int step = 0; step < 50; ++step) {
        objective.slope = random.matrix(m, n);
        CHECK(loko.step(objective, label(step % m)).skipped == SkipReason::kNone);
        const Vector now = covarianceOf(objective, loko);
        for (int i = 0; i < n; ++i) {
          CHECK(now[i] > 0);
          CHECK(now[i] <= before[i]);
        }
        before = now;
      }
    }
  }

  TEST_CASE(
      "a sample again and again, and a rank beyond what there is, are learned from at every step") {
    const int n = 40, m = 4;
    Random random(56);
    for (const int rank : {16, 256}) {
      LinearObjective objective(Precision::kFloat, random.vector(n, 0.1), random.matrix(m, n));
      LokoOptimizer loko = makeLoko(objective, lowRank(rank, 0.75));
      for (int step = 0; step < 100; ++step) {
        if (step % 10 == 9) objective.slope = random.matrix(m, n);
        CHECK(loko.step(objective, label(step % m)).skipped == SkipReason::kNone);
      }
    }
  }

  TEST_CASE("an adaptive gain scales the whole covariance") {
    // The same sample again and again, confidently wrong: the slope is positive, and the covariance that is left
    // after a step is that of the step times the factor.
    const int n = 8, m = 3, rank = 3;
    Random random(54);
    const Matrix slope = random.matrix(m, n, 0.05);
    LinearObjective fixed(Precision::kDouble, Vector(n, 0.0), slope);
    LinearObjective adaptive(Precision::kDouble, Vector(n, 0.0), slope);
    LokoOptions options = lowRank(rank, 1e-3);
    options.observation = Observation::kCategorical;
    options.noise.reset();
    options.r0.reset();
    options.update = Update::kIterated;
    LokoOptimizer calm = makeLoko(fixed, options);
    options.gain = Gain::kAdaptive;
    LokoOptimizer plastic = makeLoko(adaptive, options);
    for (int step = 0; step < 12; ++step) {
      calm.step(fixed, label(1));
      plastic.step(adaptive, label(1));
    }
    const Vector slow = covarianceMatrix(fixed, calm, rank).values,
                 fast = covarianceMatrix(adaptive, plastic, rank).values;
    CHECK(fast[0] > 1.3 * slow[0]);
    for (std::size_t i = 0; i < slow.size(); ++i) {
      // Nearly the same samples at such a small gain: one common factor.
      CHECK(fast[i] * slow[0] ==
            doctest::Approx(slow[i] * fast[0]).epsilon(0.02).scale(slow[0] * fast[0]));
    }
  }

  TEST_CASE(
      "eigenpairs are right to rounding, for zeros, multiples and magnitudes of many decades too") {
    Random random(55);
    for (const int k : {1, 2, 3, 17, 26, 60}) {
      for (const int kind : {0, 1, 2, 3, 4}) {
        CAPTURE(k);
        CAPTURE(kind);
        Matrix b = random.matrix(k, k);
        for (int i = 0; i < k; ++i) {
          for (int j = 0; j < k; ++j) {
            if (kind == 1 && i >= k / 2) b(i, j) = 0;
            if (kind == 2) b(i, j) *= std::pow(10.0, i % 7);
            if (kind == 3 && j >= 3) b(i, j) = 0;                     // rank 3
            if (kind == 4) b(i, j) *= std::pow(10.0, -80 * (i % 3));  // squares underflow
          }
        }
        const Matrix a = b * transpose(b);
        Eigenpairs pairs;
        REQUIRE(symmetricEigenpairs(a.values, k, pairs));
        Matrix q(k, k);
        q.values = pairs.vectors;
        double largest = 0;
        for (const double value : a.values) largest = std::max(largest, std::fabs(value));
        const Matrix again = transpose(q) * Matrix::diagonal(pairs.values) * q,
                     one = q * transpose(q);
        // Backward stable: a small multiple of k times the unit roundoff.
        for (int i = 0; i < k; ++i) {
          if (i > 0) CHECK(pairs.values[i] <= pairs.values[i - 1]);
          for (int j = 0; j < k; ++j) {
            CHECK(std::fabs(again(i, j) - a(i, j)) <= 1e-15 * 4 * k * largest);
            CHECK(std::fabs(one(i, j) - (i == j ? 1 : 0)) <= 1e-15 * 4 * k);
          }
        }
      }
    }
    Eigenpairs pairs;
    CHECK_FALSE(symmetricEigenpairs({1, NAN, NAN, 1}, 2, pairs));
  }
}
