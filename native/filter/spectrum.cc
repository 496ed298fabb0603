#include "filter/spectrum.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <numeric>

namespace loko {
namespace {

constexpr double kSmallest = 1e-200;

/// sign * g and its derivative in the offset, and sum |terms|, at pole + sign * offset. Four
/// interleaved sums: a fixed order that still fills the divider.
struct Secular {
  double value = 0, slope = 0, magnitude = 0;
};

Secular evaluate(const std::vector<double>& weight, const std::vector<double>& difference,
                 double sign, double offset) {
  double value[4] = {}, slope[4] = {}, magnitude[4] = {};
  const double shift = sign * offset;
  const auto add = [&](std::size_t j, int lane) {
    const double inverse = 1 / (difference[j] - shift);
    const double term = weight[j] * inverse;
    value[lane] += term;
    slope[lane] += term * inverse;
    magnitude[lane] += std::fabs(term);
  };
  const std::size_t count = weight.size();
  std::size_t j = 0;
  for (; j + 4 <= count; j += 4) {
    for (int lane = 0; lane < 4; ++lane) add(j + static_cast<std::size_t>(lane), lane);
  }
  for (; j < count; ++j) add(j, 0);
  const auto total = [](const double* lanes) {
    return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
  };
  return {sign * total(value), total(slope), total(magnitude)};
}

}  // namespace

void SoftmaxSpectrum::compute(const std::vector<double>& pi, int maxPairs, double share) {
  classes_ = static_cast<int>(pi.size());
  values_.clear();
  vectors_.clear();
  sum_ = 0;
  groupEqual(pi);
  computeTrace();
  maxPairs = std::min(maxPairs, classes_ - 1);
  const double target = share < 1 ? share * trace_ : HUGE_VAL;
  for (std::size_t i = 0; i < groups_.size() && !complete(maxPairs, target); ++i) {
    appendInside(groups_[i], maxPairs, target);
    if (i + 1 < groups_.size() && !complete(maxPairs, target)) {
      appendRoot(findRoot(static_cast<int>(i) + 1));
    }
  }
}

bool SoftmaxSpectrum::complete(int maxPairs, double target) const {
  return pairs() >= maxPairs || sum_ >= target;
}

void SoftmaxSpectrum::groupEqual(const std::vector<double>& pi) {
  order_.resize(pi.size());
  std::iota(order_.begin(), order_.end(), 0);
  std::sort(order_.begin(), order_.end(), [&](int a, int b) {
    const double x = pi[static_cast<std::size_t>(a)], y = pi[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  });
  sorted_.clear();
  for (const int c : order_) {
    sorted_.push_back(std::max(pi[static_cast<std::size_t>(c)], kSmallest));
  }
  groups_.clear();
  pole_.clear();
  weight_.clear();
  for (int i = 0; i < classes_;) {
    int end = i + 1;
    const double value = sorted_[static_cast<std::size_t>(i)];
    while (end < classes_ && sorted_[static_cast<std::size_t>(end)] == value) ++end;
    groups_.push_back({i, end});
    pole_.push_back(value);
    weight_.push_back((end - i) * value);
    i = end;
  }
}

void SoftmaxSpectrum::computeTrace() {
  // Only for the largest does 1 - pi cancel; it is the sum of the others.
  double others = 0;
  trace_ = 0;
  for (std::size_t i = sorted_.size(); i-- > 1;) {
    others += sorted_[i];
    trace_ += sorted_[i] * (1 - sorted_[i]);
  }
  trace_ += sorted_[0] * others;
}

void SoftmaxSpectrum::appendInside(const Group& group, int maxPairs, double target) {
  const double value = sorted_[static_cast<std::size_t>(group.begin)];
  for (int i = 1; i < group.size() && !complete(maxPairs, target); ++i) {
    const std::size_t row = vectors_.size();
    vectors_.resize(row + static_cast<std::size_t>(classes_), 0);
    const double scale = 1 / std::sqrt(static_cast<double>(i) * (i + 1));
    for (int j = 0; j <= i; ++j) {
      const int c = order_[static_cast<std::size_t>(group.begin + j)];
      vectors_[row + static_cast<std::size_t>(c)] = j < i ? scale : -i * scale;
    }
    values_.push_back(value);
    sum_ += value;
  }
}

SoftmaxSpectrum::Root SoftmaxSpectrum::findRoot(int lower) {
  const int upper = lower - 1;
  const auto pole = [&](int i) { return pole_[static_cast<std::size_t>(i)]; };
  const auto setOrigin = [&](int origin) {
    difference_.resize(pole_.size());
    for (std::size_t j = 0; j < pole_.size(); ++j) difference_[j] = pole_[j] - pole(origin);
  };
  const double half = 0.5 * (pole(upper) - pole(lower));
  setOrigin(lower);
  Secular at = evaluate(weight_, difference_, 1, half);
  Root root{lower, 1, half};
  if (at.value < 0) {
    root = {upper, -1, half};
    setOrigin(upper);
    at = evaluate(weight_, difference_, -1, half);
  }

  // sign * g rises with the offset: -weight/offset from the pole itself, the rest from the others.
  // Those against the pole are at least twice as far away as the offset, which bounds their sum and
  // so the offset from below.
  const double own = weight_[static_cast<std::size_t>(root.pole)];
  double against = 0;
  for (std::size_t j = 0; j < pole_.size(); ++j) {
    if (root.sign * difference_[j] > 0) against += 2 * weight_[j] / std::fabs(difference_[j]);
  }
  double low = std::min(own / against, half), high = half;
  double offset = half;
  // Newton's iteration on offset * (sign * g), which has no pole at 0, inside a shrinking bracket.
  // At the tolerance the sum is rounding; 200 halvings of the exponent always get there.
  for (int iteration = 0; iteration < 200; ++iteration) {
    if (std::fabs(at.value) <= 2 * DBL_EPSILON * at.magnitude) break;
    (at.value > 0 ? high : low) = offset;
    double next = offset - offset * at.value / (at.value + offset * at.slope);
    if (!(next > low && next < high)) next = std::sqrt(low) * std::sqrt(high);
    if (next == offset || !(next > low && next < high)) break;
    offset = next;
    at = evaluate(weight_, difference_, root.sign, offset);
  }
  root.offset = offset;
  return root;
}

void SoftmaxSpectrum::appendRoot(const Root& root) {
  const std::size_t row = vectors_.size();
  vectors_.resize(row + static_cast<std::size_t>(classes_));
  const double shift = root.sign * root.offset;
  double squares = 0;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const double entry = pole_[g] / (difference_[g] - shift);
    squares += groups_[g].size() * entry * entry;
  }
  const double scale = 1 / std::sqrt(squares);
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const double entry = scale * pole_[g] / (difference_[g] - shift);
    for (int i = groups_[g].begin; i < groups_[g].end; ++i) {
      vectors_[row + static_cast<std::size_t>(order_[static_cast<std::size_t>(i)])] = entry;
    }
  }
  const double value = pole_[static_cast<std::size_t>(root.pole)] + shift;
  values_.push_back(value);
  sum_ += value;
}

}  // namespace loko
