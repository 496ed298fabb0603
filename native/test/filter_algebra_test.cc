// The filter against exact algebra: textbook Kalman filters with a full covariance, batch Bayes, and
// identities between its own modes. Tolerances: 1e-10 in double, where both sides differ by rounding
// of small well-conditioned systems only; 1e-4 in float32, where theta, p and G carry 6e-8 each and a
// few tens of steps or a gain of a few hundred may amplify it. Initial variances are exact in float32:
// the optimizer rounds them, so that its own arithmetic and a float32 backend use the same number.

#include "filter_testing.h"

namespace loko::test {
namespace {

double tolerance(Precision precision) {
  return precision == Precision::kDouble ? 1e-10 : 1e-4;
}

Vector plus(Vector a, const Vector& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}

Vector minus(Vector a, const Vector& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] -= b[i];
  return a;
}

Vector softmaxOf(const Vector& z) {
  Vector pi(z.size());
  double sum = 0;
  for (std::size_t c = 0; c < z.size(); ++c) sum += pi[c] = std::exp(z[c]);
  for (double& p : pi) p /= sum;
  return pi;
}

Vector oneHot(int label, int m) {
  Vector y(m, 0.0);
  y[label] = 1;
  return y;
}

Matrix covarianceOfSoftmax(const Vector& pi) {
  return Matrix::diagonal(pi) - outer(pi, pi);
}

Matrix withoutRow(const Matrix& a, int dropped) {
  Matrix result(a.rows - 1, a.cols);
  for (int i = 0, to = 0; i < a.rows; ++i) {
    if (i == dropped) continue;
    for (int j = 0; j < a.cols; ++j) result(to, j) = a(i, j);
    ++to;
  }
  return result;
}

Matrix withoutClass(const Matrix& square, int dropped) {
  return transpose(withoutRow(transpose(withoutRow(square, dropped)), dropped));
}

Vector withoutEntry(Vector v, int dropped) {
  v.erase(v.begin() + dropped);
  return v;
}

/// Softmax observation, every informative row, nothing in the way of the plain update.
LokoOptions plainSoftmax(double p0) {
  LokoOptions options = LokoOptions::paper();
  options.p0 = uniform(p0);
  return options;
}

LokoOptions plainCategorical(double p0) {
  LokoOptions options;
  options.observation = Observation::kCategorical;
  options.rank = exactRank();
  options.trustRegion = HUGE_VAL;
  options.p0 = uniform(p0);
  return options;
}

}  // namespace

TEST_SUITE("filter algebra") {
  void selectorEqualsKalman(Precision precision) {
    const int n = 12, m = 4;
    Random random(1);
    LinearObjective objective(precision, random.vector(n), Matrix(m, n));
    LokoOptimizer loko = makeLoko(objective, regression(0.75, 0.3));
    FullFilter full{objective.theta(), 0.75 * Matrix::identity(n)};
    for (int step = 0; step < 40; ++step) {
      Vector columns(n);
      for (int i = 0; i < n; ++i) columns[i] = i;
      for (int i = 0; i < m; ++i) std::swap(columns[i], columns[i + random.below(n - i)]);
      objective.slope = Matrix(m, n);
      for (int i = 0; i < m; ++i)
        objective.slope(i, static_cast<int>(columns[i])) = random.normal();
      const Vector y = random.vector(m);
      full.update(objective.slope, 0.3 * Matrix::identity(m),
                  minus(y, objective.slope * full.mean));
      CHECK(loko.step(objective, values(y)).skipped == SkipReason::kNone);
    }
    CHECK(relativeError(objective.theta(), full.mean) < tolerance(precision));
    CHECK(relativeError(covarianceOf(objective, loko), diagonalOf(full.covariance)) <
          tolerance(precision));
  }
  TEST_CASE("selecting observations equal the exact Kalman filter over many steps") {
    selectorEqualsKalman(Precision::kDouble);
    selectorEqualsKalman(Precision::kFloat);
  }

  void denseStepEqualsFull(Precision precision) {
    const int n = 9, m = 4;
    Random random(2);
    LinearObjective objective(precision, random.vector(n), random.matrix(m, n));
    LokoOptimizer loko = makeLoko(objective, regression(0.5, 0.2));
    FullFilter full{objective.theta(), 0.5 * Matrix::identity(n)};
    const auto step = [&] {
      const Vector y = random.vector(m);
      full.update(objective.slope, 0.2 * Matrix::identity(m),
                  minus(y, objective.slope * full.mean));
      loko.step(objective, values(y));
    };
    step();
    CHECK(relativeError(objective.theta(), full.mean) < tolerance(precision));
    CHECK(relativeError(covarianceOf(objective, loko), diagonalOf(full.covariance)) <
          tolerance(precision));
    // From here on the full covariance has off-diagonal entries that a diagonal filter forgets.
    objective.slope = random.matrix(m, n);
    step();
    CHECK(relativeError(objective.theta(), full.mean) > 1e-2);
    CHECK(relativeError(covarianceOf(objective, loko), diagonalOf(full.covariance)) > 1e-2);
  }
  TEST_CASE("one dense step from a diagonal prior equals the full filter, and two do not") {
    denseStepEqualsFull(Precision::kDouble);
    denseStepEqualsFull(Precision::kFloat);
  }

  void variationalPosterior(Precision precision) {
    const int n = 9, m = 4;
    Random random(3);
    const Vector theta = random.vector(n);
    const Matrix slope = random.matrix(m, n);
    const Vector y = random.vector(m);
    LokoOptions options = regression(0.5, 0.2);
    LinearObjective fully(precision, theta, slope), variational(precision, theta, slope);
    LokoOptimizer fdekf = makeLoko(fully, options);
    options.covariance = Covariance::kVdekf;
    LokoOptimizer vdekf = makeLoko(variational, options);
    fdekf.step(fully, values(y));
    vdekf.step(variational, values(y));
    CHECK(sameBits(fully.theta(), variational.theta()));

    const Matrix precisionMatrix =
        2.0 * Matrix::identity(n) + 5.0 * (transpose(slope) * slope);  // 1/p0 and 1/r0
    Vector expected = diagonalOf(precisionMatrix);
    for (double& v : expected) v = 1 / v;
    const Vector pVariational = covarianceOf(variational, vdekf),
                 pFully = covarianceOf(fully, fdekf);
    CHECK(relativeError(pVariational, expected) < tolerance(precision));
    for (int i = 0; i < n; ++i) {
      CHECK(0 < pVariational[i]);
      CHECK(pVariational[i] <= pFully[i]);
      CHECK(pFully[i] <= 0.5);
    }
  }
  TEST_CASE("VDEKF inverts the diagonal of the posterior precision and stays below FDEKF") {
    variationalPosterior(Precision::kDouble);
    variationalPosterior(Precision::kFloat);
  }
  TEST_CASE("the categorical VDEKF inverts the diagonal of the posterior precision") {
    const int n = 9, m = 5;
    Random random(31);
    LinearObjective objective(Precision::kDouble, random.vector(n), random.matrix(m, n));
    LokoOptions options = plainCategorical(0.5);
    options.covariance = Covariance::kVdekf;
    LokoOptimizer loko = makeLoko(objective, options);
    const Matrix c = covarianceOfSoftmax(softmaxOf(objective.slope * objective.theta()));
    loko.step(objective, label(2));
    Vector expected =
        diagonalOf(2.0 * Matrix::identity(n) + transpose(objective.slope) * c * objective.slope);
    for (double& v : expected) v = 1 / v;
    CHECK(relativeError(covarianceOf(objective, loko), expected) < 1e-10);
  }

  void equalsBatchBayes(Precision precision) {
    const int n = 5, steps = 60;
    const double p0 = 2, r = 0.4;
    Random random(4);
    LinearObjective objective(precision, Vector(n, 0.0), Matrix(1, n));
    LokoOptimizer loko = makeLoko(objective, regression(p0, r));
    Vector information(n, 1 / p0), weighted(n, 0.0);
    Matrix features(steps, n);
    Vector targets(steps);
    double logPredictive = 0;
    for (int t = 0; t < steps; ++t) {
      const int feature = random.below(n);
      const double y = random.normal();
      objective.slope = Matrix(1, n);
      objective.slope(0, feature) = features(t, feature) = 1 + 0.5 * random.normal();
      targets[t] = y;
      information[feature] += objective.slope(0, feature) * objective.slope(0, feature) / r;
      weighted[feature] += objective.slope(0, feature) * y / r;
      const StepResult result = loko.step(objective, values({y}));
      const double e = y - result.logits[0], s = e * e / result.nis;
      logPredictive -= 0.5 * (std::log(2 * M_PI * s) + e * e / s);
    }
    Vector mean(n), variance(n);
    for (int i = 0; i < n; ++i) {
      mean[i] = weighted[i] / information[i];
      variance[i] = 1 / information[i];
    }
    CHECK(relativeError(objective.theta(), mean) < tolerance(precision));
    CHECK(relativeError(covarianceOf(objective, loko), variance) < tolerance(precision));

    // y ~ N(0, p0 X X^T + r I): features touch one column each, so its density factors by column.
    double logMarginal = 0;
    for (int i = 0; i < n; ++i) {
      double xx = 0, xy = 0, yy = 0;
      int count = 0;
      for (int t = 0; t < steps; ++t) {
        if (features(t, i) == 0) continue;
        xx += features(t, i) * features(t, i);
        xy += features(t, i) * targets[t];
        yy += targets[t] * targets[t];
        ++count;
      }
      const double grown = 1 + p0 * xx / r;  // determinant lemma and Woodbury
      logMarginal -= 0.5 * (count * std::log(2 * M_PI * r) + std::log(grown) +
                            (yy - p0 * xy * xy / (r * grown)) / r);
    }
    CHECK(logPredictive == doctest::Approx(logMarginal).epsilon(tolerance(precision)));
  }
  TEST_CASE("one-hot regression equals the batch Bayes posterior and its marginal likelihood") {
    equalsBatchBayes(Precision::kDouble);
    equalsBatchBayes(Precision::kFloat);
  }

  Vector oneByOne(const Vector& theta, const Matrix& slope, const Vector& y,
                  const std::vector<int>& order, Vector& p) {
    LinearObjective objective(Precision::kDouble, theta, Matrix(1, slope.cols));
    LokoOptimizer loko = makeLoko(objective, regression(0.5, 0.2));
    for (const int row : order) {
      for (int j = 0; j < slope.cols; ++j) objective.slope(0, j) = slope(row, j);
      loko.step(objective, values({y[row]}));
    }
    p = covarianceOf(objective, loko);
    return objective.theta();
  }
  TEST_CASE("scalar updates in sequence equal the joint one only for rows without common columns") {
    const int n = 8, m = 3;
    Random random(5);
    const Vector theta = random.vector(n), y = random.vector(m);
    Matrix disjoint(m, n);
    for (int j = 0; j < n; ++j) disjoint(j % m, j) = random.normal();
    for (const bool dense : {false, true}) {
      const Matrix slope = dense ? random.matrix(m, n) : disjoint;
      LinearObjective objective(Precision::kDouble, theta, slope);
      LokoOptimizer loko = makeLoko(objective, regression(0.5, 0.2));
      loko.step(objective, values(y));
      Vector forwardP, backwardP;
      const Vector forward = oneByOne(theta, slope, y, {0, 1, 2}, forwardP);
      const Vector backward = oneByOne(theta, slope, y, {2, 1, 0}, backwardP);
      const Vector joint = objective.theta(), jointP = covarianceOf(objective, loko);
      if (dense) {
        CHECK(relativeError(minus(forward, theta), minus(joint, theta)) > 1e-2);
        CHECK(relativeError(minus(forward, theta), minus(backward, theta)) > 1e-2);
        CHECK(relativeError(forwardP, jointP) > 1e-3);
      } else {
        CHECK(relativeError(forward, joint) < 1e-12);
        CHECK(relativeError(backward, joint) < 1e-12);
        CHECK(relativeError(forwardP, jointP) < 1e-12);
      }
    }
  }

  void limitsOfNoise(Precision precision) {
    const int n = 7, m = 3;
    Random random(6);
    const Vector theta = random.vector(n), y = random.vector(m);
    const Matrix slope = random.matrix(m, n);
    LinearObjective deaf(precision, theta, slope);
    const Vector before = deaf.theta();
    LokoOptimizer ignoring = makeLoko(deaf, regression(0.5, 1e20));
    ignoring.step(deaf, values(y));
    CHECK(relativeError(deaf.theta(), before) < 1e-15);

    LinearObjective keen(precision, theta, slope);
    LokoOptimizer trusting = makeLoko(keen, regression(0.5, 1e-12));
    trusting.step(keen, values(y));
    // Three equations, seven unknowns: an exact sensor is met exactly.
    CHECK(relativeError(slope * keen.theta(), y) <
          (precision == Precision::kDouble ? 1e-10 : 1e-5));

    LokoOptions options = regression(0, 0.2);
    options.p0.kind = InitialCovariance::Kind::kPerGroup;
    options.p0.loraA = 0;
    options.p0.loraB = 0.5;
    LinearObjective partly(precision, theta, slope);
    LokoOptimizer frozen(partly.backend(), n, m, options,
                         {{0, 3, ParameterGroup::kLoraA}, {3, n, ParameterGroup::kLoraB}});
    for (int t = 0; t < 5; ++t) frozen.step(partly, values(random.vector(m)));
    const Vector after = partly.theta(), p = covarianceOf(partly, frozen);
    for (int i = 0; i < n; ++i) {
      CHECK((after[i] == before[i]) == (i < 3));
      CHECK((p[i] == 0) == (i < 3));
    }
  }
  TEST_CASE(
      "infinite noise moves nothing, no noise removes the residual, zero variance never moves") {
    limitsOfNoise(Precision::kDouble);
    limitsOfNoise(Precision::kFloat);
  }

  // Reference: class `dropped` left out, a regular system of m - 1 rows. For R = C it is the
  // pseudo-inverse; for an estimated R it needs the start r0 (I - 11^T/m), which is r0 I in the
  // orthogonal complement of the ones vector.
  struct Dropped {
    Vector theta, p;
    Matrix r;
    void update(const Matrix& slope, int target, int dropped, bool model) {
      const int m = slope.rows;
      const Vector pi = softmaxOf(slope * theta);
      const Matrix c = covarianceOfSoftmax(pi), h = c * slope, pDiagonal = Matrix::diagonal(p);
      const Vector e = minus(oneHot(target, m), pi);
      const Matrix spread = h * pDiagonal * transpose(h);
      r = model ? c : 0.95 * r + 0.05 * (outer(e, e) + spread);
      const Matrix kept = withoutRow(h, dropped);
      const Matrix gain = pDiagonal * transpose(kept) * inverse(withoutClass(spread + r, dropped));
      theta = plus(theta, gain * withoutEntry(e, dropped));
      p = minus(p, diagonalOf(gain * kept * pDiagonal));
    }
  };
  void softmaxEqualsDroppedClass(Precision precision, bool model) {
    const int n = 9, m = 5;
    for (const int dropped : {0, 3}) {
      Random random(7);
      LinearObjective objective(precision, random.vector(n), Matrix(m, n));
      LokoOptions options = plainSoftmax(0.5);
      if (model) options.noise = NoiseMode::kModel;
      LokoOptimizer loko = makeLoko(objective, options);
      Matrix centred = Matrix::identity(m) - (1.0 / m) * outer(Vector(m, 1.0), Vector(m, 1.0));
      Dropped reference{objective.theta(), Vector(n, 0.5), 0.1 * centred};
      for (int t = 0; t < 6; ++t) {
        objective.slope = random.matrix(m, n, 0.7);
        const int target = random.below(m);
        reference.update(objective.slope, target, dropped, model);
        loko.step(objective, label(target));
      }
      CHECK(relativeError(objective.theta(), reference.theta) < tolerance(precision));
      CHECK(relativeError(covarianceOf(objective, loko), reference.p) < tolerance(precision));
    }
  }
  TEST_CASE("the softmax basis equals dropping a class, whichever, for estimated and model noise") {
    for (const bool model : {false, true}) {
      softmaxEqualsDroppedClass(Precision::kDouble, model);
      softmaxEqualsDroppedClass(Precision::kFloat, model);
    }
  }

  void categoricalEqualsSoftmax(Precision precision, double limit) {
    const int n = 9, m = 6;
    Random random(8);
    const Vector theta = random.vector(n);
    LinearObjective left(precision, theta, Matrix(m, n)), right(precision, theta, Matrix(m, n));
    LokoOptions options = plainSoftmax(0.5);
    options.noise = NoiseMode::kModel;
    LokoOptimizer softmax = makeLoko(left, options);
    LokoOptimizer categorical = makeLoko(right, plainCategorical(0.5));
    for (int t = 0; t < 10; ++t) {
      left.slope = right.slope = random.matrix(m, n, 0.7);
      const int target = random.below(m);
      const StepResult a = softmax.step(left, label(target));
      const StepResult b = categorical.step(right, label(target));
      CHECK(a.nis == doctest::Approx(b.nis).epsilon(limit * 100));
    }
    CHECK(relativeError(left.theta(), right.theta()) < limit);
    CHECK(relativeError(covarianceOf(left, softmax), covarianceOf(right, categorical)) < limit);
  }
  TEST_CASE("the categorical form equals the softmax form with model noise") {
    categoricalEqualsSoftmax(Precision::kDouble, 1e-12);
    categoricalEqualsSoftmax(Precision::kFloat, 1e-5);
  }

  TEST_CASE("a permutation of the classes changes nothing") {
    const int n = 9, m = 6;
    const std::vector<int> permutation{3, 0, 5, 1, 4, 2};
    for (const LokoOptions& options : {plainSoftmax(0.5), plainCategorical(0.5)}) {
      Random random(9);
      const Vector theta = random.vector(n);
      LinearObjective left(Precision::kDouble, theta, Matrix(m, n));
      LinearObjective right(Precision::kDouble, theta, Matrix(m, n));
      LokoOptimizer plain = makeLoko(left, options), permuted = makeLoko(right, options);
      for (int t = 0; t < 10; ++t) {
        left.slope = random.matrix(m, n, 0.7);
        for (int c = 0; c < m; ++c)
          for (int j = 0; j < n; ++j) right.slope(permutation[c], j) = left.slope(c, j);
        const int target = random.below(m);
        plain.step(left, label(target));
        permuted.step(right, label(permutation[target]));
      }
      CHECK(relativeError(left.theta(), right.theta()) < 1e-12);
      CHECK(relativeError(covarianceOf(left, plain), covarianceOf(right, permuted)) < 1e-12);
    }
  }

  TEST_CASE("a constant added to all logits changes nothing") {
    const int n = 9, m = 6;
    for (const LokoOptions& options : {plainSoftmax(0.5), plainCategorical(0.5)}) {
      Random random(10);
      const Vector theta = random.vector(n);
      LinearObjective left(Precision::kDouble, theta, Matrix(m, n));
      LinearObjective right(Precision::kDouble, theta, Matrix(m, n));
      right.offset = Vector(m, 37.0);
      LokoOptimizer plain = makeLoko(left, options), shifted = makeLoko(right, options);
      for (int t = 0; t < 10; ++t) {
        left.slope = right.slope = random.matrix(m, n, 0.7);
        const int target = random.below(m);
        plain.step(left, label(target));
        shifted.step(right, label(target));
      }
      // 37 + z loses 5 bits of z.
      CHECK(relativeError(left.theta(), right.theta()) < 1e-12);
    }
  }

  TEST_CASE("two classes equal the scalar Bernoulli update") {
    const int n = 5;
    Random random(11);
    LinearObjective objective(Precision::kDouble, random.vector(n), Matrix(2, n));
    LokoOptions options = plainSoftmax(0.5);
    options.noise = NoiseMode::kModel;
    LokoOptimizer loko = makeLoko(objective, options);
    Vector theta = objective.theta(), p(n, 0.5);
    for (int t = 0; t < 10; ++t) {
      objective.slope = random.matrix(2, n);
      const int target = random.below(2);
      double z = 0, s = 0;
      Vector h(n);
      for (int j = 0; j < n; ++j) z += (objective.slope(1, j) - objective.slope(0, j)) * theta[j];
      const double pi = 1 / (1 + std::exp(-z)), variance = pi * (1 - pi);
      for (int j = 0; j < n; ++j) {
        h[j] = variance * (objective.slope(1, j) - objective.slope(0, j));
        s += h[j] * p[j] * h[j];
      }
      s += variance;
      for (int j = 0; j < n; ++j) {
        theta[j] += p[j] * h[j] * (target - pi) / s;
        p[j] -= p[j] * h[j] * h[j] * p[j] / s;
      }
      loko.step(objective, label(target));
    }
    CHECK(relativeError(objective.theta(), theta) < 1e-12);
    CHECK(relativeError(covarianceOf(objective, loko), p) < 1e-12);
  }

  TEST_CASE(
      "the categorical basis holds the innovation however few rows and however sure the model") {
    // pi falls by e^-20 from class to class and the label is the last: no eigenvector with a visible
    // eigenvalue points along e.
    const int m = 5;
    const Vector e{-1, 0, 0, 0, 1};
    for (const RankOption& rank : {RankOption{RankOption::Kind::kFixed, 0, 1}, RankOption{}}) {
      LinearObjective objective(Precision::kDouble, Vector(m, 0.0), Matrix::identity(m));
      for (int c = 0; c < m; ++c) objective.offset[c] = -20 * c;
      LokoOptions options = plainCategorical(0.5);
      options.rank = rank;
      LokoOptimizer loko = makeLoko(objective, options);
      CHECK(loko.step(objective, label(4)).rows <= 2);
      // C is of the order e^-20 = 2e-9, so the gain is e itself to that: theta = p e.
      const Vector theta = objective.theta();
      for (int c = 0; c < m; ++c) CHECK(std::fabs(theta[c] - 0.5 * e[c]) < 1e-8);
    }
  }

  TEST_CASE(
      "a sure and right prediction still moves the parameters by p times its tiny innovation") {
    // 1 - pi_0 = 2 e^-45 = 6e-20 is lost in pi_0 = 1, not in the sum of the others.
    LinearObjective objective(Precision::kDouble, {0, 0, 0}, Matrix::identity(3));
    objective.offset = {0, -45, -45};
    LokoOptimizer loko = makeLoko(objective, plainCategorical(0.5));
    loko.step(objective, label(0));
    const double a = std::exp(-45.0);
    CHECK(relativeError(objective.theta(), {a, -0.5 * a, -0.5 * a}) < 1e-12);
  }

  TEST_CASE("an innovation along an eigenvector leaves a fixed rank its last row") {
    // Classes 1 and 2 equal, the label is 0: e is the first eigenvector.
    LinearObjective left(Precision::kDouble, {0, 0, 0}, Matrix::identity(3));
    LinearObjective right(Precision::kDouble, {0, 0, 0}, Matrix::identity(3));
    left.offset = right.offset = {1, 0, 0};
    LokoOptions options = plainCategorical(0.5);
    LokoOptimizer exact = makeLoko(left, options);
    options.rank = RankOption{RankOption::Kind::kFixed, 0, 2};
    LokoOptimizer fixed = makeLoko(right, options);
    exact.step(left, label(0));
    CHECK(fixed.step(right, label(0)).rows == 2);
    CHECK(relativeError(covarianceOf(right, fixed), covarianceOf(left, exact)) < 1e-12);
  }

  TEST_CASE(
      "with little variance the categorical step is p times the gradient of the log likelihood") {
    const int n = 9, m = 6;
    Random random(12);
    const Vector theta = random.vector(n);
    LinearObjective objective(Precision::kDouble, theta, random.matrix(m, n));
    const double p0 = static_cast<double>(1e-9f);
    LokoOptimizer loko = makeLoko(objective, plainCategorical(p0));
    const Vector e = minus(oneHot(4, m), softmaxOf(objective.slope * theta));
    Vector expected = transpose(objective.slope) * e;
    loko.step(objective, label(4));
    Vector moved = minus(objective.theta(), theta);
    for (double& v : moved) v /= p0;
    // The next term of the gain is of the order p0 |J|^2; moved holds 7 digits of theta's rounding.
    CHECK(relativeError(moved, expected) < 1e-6);
  }
}

}  // namespace loko::test
