// Gram matrices and the Kalman update with a factor above the Jacobian, V = [factor; G], in every backend
// against the specification.

#include <algorithm>
#include <string>

#include "core/status.h"
#include "op_update.h"

namespace loko::test {

namespace {

struct Shape {
  int factorRows, rows;
  std::int64_t n;
};

/// Widths at which a backend changes its kernel or its tiles; never a multiple of anything. The last is worth
/// several threads.
std::vector<Shape> shapes() {
  std::vector<Shape> result{{1, 1, 1}, {17, 2, 7}, {70, 3, 131}, {150, 5, 67}};
  for (const int r : {1, 5, 17}) {
    for (const int k : {1, 2, 9, 40}) result.push_back({r, k, k > 9 ? 131 : 1031});
  }
  result.push_back({17, 9, 20011});
  return result;
}

/// Numbers of single precision, so that no backend loses anything by holding them so.
std::vector<double> coefficients(int rows, int width, double spread, Problem& problem) {
  const std::vector<float> values =
      draws(static_cast<std::size_t>(rows * width), problem.random, 0, spread);
  return {values.begin(), values.end()};
}

/// An update of a problem, with the arrays that it points to.
struct FactorUpdate {
  FactorUpdate(Problem& problem, int rootRows, int dualRows, CovarianceRule rule)
      : gain(coefficients(1, problem.width(), 1, problem)),
        carry(coefficients(problem.factorRows, problem.width(), 1, problem)) {
    // p q stays below 1 for a p of up to 400, or is about p where the rule allows for any.
    const double size = rule == CovarianceRule::kFullyDecoupled ? 0.02 : 1;
    const double spread = size / std::sqrt(std::max(1, rootRows) * problem.width());
    root = coefficients(rootRows, problem.width(), spread, problem);
    update.rows = problem.rows;
    update.factorRows = problem.factorRows;
    update.dualRows = dualRows;
    update.rootRows = rootRows;
    update.gain = gain.data();
    update.root = root.data();
    update.carry = carry.data();
    update.rule = rule;
    update.floor = std::ldexp(1.0, -40);
  }

  KalmanUpdateResult on(Loaded& loaded) {
    update.factor = loaded.factor.get();
    return loaded.kalmanUpdate(update);
  }

  std::vector<double> gain, carry, root;
  KalmanUpdate update;
};

std::vector<double> jacobianOf(const Loaded& loaded, const Problem& problem) {
  std::vector<float> values(problem.jacobian.size());
  loaded.backend->read(Space::kJacobian, 0, values.data(),
                       static_cast<std::int64_t>(values.size()));
  return {values.begin(), values.end()};
}

void checkUpdate(Problem& problem, int rootRows, int dualRows, CovarianceRule rule) {
  FactorUpdate factored(problem, rootRows, dualRows, rule);
  ref::Memory<Bound> memory = problem.memory<Bound>();
  std::vector<Bound> p = problem.covariance<Bound>();
  ref::State<Bound> factor;
  for (const float value : problem.factor) factor.values.emplace_back(value);
  factored.update.factor = &factor;
  REQUIRE(ref::kalmanUpdate(factored.update, p, memory).floored == 0);
  const std::vector<double> jacobian(problem.jacobian.begin(), problem.jacobian.end());
  for (const Candidate& candidate : candidates()) {
    CAPTURE(candidate.name);
    Loaded loaded(candidate, 1, problem);
    const KalmanUpdateResult result = factored.on(loaded);
    const std::vector<double> theta = loaded.theta(), covariance = loaded.covariance(),
                              carried = loaded.valuesOf(*loaded.factor);
    Worst worst;
    for (std::size_t i = 0; i < theta.size(); ++i) {
      worst.add(theta[i], memory.theta[i], candidate.unitRoundoff, false, "theta", i);
      worst.add(covariance[i], p[i], candidate.unitRoundoff, false, "p", i);
    }
    for (std::size_t i = 0; i < carried.size(); ++i) {
      worst.add(carried[i], factor.values[i], candidate.unitRoundoff, false, "factor", i);
    }
    CHECK_MESSAGE(worst.ratio() <= 1, worst.message());
    CHECK(result.floored == 0);
    CHECK(result.max == *std::max_element(covariance.begin(), covariance.end()));
    CHECK(jacobianOf(loaded, problem) == jacobian);

    for (int threads = 2; threads <= candidate.maxThreads; ++threads) {
      Loaded parallel(candidate, threads, problem);
      CHECK(factored.on(parallel).sum == result.sum);
      CHECK(parallel.theta() == theta);
      CHECK(parallel.covariance() == covariance);
      CHECK(parallel.valuesOf(*parallel.factor) == carried);
    }
  }
}

}  // namespace

TEST_CASE("Gram with a factor adds up V diag(p) V^T over column ranges, on any thread count") {
  for (const Shape& shape : shapes()) {
    CAPTURE(shape.factorRows);
    CAPTURE(shape.rows);
    CAPTURE(shape.n);
    const Problem problem(shape.rows, shape.n, shape.factorRows);
    const std::vector<Gram> parts{
        {0, shape.n / 3}, {shape.n / 3, shape.n / 3}, {shape.n / 3, shape.n}};
    checkGram(problem, parts);
  }
}

TEST_CASE("kalmanUpdate with a factor moves theta, p and the factor at once, on any thread count") {
  bool variational = false;  // in turn
  for (const Shape& shape : shapes()) {
    CAPTURE(shape.factorRows);
    CAPTURE(shape.rows);
    CAPTURE(shape.n);
    Problem problem(shape.rows, shape.n, shape.factorRows);
    const int beyond = std::max(0, problem.width() - 16);
    for (const int rootRows : {0, shape.rows, beyond}) {
      CAPTURE(rootRows);
      for (const int dualRows : {0, 1, 2, 3}) {
        if (dualRows > shape.factorRows) continue;
        CAPTURE(dualRows);
        variational = !variational;
        checkUpdate(
            problem, rootRows, dualRows,
            variational ? CovarianceRule::kVariationalDecoupled : CovarianceRule::kFullyDecoupled);
      }
      variational = !variational;
    }
  }
}

TEST_CASE(
    "a factor that nothing depends on changes no bit of theta and p, and is carried as it is") {
  for (const int rows : {1, 9, 40}) {
    CAPTURE(rows);
    Problem without(rows, 1031), with(rows, 1031, 5);
    FactorUpdate factored(with, rows, 0, CovarianceRule::kVariationalDecoupled);
    const int width = with.width();
    std::vector<double> gain, root;
    for (int i = 0; i < 5; ++i) factored.gain[static_cast<std::size_t>(i)] = 0;
    gain.assign(factored.gain.begin() + 5, factored.gain.end());
    for (int i = 0; i < rows; ++i) {
      const auto row = factored.root.begin() + i * width;
      std::fill(row, row + 5, 0.0);
      root.insert(root.end(), row + 5, row + width);
    }
    for (int i = 0; i < 5 * width; ++i) {
      factored.carry[static_cast<std::size_t>(i)] = i / width == i % width ? 1 : 0;
    }
    KalmanUpdate plain =
        updateOf(rows, gain.data(), root.data(), factored.update.rule, factored.update.floor);
    for (const Candidate& candidate : candidates()) {
      CAPTURE(candidate.name);
      Loaded expected(candidate, 1, without), loaded(candidate, 1, with);
      REQUIRE(expected.theta() == loaded.theta());
      const std::vector<double> factor = loaded.valuesOf(*loaded.factor);
      const KalmanUpdateResult result = factored.on(loaded);
      CHECK(expected.kalmanUpdate(plain).sum == result.sum);
      CHECK(loaded.theta() == expected.theta());
      CHECK(loaded.covariance() == expected.covariance());
      CHECK(loaded.valuesOf(*loaded.factor) == factor);
    }
  }
}

TEST_CASE("the dual row of a factor meets the p of the floor, where that caught it") {
  // g = 1, root = 1: q = 1. By p (1 - p), 1/2 becomes 1/4, 1 becomes the floor 2^-8, and 2^-10 too.
  for (const Candidate& candidate : candidates()) {
    CAPTURE(candidate.name);
    for (int threads = 1; threads <= candidate.maxThreads; ++threads) {
      Problem problem(1, 100003, 2);  // several chunks for every share of the columns
      std::fill(problem.jacobian.begin(), problem.jacobian.end(), 1.0f);
      std::fill(problem.factor.begin(), problem.factor.end(), 0.5f);
      for (std::size_t i = 0; i < problem.p.size(); ++i) {
        problem.p[i] = i % 10 == 0 ? 1.0f : i % 10 == 1 ? std::ldexp(1.0f, -10) : 0.5f;
      }
      FactorUpdate factored(problem, 1, 1, CovarianceRule::kFullyDecoupled);
      factored.root = {0, 0, 1};
      factored.carry = {2, 0, 0, 1, 1, 3};  // 1 and 4
      factored.update.root = factored.root.data();
      factored.update.carry = factored.carry.data();
      factored.update.floor = std::ldexp(1.0, -8);
      Loaded loaded(candidate, threads, problem);
      const KalmanUpdateResult result = factored.on(loaded);
      CHECK(result.floored == 10001 + 10001);
      CHECK(result.min == factored.update.floor);
      CHECK(result.max == 0.25);
      const std::vector<double> factor = loaded.valuesOf(*loaded.factor);
      const double ratios[] = {256, 0.25, 2, 2, 2, 2, 2, 2, 2, 2};
      std::int64_t wrong = 0;
      for (std::size_t i = 0; i < 100003; ++i) {
        wrong += factor[i] != 1 || factor[100003 + i] != 4 * ratios[i % 10];
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE(
    "Gram and kalmanUpdate fit what was prepared, however the rows fall into factor and Jacobian") {
  for (const Candidate& candidate : candidates()) {
    CAPTURE(candidate.name);
    for (const int width : {2, 11, 64, 66}) {
      for (const int r : {1, width / 2}) {
        CAPTURE(width);
        CAPTURE(r);
        // As many tiles of columns as a Gram matrix has slabs.
        Problem problem(width - r, 31003, r);
        FactorUpdate factored(problem, width, 1, CovarianceRule::kVariationalDecoupled);
        Loaded exact(candidate, 1, problem), roomy(candidate, 1, problem, 99);
        const std::vector<Gram> all{{0, problem.n}};
        CHECK(gramOf(roomy, problem, true, all) == gramOf(exact, problem, true, all));
        factored.on(exact);
        factored.on(roomy);
        CHECK(roomy.valuesOf(*roomy.factor) == exact.valuesOf(*exact.factor));
      }
    }
  }
}

TEST_CASE("a list of steps that was recorded with one factor reads another when it is given one") {
  const Problem problem(2, 131, 3), other(1, 131, 3);
  for (const Candidate& candidate : candidates()) {
    CAPTURE(candidate.name);
    Loaded loaded(candidate, 1, problem, 7);
    const auto second = loaded.state(other.factor);
    const std::vector<Step> steps{Gram{0, 131}};
    loaded.backend->prepare(steps, {1, 2, 7});
    const auto gram = [&](const StateArray* factor, int factorRows) {
      std::vector<double> values(static_cast<std::size_t>((2 + factorRows) * (2 + factorRows)));
      Frame frame;
      frame.gram = values.data();
      frame.gramRows = 2;
      frame.factor = factor;
      frame.factorRows = factorRows;
      loaded.backend->runAll(steps, frame);
      return values;
    };
    const std::vector<double> first = gram(loaded.factor.get(), 3), none = gram(nullptr, 0);
    const std::vector<double> others = gram(second.get(), 3);
    CHECK(others != first);
    for (int run = 0; run < 3; ++run) {
      CHECK(gram(loaded.factor.get(), 3) == first);
      CHECK(gram(second.get(), 3) == others);
      CHECK(gram(nullptr, 0) == none);
    }
  }
}

TEST_CASE("a factor of another size than its rows is refused, and leaves everything as it was") {
  Problem problem(2, 131, 3);
  for (const Candidate& candidate : candidates()) {
    CAPTURE(candidate.name);
    Loaded loaded(candidate, 1, problem);
    FactorUpdate factored(problem, 2, 1, CovarianceRule::kFullyDecoupled);
    const std::vector<double> theta = loaded.theta(), p = loaded.covariance();
    factored.update.factorRows = 2;
    CHECK_THROWS_AS(factored.on(loaded), Error);
    Frame frame;
    double gram[16] = {};
    frame.gram = gram;
    frame.gramRows = 2;
    frame.factor = loaded.factor.get();
    frame.factorRows = 2;
    CHECK_THROWS_AS(loaded.backend->run(Step{Gram{0, 131}}, frame), Error);
    CHECK(loaded.theta() == theta);
    CHECK(loaded.covariance() == p);
  }
}

TEST_CASE("a GPU refuses a factor of more than 256 rows with a code of its own") {
  Problem problem(1, 3, 257);
  for (const Candidate& candidate : candidates()) {
    CAPTURE(candidate.name);
    Loaded loaded(candidate, 1, problem);
    FactorUpdate factored(problem, 1, 1, CovarianceRule::kVariationalDecoupled);
    if (candidate.name.rfind("cuda", 0) != 0) {
      factored.on(loaded);
      continue;
    }
    try {
      factored.on(loaded);
      FAIL("no error");
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kUnsupported);
      CHECK(std::string(error.what()).find("257") != std::string::npos);
    }
  }
}

}  // namespace loko::test
