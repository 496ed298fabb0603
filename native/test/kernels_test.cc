// The elementwise functions and reductions of the kernels table.
#include <doctest/doctest.h>

#include <cfloat>
#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "cpu/isa.h"

namespace {

using namespace loko::cpu;
using loko::Activation;

// Distance from `value` to `exact` in units of the spacing of floats at `exact`.
double ulps(float value, double exact) {
  if (std::isnan(value) || std::isnan(exact))
    return std::isnan(value) && std::isnan(exact) ? 0 : 1e9;
  if (std::abs(exact) > FLT_MAX) return std::isinf(value) && (value > 0) == (exact > 0) ? 0 : 1e9;
  int exponent = 0;
  std::frexp(exact, &exponent);
  return std::abs(value - exact) / std::ldexp(1.0, std::max(exponent - 24, -149));
}

// Every 1,009th float from -high to high: all exponents, more than 2 million values.
std::vector<float> denseGrid(float high) {
  std::vector<float> grid;
  std::uint32_t last = 0;
  std::memcpy(&last, &high, sizeof last);
  for (std::uint32_t bits = 0; bits <= last; bits += 1009) {
    float value = 0;
    std::memcpy(&value, &bits, sizeof value);
    grid.push_back(value);
    grid.push_back(-value);
  }
  return grid;
}

double worstUlps(const std::vector<float>& x, const std::vector<float>& y,
                 double (*exact)(double)) {
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) worst = std::max(worst, ulps(y[i], exact(x[i])));
  return worst;
}

template <typename Fn>
void forEachIsa(Fn&& fn) {
  for (const Isa isa : availableIsas()) {
    CAPTURE(std::string(isaName(isa)));
    fn(kernels(isa), isa == Isa::kGeneric ? 1.0 : 0.0);
  }
}

std::vector<float> ramp(int count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i)
    values[static_cast<std::size_t>(i)] = std::sin(static_cast<float>(i) * 1.7f) * 3;
  return values;
}

}  // namespace

TEST_CASE("exp, erf and tanh keep their stated error over all magnitudes") {
  const std::vector<float> wide = denseGrid(110);
  std::vector<float> y(wide.size());
  const auto n = static_cast<std::int64_t>(wide.size());
  forEachIsa([&](const Kernels& table, double extra) {
    table.exp(y.data(), wide.data(), n);
    CHECK(worstUlps(wide, y, std::exp) <= 2 + extra);
    table.erf(y.data(), wide.data(), n);
    CHECK(worstUlps(wide, y, std::erf) <= 2 + extra);
    table.tanh(y.data(), wide.data(), n);
    CHECK(worstUlps(wide, y, std::tanh) <= 3 + extra);
  });
}

TEST_CASE("exp, erf and tanh have the right limits and pass NaN on") {
  const float inf = INFINITY;
  const std::vector<float> x = {inf, -inf, NAN, 0.0f, -0.0f, FLT_MAX, -FLT_MAX};
  std::vector<float> y(x.size());
  forEachIsa([&](const Kernels& table, double) {
    table.exp(y.data(), x.data(), 7);
    CHECK(y[0] == inf);
    CHECK(y[1] == 0.0f);
    CHECK(std::isnan(y[2]));
    CHECK(y[3] == 1.0f);
    CHECK(y[5] == inf);
    CHECK(y[6] == 0.0f);
    for (const auto& function : {table.erf, table.tanh}) {
      function(y.data(), x.data(), 7);
      CHECK(y[0] == 1.0f);
      CHECK(y[1] == -1.0f);
      CHECK(std::isnan(y[2]));
      CHECK(std::signbit(y[4]));
      CHECK(y[5] == 1.0f);
      CHECK(y[6] == -1.0f);
    }
  });
}

TEST_CASE("activations and their derivatives are exact to a few units of the last place") {
  struct Kind {
    Activation activation;
    double (*value)(double);
    double (*derivative)(double);
  };
  static constexpr double kTanhScale = 0.79788456080286535588;  // sqrt(2 / pi)
  const Kind kinds[] = {
      {Activation::kGelu, [](double z) { return 0.5 * z * std::erfc(-z * M_SQRT1_2); },
       [](double z) {
         return 0.5 * std::erfc(-z * M_SQRT1_2) + z * std::exp(-0.5 * z * z) / std::sqrt(2 * M_PI);
       }},
      {Activation::kGeluTanh,
       [](double z) { return z / (1 + std::exp(-2 * kTanhScale * (z + 0.044715 * z * z * z))); },
       [](double z) {
         const double w = 2 * kTanhScale * (z + 0.044715 * z * z * z);
         const double s = 1 / (1 + std::exp(-w));
         return s + z * s * (1 - s) * 2 * kTanhScale * (1 + 3 * 0.044715 * z * z);
       }},
      {Activation::kRelu, [](double z) { return z > 0 ? z : 0; },
       [](double z) { return z > 0 ? 1.0 : 0.0; }},
      {Activation::kQuickGelu, [](double z) { return z / (1 + std::exp(-1.702 * z)); },
       [](double z) {
         const double s = 1 / (1 + std::exp(-1.702 * z));
         return s + 1.702 * z * s * (1 - s);
       }},
      {Activation::kTanh, [](double z) { return std::tanh(z); },
       [](double z) { return 1 / (std::cosh(z) * std::cosh(z)); }}};
  std::vector<float> x = denseGrid(30);
  std::vector<float> y(x.size()), d(x.size());
  forEachIsa([&](const Kernels& table, double) {
    for (const Kind& kind : kinds) {
      CAPTURE(static_cast<int>(kind.activation));
      table.activate(kind.activation, y.data(), d.data(), x.data(),
                     static_cast<std::int64_t>(x.size()));
      double worst = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        // Absolute below 1, relative above. The functions themselves have slopes up to 1.2; the
        // product z phi(z) and the rounding of the exponent z^2 / 2 <= 14 where e^-(z^2/2) still
        // matters (z^2 e^-(z^2/2) < 0.8) add a few eps: 4 eps = 4.8e-7 in total.
        const double value = kind.value(x[i]);
        worst = std::max(worst, std::abs(y[i] - value) / std::max(1.0, std::abs(value)));
        worst = std::max(worst, std::abs(d[i] - kind.derivative(x[i])));
      }
      CHECK(worst <= 4 * FLT_EPSILON);
    }
  });
}

TEST_CASE("gelu keeps its relative accuracy in the negative tail") {
  std::vector<float> x;
  for (float z = 0.01f; z < 8; z += 0.001f) x.push_back(-z);
  std::vector<float> y(x.size());
  forEachIsa([&](const Kernels& table, double) {
    table.activate(Activation::kGelu, y.data(), nullptr, x.data(),
                   static_cast<std::int64_t>(x.size()));
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double z = x[i];
      const double exact = 0.5 * z * std::erfc(-z * M_SQRT1_2);
      worst = std::max(worst, std::abs(y[i] / exact - 1));
    }
    // The exponent z^2 / 2 <= 32 is rounded to half an ulp: up to 2^-19 = 1.9e-6, twice for the two
    // products that make it.
    CHECK(worst <= 4e-6);
  });
}

TEST_CASE("elementwise functions treat every length alike and write nothing behind it") {
  forEachIsa([&](const Kernels& table, double) {
    const std::vector<float> x = ramp(70);
    std::vector<float> whole(70), part(71), derivative(71), wholeDerivative(70);
    for (const auto& function : {table.exp, table.erf, table.tanh}) {
      function(whole.data(), x.data(), 70);
      for (int n = 0; n <= 70; ++n) {
        std::fill(part.begin(), part.end(), 99.0f);
        function(part.data(), x.data(), n);
        CHECK(std::equal(part.begin(), part.begin() + n, whole.begin()));
        CHECK(part[static_cast<std::size_t>(n)] == 99.0f);
      }
    }
    table.activate(Activation::kGelu, whole.data(), wholeDerivative.data(), x.data(), 70);
    for (int n = 0; n <= 70; ++n) {
      std::fill(part.begin(), part.end(), 99.0f);
      std::fill(derivative.begin(), derivative.end(), 99.0f);
      table.activate(Activation::kGelu, part.data(), derivative.data(), x.data(), n);
      CHECK(std::equal(part.begin(), part.begin() + n, whole.begin()));
      CHECK(std::equal(derivative.begin(), derivative.begin() + n, wholeDerivative.begin()));
      CHECK(part[static_cast<std::size_t>(n)] == 99.0f);
      CHECK(derivative[static_cast<std::size_t>(n)] == 99.0f);
    }
  });
}

TEST_CASE("reductions and vector updates agree with double for every length") {
  forEachIsa([&](const Kernels& table, double) {
    for (int n = 0; n <= 150; ++n) {
      const std::vector<float> x = ramp(n + 1);
      std::vector<float> y(x.rbegin(), x.rend());
      const auto count = static_cast<std::size_t>(n);
      double dot = 0, sum = 0, size = 0, expSum = 0;
      float largest = -INFINITY;
      for (std::size_t i = 0; i < count; ++i) {
        dot += static_cast<double>(x[i]) * y[i];
        sum += x[i];
        size += 9;
        expSum += std::exp(static_cast<double>(x[i]) - 2);
        largest = std::max(largest, x[i]);
      }
      // n eps times the sum of magnitudes (all below 3, products below 9).
      const double bound = n * FLT_EPSILON * size;
      CHECK(std::abs(table.dot(x.data(), y.data(), n) - dot) <= bound);
      CHECK(std::abs(table.sum(x.data(), n) - sum) <= bound);
      CHECK(table.max(x.data(), n) == largest);
      std::vector<float> e(count + 1, 99.0f);
      CHECK(std::abs(table.expSum(e.data(), x.data(), 2, n) - expSum) <=
            (n + 4) * FLT_EPSILON * expSum);
      CHECK(e[count] == 99.0f);

      std::vector<float> updated = y;
      table.axpy(updated.data(), 0.5f, x.data(), n);
      std::vector<float> scaled(count + 1, 99.0f);
      table.scale(scaled.data(), 3.0f, x.data(), n);
      for (std::size_t i = 0; i < count; ++i) {
        CHECK(std::abs(updated[i] - (y[i] + 0.5 * x[i])) <= 5 * FLT_EPSILON);
        CHECK(scaled[i] == 3.0f * x[i]);
      }
      CHECK(updated[count] == y[count]);
      CHECK(scaled[count] == 99.0f);
    }
  });
}

TEST_CASE("max finds NaN wherever it stands") {
  forEachIsa([&](const Kernels& table, double) {
    for (int position = 0; position < 70; ++position) {
      std::vector<float> x = ramp(70);
      x[static_cast<std::size_t>(position)] = NAN;
      CHECK(std::isnan(table.max(x.data(), 70)));
    }
  });
}
