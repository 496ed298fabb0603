// Gram matrices and the updates of theta and p, in every backend against the specification.

#include <numeric>

#include "op_update.h"

namespace loko::test {

namespace {

// Below and beyond the blocks of a backend, never a multiple; the last is worth several threads.
constexpr std::int64_t kSizes[] = {1, 7, 1031, 20011};

/// Jacobian rows with parameters; many rows make do with fewer parameters.
std::vector<std::pair<int, std::int64_t>> sizes() {
  std::vector<std::pair<int, std::int64_t>> result;
  for (const int rows : {1, 2, 3, 8, 9, 16, 17, 40, 99}) {
    for (const std::int64_t n : kSizes) {
      result.emplace_back(rows, rows > 9 ? std::min<std::int64_t>(n, 5003) : n);
    }
  }
  result.emplace_back(2, 140003);  // several chunks for every share of the columns
  return result;
}

/// Lower-triangular inverse of the Cholesky factor of G diag(p) G^T + I, as a filter would pass it,
/// rounded to single precision so that no backend loses anything by holding it so.
std::vector<double> whitening(const Problem& problem) {
  const int k = problem.rows;
  const ref::Memory<double> memory = problem.memory<double>();
  const std::vector<double> p = problem.covariance<double>();
  std::vector<double> factor(static_cast<std::size_t>(k * k), 0.0), inverse = factor;
  const auto l = [&](int i, int j) -> double& {
    return factor[static_cast<std::size_t>(i * k + j)];
  };
  const auto root = [&](int i, int j) -> double& {
    return inverse[static_cast<std::size_t>(i * k + j)];
  };
  for (int j = 0; j < k; ++j) {
    for (int i = j; i < k; ++i) {
      double sum = gramEntry(memory, i, j, 0, problem.n, p.data()) + (i == j ? 1 : 0);
      for (int c = 0; c < j; ++c) sum -= l(i, c) * l(j, c);
      l(i, j) = i == j ? std::sqrt(sum) : sum / l(j, j);
    }
  }
  for (int j = 0; j < k; ++j) {
    for (int i = j; i < k; ++i) {
      double sum = i == j ? 1 : 0;
      for (int c = j; c < i; ++c) sum -= l(i, c) * root(c, j);
      root(i, j) = sum / l(i, i);
    }
  }
  for (double& value : inverse) value = static_cast<float>(value);
  return inverse;
}

}  // namespace

TEST_CASE("Gram adds up G diag(p) G^T over column ranges, both triangles, for any number of rows") {
  for (const auto& size : sizes()) {
    const int rows = size.first;
    const std::int64_t n = size.second;
    CAPTURE(rows);
    CAPTURE(n);
    const Problem problem(rows, n);
    const std::vector<Gram> parts{{0, n / 3}, {n / 3, n / 3}, {n / 3, n}};
    checkGram(problem, parts);
  }
}

TEST_CASE("Gram and kalmanUpdate work with any number of rows up to the one prepared for") {
  // LoKO prepares for m - 1 rows and chooses how many of them carry information from step to step.
  for (const Candidate& candidate : candidates()) {
    CAPTURE(candidate.name);
    for (const int rows : {1, 9, 64}) {
      CAPTURE(rows);
      Problem problem(rows, 40000);
      Loaded exact(candidate, 1, problem), roomy(candidate, 1, problem, 99);
      const std::vector<Gram> all{{0, problem.n}};
      CHECK(gramOf(roomy, problem, true, all) == gramOf(exact, problem, true, all));

      const std::vector<double> gain(static_cast<std::size_t>(rows), 0.125);
      const std::vector<double> root(static_cast<std::size_t>(rows * rows), 0.0625);
      const KalmanUpdate update =
          updateOf(rows, gain.data(), root.data(), CovarianceRule::kVariationalDecoupled, 1e-9);
      exact.kalmanUpdate(update);
      roomy.kalmanUpdate(update);
      CHECK(roomy.theta() == exact.theta());
      CHECK(roomy.covariance() == exact.covariance());
    }
  }
}

TEST_CASE("Gram sums over many columns in double: its error does not grow with their number") {
  // 2^18 columns of 1 and, at the end, of 2^-12: single-precision accumulation would lose or bend
  // the tail; per tile of at most 4,096 terms it is exact.
  const std::int64_t n = 1 << 18;
  Problem problem(1, n);
  std::fill(problem.jacobian.begin(), problem.jacobian.end() - n / 2, 1.0f);
  std::fill(problem.jacobian.end() - n / 2, problem.jacobian.end(), std::ldexp(1.0f, -12));
  for (const Candidate& candidate : candidates()) {
    CAPTURE(candidate.name);
    Loaded loaded(candidate, 2, problem);
    CHECK(gramOf(loaded, problem, false, {{0, n}})[0] ==
          std::ldexp(1.0, 17) + std::ldexp(1.0, 17 - 24));
  }
}

TEST_CASE("Gram does nothing when the frame asks for none") {
  const Problem problem(3, 7);
  for (const Candidate& candidate : candidates()) {
    Loaded loaded(candidate, 1, problem);
    loaded.backend->run(Gram{0, 7}, Frame{});
  }
}

TEST_CASE("kalmanUpdate moves theta and p by both rules, and does so for any number of threads") {
  for (const auto& size : sizes()) {
    const int rows = size.first;
    const std::int64_t n = size.second;
    CAPTURE(rows);
    CAPTURE(n);
    Problem problem(rows, n);
    const std::vector<double> root = whitening(problem);
    const std::vector<float> drawn = draws(static_cast<std::size_t>(rows), problem.random, 0, 1);
    const std::vector<double> gain(drawn.begin(), drawn.end());
    for (const CovarianceRule rule :
         {CovarianceRule::kFullyDecoupled, CovarianceRule::kVariationalDecoupled}) {
      const KalmanUpdate update =
          updateOf(rows, gain.data(), root.data(), rule, std::ldexp(1.0, -40));
      ref::Memory<Bound> memory = problem.memory<Bound>();
      std::vector<Bound> p = problem.covariance<Bound>();
      const KalmanUpdateResult expected = ref::kalmanUpdate(update, p, memory);
      REQUIRE(expected.floored == 0);
      for (const Candidate& candidate : candidates()) {
        CAPTURE(candidate.name);
        CAPTURE(static_cast<int>(rule));
        Loaded loaded(candidate, 1, problem);
        const KalmanUpdateResult result = loaded.kalmanUpdate(update);
        const std::vector<double> theta = loaded.theta(), covariance = loaded.covariance();
        Worst worst;
        bool shrinks = true;
        for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
          worst.add(theta[i], memory.theta[i], candidate.unitRoundoff, false, "theta", i);
          worst.add(covariance[i], p[i], candidate.unitRoundoff, false, "p", i);
          shrinks =
              shrinks && covariance[i] > 0 && covariance[i] <= static_cast<double>(problem.p[i]);
        }
        CHECK(shrinks);
        CHECK_MESSAGE(worst.ratio() <= 1, worst.message());

        // The result speaks of the p that the backend now holds; sums of n doubles.
        CHECK(result.floored == 0);
        CHECK(result.min == *std::min_element(covariance.begin(), covariance.end()));
        CHECK(result.max == *std::max_element(covariance.begin(), covariance.end()));
        const double sum = std::accumulate(covariance.begin(), covariance.end(), 0.0);
        CHECK(std::fabs(result.sum - sum) <= 2e-16 * static_cast<double>(n) * sum);

        for (int threads = 2; threads <= candidate.maxThreads; ++threads) {
          Loaded parallel(candidate, threads, problem);
          const KalmanUpdateResult same = parallel.kalmanUpdate(update);
          CHECK(parallel.theta() == theta);
          CHECK(parallel.covariance() == covariance);
          CHECK(same.sum == result.sum);
        }
      }
    }
  }
}

TEST_CASE("kalmanUpdate floors p at p_min and counts the entries that it caught") {
  // One row g = 1, root = 1: q = 1. p = 1/2 becomes 1/4 or 1/3; p = 1 becomes 0 or 1/2; p = 2^-10
  // stays below the floor 2^-8 by either rule.
  for (const Candidate& candidate : candidates()) {
    CAPTURE(candidate.name);
    for (int threads = 1; threads <= candidate.maxThreads; ++threads) {
      Problem problem(1, 100000);  // several chunks for every share of the columns
      std::fill(problem.jacobian.begin(), problem.jacobian.end(), 1.0f);
      for (std::size_t i = 0; i < problem.p.size(); ++i) {
        problem.p[i] = i % 10 == 0 ? 1.0f : i % 10 == 1 ? std::ldexp(1.0f, -10) : 0.5f;
      }
      const double one = 1, floor = std::ldexp(1.0, -8);
      KalmanUpdate update = updateOf(1, &one, &one, CovarianceRule::kFullyDecoupled, floor);
      Loaded first(candidate, threads, problem);
      KalmanUpdateResult result = first.kalmanUpdate(update);
      CHECK(result.floored == 20000);
      CHECK(result.min == floor);
      CHECK(result.max == 0.25);
      CHECK(result.sum == 80000 * 0.25 + 20000 * floor);

      update.rule = CovarianceRule::kVariationalDecoupled;
      Loaded second(candidate, threads, problem);
      result = second.kalmanUpdate(update);
      CHECK(result.floored == 10000);
      CHECK(result.max == 0.5);
      // theta moved by the old p, not by the new one
      const std::vector<double> theta = second.theta();
      CHECK(theta[0] == doctest::Approx(static_cast<double>(problem.theta[0]) + 1).epsilon(1e-6));
    }
  }
}

TEST_CASE("transition scales a range of a state, adds and caps, and leaves the rest") {
  constexpr double kMost = 0.25;
  for (const std::int64_t n : kSizes) {
    const Problem problem(1, n);
    const std::int64_t begin = n / 3, end = n - n / 5;  // not at the edge of a vector
    for (const Candidate& candidate : candidates()) {
      CAPTURE(candidate.name);
      std::vector<Bound> expected = problem.covariance<Bound>();
      ref::transition(expected, begin, end, {1.0625, 0.125, kMost});
      for (int threads = 1; threads <= candidate.maxThreads; ++threads) {
        Loaded loaded(candidate, threads, problem);
        const std::vector<double> before = loaded.covariance();
        withoutAllocation(candidate, [&] {
          loaded.backend->transition(*loaded.p, begin, end, {1.0625, 0.125, kMost});
        });
        const std::vector<double> p = loaded.covariance();
        Worst worst;
        for (std::size_t i = 0; i < p.size(); ++i) {
          const auto at = static_cast<std::int64_t>(i);
          if (at < begin || at >= end) {
            CHECK(p[i] == before[i]);
            continue;
          }
          worst.add(p[i], expected[i], candidate.unitRoundoff, false, "p", i);
          CHECK(p[i] <= kMost);
        }
        CHECK_MESSAGE(worst.ratio() <= 1, worst.message());
      }
    }
  }
}

TEST_CASE("capVariance caps p and keeps what rows of the factor are times p") {
  constexpr int kRows = 3, kFirst = 1;
  constexpr double kMost = 0.25;
  for (const std::int64_t n : kSizes) {
    const Problem problem(1, n, kRows);
    for (const Candidate& candidate : candidates()) {
      CAPTURE(candidate.name);
      for (int threads = 1; threads <= candidate.maxThreads; ++threads) {
        Loaded loaded(candidate, threads, problem);
        const std::vector<double> before = loaded.covariance();
        withoutAllocation(candidate, [&] {
          loaded.backend->capVariance(*loaded.p, kMost, *loaded.factor, kFirst, kRows);
        });
        const std::vector<double> p = loaded.covariance();
        std::vector<double> factor(problem.factor.size());
        loaded.backend->readState(*loaded.factor, factor.data());
        for (std::size_t i = 0; i < p.size(); ++i) {
          REQUIRE(p[i] == std::min(kMost, before[i]));
          for (int row = 0; row < kRows; ++row) {
            const std::size_t at = static_cast<std::size_t>(row) * p.size() + i;
            const auto was = static_cast<double>(problem.factor[at]);
            const double expected = row < kFirst ? was : was * before[i] / p[i];
            // A quotient and a product, both rounded.
            REQUIRE(std::fabs(factor[at] - expected) <=
                    (expected == was ? 0 : 2.01 * candidate.unitRoundoff * std::fabs(expected)));
          }
        }
      }
    }
  }
}

TEST_CASE("a transition by 1 that adds nothing leaves every bit, also of negative numbers") {
  const Problem problem(1, 1031, 2);
  for (const Candidate& candidate : candidates()) {
    CAPTURE(candidate.name);
    Loaded loaded(candidate, 2, problem);
    loaded.backend->transition(*loaded.p, 0, loaded.p->size(), {1, 0, 1e30});
    CHECK(loaded.covariance() == problem.covariance<double>());
    std::vector<double> factor(problem.factor.size());
    loaded.backend->transition(*loaded.factor, 0, loaded.factor->size(), {});
    loaded.backend->readState(*loaded.factor, factor.data());
    CHECK(factor == std::vector<double>(problem.factor.begin(), problem.factor.end()));
  }
}

TEST_CASE("gradientIsFinite looks at every parameter of row 0 and at no other row") {
  for (const std::int64_t n : kSizes) {
    for (const Candidate& candidate : candidates()) {
      CAPTURE(candidate.name);
      const Problem problem(2, n);
      for (const float bad : {std::nanf(""), INFINITY, -INFINITY}) {
        Loaded loaded(candidate, 2, problem);
        CHECK(loaded.backend->gradientIsFinite());
        loaded.backend->write(Space::kJacobian, n, &bad, 1);
        CHECK(loaded.backend->gradientIsFinite());
        loaded.backend->write(Space::kJacobian, n - 1, &bad, 1);
        CHECK_FALSE(loaded.backend->gradientIsFinite());
      }
    }
  }
}

TEST_CASE("gradientUpdate applies a rule to every parameter with its state, on any thread count") {
  for (const std::int64_t n : kSizes) {
    for (const Candidate& candidate : candidates()) {
      CAPTURE(candidate.name);
      const Problem problem(1, n);
      GradientUpdate update;
      update.rule = GradientUpdate::Rule::kSgd;
      update.learningRate = 0.5;
      update.momentum = 0.5;
      std::vector<double> momentum;
      for (int threads = 1; threads <= candidate.maxThreads; ++threads) {
        Loaded loaded(candidate, threads, problem);
        const auto state = loaded.backend->makeState(n, 0);
        for (update.step = 1; update.step <= 2; ++update.step) {
          loaded.backend->gradientUpdate(update, {state.get()});
        }
        // Momentum g, then 1.5 g: theta - 0.5 g - 0.75 g. Each of the roundings is below the unit
        // roundoff of the sum of magnitudes.
        const std::vector<double> theta = loaded.theta();
        for (std::size_t i = 0; i < theta.size(); ++i) {
          const double g = problem.jacobian[i], before = problem.theta[i];
          CHECK(std::fabs(theta[i] - (before - 1.25 * g)) <=
                4 * candidate.unitRoundoff * (std::fabs(before) + 1.25 * std::fabs(g)));
        }
      }
    }
  }
}

}  // namespace loko::test
