#pragma once

// A number for the reference operations that carries, beside its value, a bound on what any sensible
// evaluation in a shorter format may be off by. Running the specification with this type yields the
// tolerance of every output element; no tolerance in the op tests is guessed.
//
// First-order rounding analysis in units of the unit roundoff u. A sum of n terms of total magnitude
// m is off by at most n u m, whatever the order of the additions (trees, lanes, blocks, with or
// without fused multiply-adds); a product or quotient adds one rounding of its own.

#include <algorithm>
#include <cmath>

namespace loko::test {

class Bound {
 public:
  Bound() = default;
  explicit Bound(double value)
      : value_(value),
        magnitude_(std::fabs(value)),
        error_(static_cast<double>(static_cast<float>(value)) == value ? 0 : std::fabs(value)) {}

  double value() const { return value_; }
  /// In units of u.
  double error() const { return error_ + additions_ * magnitude_; }
  explicit operator double() const { return value_; }

  friend Bound operator+(const Bound& a, const Bound& b) {
    Bound sum = result(a.value_ + b.value_, a.magnitude_ + b.magnitude_, a.error_ + b.error_);
    sum.additions_ = a.additions_ + b.additions_ + 1;
    return sum;
  }
  friend Bound operator-(const Bound& a, const Bound& b) { return a + b.negated(); }
  friend Bound operator*(const Bound& a, const Bound& b) {
    return result(
        a.value_ * b.value_, a.magnitude_ * b.magnitude_,
        a.error() * b.magnitude_ + b.error() * a.magnitude_ + a.magnitude_ * b.magnitude_);
  }
  // Two roundings: a division may be done as a product with a reciprocal.
  friend Bound operator/(const Bound& a, const Bound& b) {
    const double divisor = std::fabs(b.value_), quotient = a.magnitude_ / divisor;
    return result(a.value_ / b.value_, quotient,
                  a.error() / divisor + quotient * b.error() / divisor + 2 * quotient);
  }
  Bound& operator+=(const Bound& other) { return *this = *this + other; }
  Bound& operator*=(const Bound& other) { return *this = *this * other; }
  friend bool operator>(const Bound& a, const Bound& b) { return a.value_ > b.value_; }
  friend bool operator<(const Bound& a, const Bound& b) { return a.value_ < b.value_; }

  // Elementary functions: |f'| times the error of the argument, plus their own error of at most
  // 3 ulp = 6 u (exp, erf) and 4 ulp = 8 u (tanh), see cpu/kernels.h; sqrt is correctly rounded.
  friend Bound exp(const Bound& x) {
    const double y = std::exp(x.value_);
    return result(y, y, y * (x.error() + 6));
  }
  friend Bound erf(const Bound& x) {
    const double y = std::erf(x.value_),
                 slope = 1.1283791670955126 * std::exp(-x.value_ * x.value_);
    return result(y, std::fabs(y), slope * x.error() + 6 * std::fabs(y));
  }
  friend Bound tanh(const Bound& x) {
    const double y = std::tanh(x.value_);
    return result(y, std::fabs(y), (1 - y * y) * x.error() + 8 * std::fabs(y));
  }
  friend Bound sqrt(const Bound& x) {
    const double y = std::sqrt(x.value_);
    return result(y, y, x.error() / (2 * y) + y);
  }

 private:
  static Bound result(double value, double magnitude, double error) {
    Bound bound;
    bound.value_ = value;
    bound.magnitude_ = magnitude;
    bound.error_ = error;
    return bound;
  }
  Bound negated() const {
    Bound bound = *this;
    bound.value_ = -value_;
    return bound;
  }

  double value_ = 0;
  double magnitude_ = 0;  // sum of the absolute values of the terms
  double error_ = 0;      // of the terms
  double additions_ = 0;
};

}  // namespace loko::test
