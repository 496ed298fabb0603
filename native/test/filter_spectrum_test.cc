// Eigenpairs of diag(pi) - pi pi^T against cyclic Jacobi rotations of the dense matrix, and against
// their defining equations where pi is too graded for a dense solver.

#include "filter/spectrum.h"
#include "filter_testing.h"

namespace loko::test {
namespace {

Vector probabilities(const Vector& z) {
  Vector pi(z.size());
  const double largest = *std::max_element(z.begin(), z.end());
  double sum = 0;
  for (std::size_t c = 0; c < z.size(); ++c) sum += pi[c] = std::exp(z[c] - largest);
  for (double& p : pi) p /= sum;
  return pi;
}

Vector jacobiEigenvalues(Matrix a) {
  const int n = a.rows;
  for (int sweep = 0; sweep < 60; ++sweep) {
    double off = 0;
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < i; ++j) off += a(i, j) * a(i, j);
    if (off < 1e-34) break;
    for (int p = 0; p < n; ++p) {
      for (int q = p + 1; q < n; ++q) {
        if (a(p, q) == 0) continue;
        const double ratio = (a(q, q) - a(p, p)) / (2 * a(p, q));
        const double t = (ratio >= 0 ? 1 : -1) / (std::fabs(ratio) + std::hypot(1, ratio));
        const double c = 1 / std::hypot(1, t), s = t * c;
        for (int i = 0; i < n; ++i) {
          const double x = a(i, p), y = a(i, q);
          a(i, p) = c * x - s * y;
          a(i, q) = s * x + c * y;
        }
        for (int i = 0; i < n; ++i) {
          const double x = a(p, i), y = a(q, i);
          a(p, i) = c * x - s * y;
          a(q, i) = s * x + c * y;
        }
      }
    }
  }
  Vector d = diagonalOf(a);
  std::sort(d.rbegin(), d.rend());
  return d;
}

struct Quality {
  double orthonormal = 0, ones = 0, residual = 0;
};

Quality quality(const SoftmaxSpectrum& spectrum, const Vector& pi) {
  const int m = static_cast<int>(pi.size());
  const auto u = [&](int i) { return spectrum.vectors().data() + static_cast<std::size_t>(i) * m; };
  Quality worst;
  for (int i = 0; i < spectrum.pairs(); ++i) {
    double sum = 0, mean = 0;
    for (int c = 0; c < m; ++c) {
      sum += u(i)[c];
      mean += pi[c] * u(i)[c];
    }
    worst.ones = std::max(worst.ones, std::fabs(sum));
    for (int j = 0; j <= i; ++j) {
      double product = i == j ? -1 : 0;
      for (int c = 0; c < m; ++c) product += u(i)[c] * u(j)[c];
      worst.orthonormal = std::max(worst.orthonormal, std::fabs(product));
    }
    for (int c = 0; c < m; ++c) {
      const double r = pi[c] * (u(i)[c] - mean) - spectrum.values()[i] * u(i)[c];
      worst.residual = std::max(worst.residual, std::fabs(r));
    }
  }
  return worst;
}

/// Logits of all the kinds that streams meet: smooth, saturated, tied, nearly tied.
Vector drawLogits(Random& random, int m, int kind) {
  const double scale = std::exp(3 * random.normal());
  Vector z = random.vector(m, scale);
  if (kind % 3 == 0)
    for (double& v : z) v = std::floor(v);
  if (kind % 5 == 0)
    for (double& v : z) v += 1e-13 * random.normal();
  if (kind % 7 == 0) z[random.below(m)] += 800;
  return z;
}

}  // namespace

TEST_SUITE("filter spectrum") {
  TEST_CASE(
      "eigenvalues equal those of Jacobi rotations on smooth, saturated and tied distributions") {
    Random random(1);
    SoftmaxSpectrum spectrum;
    for (int trial = 0; trial < 600; ++trial) {
      const int m = 2 + random.below(12);
      const Vector pi = probabilities(drawLogits(random, m, trial));
      spectrum.compute(pi, m, 2);
      REQUIRE(spectrum.pairs() == m - 1);
      const Vector expected = jacobiEigenvalues(Matrix::diagonal(pi) - outer(pi, pi));
      // The dense matrix has norm at most 1/2, and Jacobi is accurate to a few roundings of it.
      for (int i = 0; i < m - 1; ++i) CHECK(std::fabs(spectrum.values()[i] - expected[i]) < 4e-15);
      for (int i = 1; i < m - 1; ++i) CHECK(spectrum.values()[i] <= spectrum.values()[i - 1]);
    }
  }

  TEST_CASE("eigenvectors are orthonormal and orthogonal to ones on 3,000 distributions") {
    Random random(2);
    SoftmaxSpectrum spectrum;
    for (int trial = 0; trial < 3000; ++trial) {
      const int m = 2 + random.below(30);
      const Vector pi = probabilities(drawLogits(random, m, trial));
      spectrum.compute(pi, m, 2);
      const Quality worst = quality(spectrum, pi);
      // Roots stop at 2 ulp of the sum of |terms|; see SoftmaxSpectrum for why that is enough.
      CHECK(worst.orthonormal < 1e-13);
      CHECK(worst.ones < 1e-13);
      CHECK(worst.residual < 1e-14);
    }
  }

  TEST_CASE("a thousand classes stay orthonormal whether uniform, smooth, graded or saturated") {
    const int m = 1000;
    Random random(3);
    Vector graded(m), saturated(m, -1e5);
    for (int c = 0; c < m; ++c) graded[c] = -0.5 * c;
    saturated[17] = 0;
    SoftmaxSpectrum spectrum;
    for (const Vector& z : {Vector(m, 0.0), random.vector(m, 3), graded, saturated}) {
      const Vector pi = probabilities(z);
      spectrum.compute(pi, m, 2);
      CHECK(spectrum.pairs() == m - 1);
      const Quality worst = quality(spectrum, pi);
      CHECK(worst.orthonormal < 1e-12);
      CHECK(worst.ones < 1e-12);
      CHECK(worst.residual < 1e-14);
    }
  }

  TEST_CASE("eigenvalues of saturated distributions keep their relative precision") {
    // pi = (1 - 2a, a, a): eigenvalues a (inside the tie) and, by trace, 3a (1 - 2a).
    for (const double a : {1e-5, 1e-20, 1e-100}) {
      SoftmaxSpectrum spectrum;
      spectrum.compute({1 - 2 * a, a, a}, 2, 2);
      CHECK(relativeError({spectrum.values()[0]}, {3 * a * (1 - 2 * a)}) < 1e-14);
      CHECK(spectrum.values()[1] == a);
      CHECK(relativeError({spectrum.trace()}, {4 * a - 6 * a * a}) < 1e-14);
    }
  }

  TEST_CASE("the share of the trace decides the number of pairs, and no pair too many") {
    Random random(4);
    SoftmaxSpectrum spectrum, all;
    for (int trial = 0; trial < 200; ++trial) {
      const int m = 3 + random.below(30);
      const Vector pi = probabilities(random.vector(m, 2));
      all.compute(pi, m, 2);
      spectrum.compute(pi, m, 0.98);
      double held = 0;
      int expected = 0;
      while (expected < m - 1 && held < 0.98 * all.trace()) held += all.values()[expected++];
      CHECK(spectrum.pairs() == expected);
      spectrum.compute(pi, 2, 2);
      CHECK(spectrum.pairs() == 2);
    }
  }
}

}  // namespace loko::test
