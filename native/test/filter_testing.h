#pragma once

// What the filter's tests share: objectives given by a formula, on a backend of either precision,
// and plain dense matrices for the exact algebra they are compared with.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/objective.h"
#include "cpu/cpu_backend.h"
#include "filter/loko_optimizer.h"
#include "filter/optimizer_state.h"
#include "ref/ref_backend.h"

namespace loko::test {

using Vector = std::vector<double>;

/// Row-major.
struct Matrix {
  int rows = 0, cols = 0;
  Vector values;

  Matrix() = default;
  Matrix(int r, int c) : rows(r), cols(c), values(static_cast<std::size_t>(r) * c, 0) {}
  double& operator()(int i, int j) { return values[static_cast<std::size_t>(i) * cols + j]; }
  double operator()(int i, int j) const { return values[static_cast<std::size_t>(i) * cols + j]; }

  static Matrix diagonal(const Vector& d) {
    Matrix result(static_cast<int>(d.size()), static_cast<int>(d.size()));
    for (int i = 0; i < result.rows; ++i) result(i, i) = d[i];
    return result;
  }
  static Matrix identity(int n) { return diagonal(Vector(n, 1.0)); }
};

inline Matrix operator*(const Matrix& a, const Matrix& b) {
  Matrix c(a.rows, b.cols);
  for (int i = 0; i < a.rows; ++i)
    for (int l = 0; l < a.cols; ++l)
      for (int j = 0; j < b.cols; ++j) c(i, j) += a(i, l) * b(l, j);
  return c;
}

inline Vector operator*(const Matrix& a, const Vector& x) {
  Vector y(a.rows, 0.0);
  for (int i = 0; i < a.rows; ++i)
    for (int j = 0; j < a.cols; ++j) y[i] += a(i, j) * x[j];
  return y;
}

inline Matrix operator+(Matrix a, const Matrix& b) {
  for (std::size_t i = 0; i < a.values.size(); ++i) a.values[i] += b.values[i];
  return a;
}

inline Matrix operator-(Matrix a, const Matrix& b) {
  for (std::size_t i = 0; i < a.values.size(); ++i) a.values[i] -= b.values[i];
  return a;
}

inline Matrix operator*(double s, Matrix a) {
  for (double& v : a.values) v *= s;
  return a;
}

inline Matrix transpose(const Matrix& a) {
  Matrix t(a.cols, a.rows);
  for (int i = 0; i < a.rows; ++i)
    for (int j = 0; j < a.cols; ++j) t(j, i) = a(i, j);
  return t;
}

inline Matrix outer(const Vector& a, const Vector& b) {
  Matrix c(static_cast<int>(a.size()), static_cast<int>(b.size()));
  for (int i = 0; i < c.rows; ++i)
    for (int j = 0; j < c.cols; ++j) c(i, j) = a[i] * b[j];
  return c;
}

/// Gauss-Jordan with row pivoting.
inline Matrix inverse(Matrix a) {
  const int n = a.rows;
  Matrix x = Matrix::identity(n);
  for (int c = 0; c < n; ++c) {
    int pivot = c;
    for (int i = c + 1; i < n; ++i)
      if (std::fabs(a(i, c)) > std::fabs(a(pivot, c))) pivot = i;
    for (int j = 0; j < n; ++j) {
      std::swap(a(c, j), a(pivot, j));
      std::swap(x(c, j), x(pivot, j));
    }
    const double scale = 1 / a(c, c);
    for (int j = 0; j < n; ++j) {
      a(c, j) *= scale;
      x(c, j) *= scale;
    }
    for (int i = 0; i < n; ++i) {
      if (i == c) continue;
      const double factor = a(i, c);
      for (int j = 0; j < n; ++j) {
        a(i, j) -= factor * a(c, j);
        x(i, j) -= factor * x(c, j);
      }
    }
  }
  return x;
}

inline Vector diagonalOf(const Matrix& a) {
  Vector d(a.rows);
  for (int i = 0; i < a.rows; ++i) d[i] = a(i, i);
  return d;
}

/// The textbook Kalman filter with a full covariance.
struct FullFilter {
  Vector mean;
  Matrix covariance;

  void update(const Matrix& h, const Matrix& r, const Vector& innovation) {
    const Matrix gain = covariance * transpose(h) * inverse(h * covariance * transpose(h) + r);
    const Vector step = gain * innovation;
    for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += step[i];
    covariance = covariance - gain * h * covariance;
  }
};

enum class Precision { kDouble, kFloat };

inline std::unique_ptr<Backend> makeBackend(Precision precision) {
  return precision == Precision::kDouble ? ref::makeRefBackend() : cpu::makeCpuBackend(1);
}

/// Largest |a_i - b_i| relative to the largest |b_i|.
inline double relativeError(const Vector& a, const Vector& b) {
  REQUIRE(a.size() == b.size());
  double error = 0, scale = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error = std::max(error, std::fabs(a[i] - b[i]));
    scale = std::max(scale, std::fabs(b[i]));
  }
  return scale > 0 ? error / scale : error;
}

inline bool sameBits(const Vector& a, const Vector& b) {
  if (a.size() != b.size()) return false;
  return a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

/// An objective whose logits and Jacobian a derived class computes in double from theta as the
/// backend stores it; rows of G and their Gram matrix live in the backend.
class FormulaObjective : public Objective {
 public:
  FormulaObjective(Precision precision, int outputs, const Vector& theta)
      : backend_(makeBackend(precision)),
        outputs_(outputs),
        parameters_(static_cast<std::int64_t>(theta.size())) {
    backend_->reserve(Space::kTheta, parameters_);
    backend_->reserveJacobian(outputs, parameters_);
    setTheta(theta);
  }

  int outputs() const override { return outputs_; }
  std::int64_t parameters() const override { return parameters_; }
  int batch() const override { return batch_; }
  Backend& backend() override { return *backend_; }

  void forward(std::vector<double>& logits) override {
    ++forwards;
    logits.clear();
    for (int b = 0; b < batch_; ++b) {
      const Vector z = evaluate(b, theta());
      logits.insert(logits.end(), z.begin(), z.end());
    }
  }

  void jacobian(const std::vector<double>& cotangents, int rows,
                const GramRequest& request) override {
    Matrix g(rows * batch_, static_cast<int>(parameters_));
    for (int i = 0; i < g.rows; ++i) {
      Matrix v(1, outputs_);
      std::copy_n(cotangents.begin() + std::ptrdiff_t{i} * outputs_, outputs_, v.values.begin());
      const Matrix row = v * differentiate(i % batch_, theta());
      std::copy(row.values.begin(), row.values.end(),
                g.values.begin() + std::ptrdiff_t{i} * g.cols);
    }
    writeRows(g);
    if (request.values != nullptr) gram(g.rows, request);
  }

  void gradient(const std::vector<double>& cotangents) override {
    Matrix sum(1, static_cast<int>(parameters_));
    for (int b = 0; b < batch_; ++b) {
      Matrix v(1, outputs_);
      std::copy_n(cotangents.begin() + static_cast<std::ptrdiff_t>(b) * outputs_, outputs_,
                  v.values.begin());
      sum = sum + v * differentiate(b, theta());
    }
    writeRows(sum);
  }

  void gram(int rows, const GramRequest& request) override {
    Frame frame;
    frame.rows = rows;
    frame.gramWeights = request.weights;
    frame.gram = request.values;
    frame.gramRows = rows;
    frame.factor = request.factor;
    frame.factorRows = request.factorRows;
    if (frame.gramSize() > gramRows_) {
      gramRows_ = frame.gramSize();
      backend_->prepare({Step(Gram{0, parameters_})}, {1, outputs_, gramRows_});
    }
    std::fill_n(request.values, frame.gramSize() * frame.gramSize(), 0.0);
    backend_->run(Step(Gram{0, parameters_}), frame);
  }

  Vector theta() {
    Vector values(static_cast<std::size_t>(parameters_));
    backend_->readView(flat(Space::kTheta), 1, values.data());
    return values;
  }
  void setTheta(const Vector& values) {
    backend_->writeView(flat(Space::kTheta), 1, values.data());
  }

  int forwards = 0;

 protected:
  /// z [m] of one sample of the batch.
  virtual Vector evaluate(int sample, const Vector& theta) = 0;
  /// dz/dtheta [m, n].
  virtual Matrix differentiate(int sample, const Vector& theta) = 0;
  int batch_ = 1;

 private:
  View flat(Space space) const {
    const int n = static_cast<int>(parameters_);
    return {space, 0, 1, n, n, n};
  }
  void writeRows(const Matrix& rows) {
    backend_->writeView(flat(Space::kJacobian), rows.rows, rows.values.data());
  }

  std::unique_ptr<Backend> backend_;
  int outputs_;
  int gramRows_ = 0;
  std::int64_t parameters_;
};

/// z = J theta + offset, with J and the offset free to change between steps.
class LinearObjective : public FormulaObjective {
 public:
  LinearObjective(Precision precision, const Vector& theta, const Matrix& jacobian)
      : FormulaObjective(precision, jacobian.rows, theta),
        slope(jacobian),
        offset(static_cast<std::size_t>(jacobian.rows), 0.0) {}

  Matrix slope;
  Vector offset;

 protected:
  Vector evaluate(int, const Vector& theta) override {
    Vector z = slope * theta;
    for (std::size_t c = 0; c < z.size(); ++c) z[c] += offset[c];
    return z;
  }
  Matrix differentiate(int, const Vector&) override { return slope; }
};

/// z = V tanh(W x) + b over samples x; theta = (W [h, d], V [m, h], b [m]).
class TanhNetwork : public FormulaObjective {
 public:
  TanhNetwork(Precision precision, int inputs, int hidden, int outputs, const Vector& theta)
      : FormulaObjective(precision, outputs, theta), inputs_(inputs), hidden_(hidden) {}

  static int size(int inputs, int hidden, int outputs) {
    return hidden * inputs + outputs * hidden + outputs;
  }
  void setBatch(const std::vector<Vector>& samples) {
    samples_ = samples;
    batch_ = static_cast<int>(samples.size());
  }

 protected:
  Vector evaluate(int sample, const Vector& theta) override {
    const Vector a = activations(sample, theta);
    Vector z(outputs());
    for (int c = 0; c < outputs(); ++c) {
      z[c] = theta[bias(c)];
      for (int i = 0; i < hidden_; ++i) z[c] += theta[output(c, i)] * a[i];
    }
    return z;
  }
  Matrix differentiate(int sample, const Vector& theta) override {
    const Vector a = activations(sample, theta);
    Matrix j(outputs(), static_cast<int>(parameters()));
    for (int c = 0; c < outputs(); ++c) {
      j(c, bias(c)) = 1;
      for (int i = 0; i < hidden_; ++i) {
        j(c, output(c, i)) = a[i];
        const double slope = theta[output(c, i)] * (1 - a[i] * a[i]);
        for (int d = 0; d < inputs_; ++d) j(c, i * inputs_ + d) = slope * samples_[sample][d];
      }
    }
    return j;
  }

 private:
  int output(int c, int i) const { return hidden_ * inputs_ + c * hidden_ + i; }
  int bias(int c) const { return hidden_ * inputs_ + outputs() * hidden_ + c; }
  Vector activations(int sample, const Vector& theta) const {
    Vector a(hidden_, 0.0);
    for (int i = 0; i < hidden_; ++i) {
      for (int d = 0; d < inputs_; ++d) a[i] += theta[i * inputs_ + d] * samples_[sample][d];
      a[i] = std::tanh(a[i]);
    }
    return a;
  }

  int inputs_, hidden_;
  std::vector<Vector> samples_;
};

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  double normal() { return normal_(engine_); }
  int below(int end) { return static_cast<int>(engine_() % static_cast<std::uint64_t>(end)); }
  Vector vector(int n, double scale = 1) {
    Vector v(n);
    for (double& x : v) x = scale * normal();
    return v;
  }
  Matrix matrix(int rows, int cols, double scale = 1) {
    Matrix m(rows, cols);
    m.values = vector(rows * cols, scale);
    return m;
  }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<double> normal_;
};

inline Vector covarianceOf(FormulaObjective& objective, const LokoOptimizer& optimizer) {
  Vector p(static_cast<std::size_t>(objective.parameters()));
  objective.backend().readState(*optimizer.state().p, p.data());
  return p;
}

/// The rows of filter/low_rank.h, one after the other.
inline Vector factorValuesOf(FormulaObjective& objective, const LokoOptimizer& optimizer) {
  const StateArray& factor = *optimizer.state().factor;
  Vector values(static_cast<std::size_t>(factor.size()));
  objective.backend().readState(factor, values.data());
  return values;
}

/// Where an entry of the optimizer's state begins among its numbers.
inline std::size_t placeOf(Optimizer& optimizer, FormulaObjective& objective,
                           const std::string& name) {
  std::size_t begin = 0;
  for (const StateEntry& entry : describeState(optimizer, objective.parameters())) {
    if (entry.name == name) return begin;
    begin += static_cast<std::size_t>(entry.size);
  }
  FAIL("no entry ", name);
  return 0;
}

/// The number that the optimizer's state has under a name.
inline double entryOf(Optimizer& optimizer, FormulaObjective& objective, const std::string& name) {
  return readState(optimizer, objective)[placeOf(optimizer, objective, name)];
}

inline LokoOptimizer makeLoko(FormulaObjective& objective, const LokoOptions& options) {
  return LokoOptimizer(objective.backend(), objective.parameters(), objective.outputs(), options);
}

inline InitialCovariance uniform(double p0) {
  InitialCovariance result;
  result.kind = InitialCovariance::Kind::kUniform;
  result.value = p0;
  return result;
}

inline RankOption exactRank() {
  return {RankOption::Kind::kExact, 0, 0};
}

/// Least squares with R = r0 I and no guard in the way: the textbook measurement update.
inline LokoOptions regression(double p0, double r0) {
  LokoOptions options;
  options.observation = Observation::kRegression;
  options.noise = NoiseMode::kFixed;
  options.r0 = r0;
  options.p0 = uniform(p0);
  return options;
}

inline Targets label(int value) {
  return {{value}, {}};
}
inline Targets values(const Vector& y) {
  return {{}, y};
}

/// The iterated categorical update with all its rows.
inline LokoOptions iterated(double p0) {
  LokoOptions options;
  options.observation = Observation::kCategorical;
  options.rank = exactRank();
  options.p0 = uniform(p0);
  options.update = Update::kIterated;
  return options;
}

/// Least squares on the logits with a noise of variance 1/2, as the dense filters have.
inline LokoOptions fixedNoise(Covariance covariance, int rank) {
  LokoOptions options;
  options.observation = Observation::kLogits;
  options.noise = NoiseMode::kFixed;
  options.r0 = 0.5;
  options.trustRegion = HUGE_VAL;
  options.p0 = uniform(0.75);
  options.covariance = covariance;
  options.covarianceRank = rank;
  return options;
}

}  // namespace loko::test
