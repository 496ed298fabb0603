#pragma once

// A Jacobian with p, theta and perhaps a factor, and a backend that holds them.

#include "op_harness.h"

namespace loko::test {

inline std::vector<float> draws(std::size_t count, std::mt19937& random, double mean,
                                double spread) {
  std::normal_distribution<double> normal(mean, spread);
  std::vector<float> result(count);
  for (float& value : result) value = static_cast<float>(normal(random));
  return result;
}

/// A Jacobian G [rows, n], theta, p positive over four decades, as the filter meets them, and perhaps a
/// factor [factorRows, n].
struct Problem {
  Problem(int rowCount, std::int64_t parameters, int factorRowCount = 0)
      : rows(rowCount),
        factorRows(factorRowCount),
        n(parameters),
        random(static_cast<unsigned>(rowCount * 7919 + parameters)) {
    jacobian = draws(static_cast<std::size_t>(rows * n), random, 0, 1);
    theta = draws(static_cast<std::size_t>(n), random, 0, 1);
    for (const float exponent : draws(static_cast<std::size_t>(n), random, -2, 1)) {
      p.push_back(std::pow(10.0f, exponent));
    }
    factor = draws(static_cast<std::size_t>(factorRows * n), random, 0, 1);
  }
  int width() const { return factorRows + rows; }

  template <class T>
  ref::Memory<T> memory() const {
    ref::Memory<T> result;
    for (const float value : jacobian) result.jacobian.push_back(T(value));
    for (const float value : theta) result.theta.push_back(T(value));
    result.parameters = n;
    return result;
  }
  /// The same, with the rows of the factor above those of the Jacobian.
  template <class T>
  ref::Memory<T> stacked() const {
    ref::Memory<T> result = memory<T>();
    const std::vector<T> above(factor.begin(), factor.end());
    result.jacobian.insert(result.jacobian.begin(), above.begin(), above.end());
    return result;
  }
  template <class T>
  std::vector<T> covariance() const {
    std::vector<T> result;
    for (const float value : p) result.push_back(T(value));
    return result;
  }

  int rows, factorRows;
  std::int64_t n;
  std::mt19937 random;
  std::vector<float> jacobian, theta, p, factor;
};

/// A backend that holds a problem; kGuardRows rows and as many parameters of theta lie behind it.
struct Loaded {
  static constexpr int kGuard = 2;

  Loaded(const Candidate& candidate, int threads, const Problem& problem, int mostRows = 0)
      : candidate(candidate), backend(candidate.make(threads)), n(problem.n) {
    std::vector<float> rows = problem.jacobian, theta = problem.theta;
    rows.resize(rows.size() + static_cast<std::size_t>(kGuard * n), std::nanf(""));
    theta.resize(theta.size() + kGuard, std::nanf(""));
    backend->reserve(Space::kTheta, n + kGuard);
    backend->write(Space::kTheta, 0, theta.data(), n + kGuard);
    backend->reserveJacobian(problem.rows + kGuard, n);
    backend->write(Space::kJacobian, 0, rows.data(), (problem.rows + kGuard) * n);
    p = state(problem.p);
    if (problem.factorRows > 0) factor = state(problem.factor);
    backend->prepare({Gram{0, n}}, {1, problem.rows, std::max(problem.width(), mostRows)});
  }

  std::unique_ptr<StateArray> state(const std::vector<float>& values) const {
    auto result = backend->makeState(static_cast<std::int64_t>(values.size()), 0);
    const std::vector<double> wide(values.begin(), values.end());
    backend->writeState(*result, 0, result->size(), wide.data());
    return result;
  }

  std::vector<double> covariance() const { return valuesOf(*p); }
  std::vector<double> valuesOf(const StateArray& array) const {
    std::vector<double> result(static_cast<std::size_t>(array.size()));
    backend->readState(array, result.data());
    return result;
  }
  std::vector<double> theta() const {
    std::vector<double> result(static_cast<std::size_t>(n + kGuard));
    View all;
    all.space = Space::kTheta;
    all.rows = 1;
    all.cols = static_cast<int>(result.size());
    backend->readView(all, 1, result.data());
    for (int i = 0; i < kGuard; ++i) {
      CHECK(std::isnan(result.back()));
      result.pop_back();
    }
    return result;
  }

  KalmanUpdateResult kalmanUpdate(const KalmanUpdate& update) {
    KalmanUpdateResult result;
    withoutAllocation(candidate, [&] { result = backend->kalmanUpdate(update, *p); });
    return result;
  }

  const Candidate& candidate;
  std::unique_ptr<Backend> backend;
  std::int64_t n;
  std::unique_ptr<StateArray> p, factor;
};

/// A square root and no factor.
inline KalmanUpdate updateOf(int rows, const double* gain, const double* root, CovarianceRule rule,
                             double floor) {
  KalmanUpdate update;
  update.rows = update.rootRows = rows;
  update.gain = gain;
  update.root = root;
  update.rule = rule;
  update.floor = floor;
  return update;
}

inline std::vector<double> gramOf(Loaded& loaded, const Problem& problem, bool weighted,
                                  const std::vector<Gram>& parts) {
  std::vector<double> gram(static_cast<std::size_t>(problem.width() * problem.width()), 0.0);
  Frame frame;
  frame.gram = gram.data();
  frame.gramRows = problem.rows;
  frame.gramWeights = weighted ? loaded.p.get() : nullptr;
  frame.factor = loaded.factor.get();
  frame.factorRows = problem.factorRows;
  for (const Step part : parts) {
    withoutAllocation(loaded.candidate, [&] { loaded.backend->run(part, frame); });
  }
  return gram;
}

/// sum over columns c of [begin, end) of G[i, c] weights[c] G[j, c]; weights null: ones.
template <class T>
T gramEntry(const ref::Memory<T>& memory, std::int64_t i, std::int64_t j, std::int64_t begin,
            std::int64_t end, const T* weights) {
  const T* left = memory.jacobian.data() + i * memory.parameters;
  const T* right = memory.jacobian.data() + j * memory.parameters;
  T sum(0);
  for (std::int64_t c = begin; c < end; ++c) {
    sum += weights != nullptr ? left[c] * weights[c] * right[c] : left[c] * right[c];
  }
  return sum;
}

/// The Gram matrix over `parts`, with and without weights, of every backend against the specification and with any
/// number of threads.
inline void checkGram(const Problem& problem, const std::vector<Gram>& parts) {
  const ref::Memory<Bound> memory = problem.stacked<Bound>();
  const std::vector<Bound> p = problem.covariance<Bound>();
  const int width = problem.width();
  for (const bool weighted : {false, true}) {
    CAPTURE(weighted);
    std::vector<Bound> expected(static_cast<std::size_t>(width * width));
    for (int i = 0; i < width; ++i) {
      for (int j = 0; j <= i; ++j) {
        expected[static_cast<std::size_t>(i * width + j)] =
            expected[static_cast<std::size_t>(j * width + i)] =
                gramEntry(memory, i, j, 0, problem.n, weighted ? p.data() : nullptr);
      }
    }
    for (const Candidate& candidate : candidates()) {
      CAPTURE(candidate.name);
      Loaded loaded(candidate, 1, problem);
      const std::vector<double> gram = gramOf(loaded, problem, weighted, parts);
      Worst worst;
      for (std::size_t i = 0; i < gram.size(); ++i) {
        worst.add(gram[i], expected[i], candidate.unitRoundoff, false, "gram", i);
      }
      CHECK_MESSAGE(worst.ratio() <= 1, worst.message());
      for (int threads = 2; threads <= candidate.maxThreads; ++threads) {
        Loaded parallel(candidate, threads, problem);
        CHECK(gramOf(parallel, problem, weighted, parts) == gram);
      }
    }
  }
}

}  // namespace loko::test
