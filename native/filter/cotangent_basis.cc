#include "filter/cotangent_basis.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace loko {
namespace {

/// Appends the part of e outside the span of the eigenvectors, unless nothing but rounding is left.
/// C has no cross terms with it: U^T C r = Lambda U^T r = 0.
void addInnovationDirection(const std::vector<double>& pi, const std::vector<double>& innovation,
                            CotangentBasis& basis) {
  const std::size_t m = innovation.size();
  std::vector<double> rest = innovation, coefficients;
  const auto norm = [&] {
    double sum = 0;
    for (const double value : rest) sum += value * value;
    return std::sqrt(sum);
  };
  const double whole = norm();
  // Twice is enough for orthogonality to rounding (Kahan, Parlett).
  for (int pass = 0; pass < 2; ++pass) {
    double mean = 0;
    for (const double value : rest) mean += value / static_cast<double>(m);
    for (double& value : rest) value -= mean;
    project(basis, rest, coefficients);
    for (std::size_t i = 0; i < coefficients.size(); ++i) {
      for (std::size_t c = 0; c < m; ++c) rest[c] -= coefficients[i] * basis.vectors[i * m + c];
    }
    const double left = norm();
    if (!(left > 1e-8 * whole)) return;
    for (double& value : rest) value /= left;
  }
  double mean = 0, variance = 0;
  for (std::size_t c = 0; c < m; ++c) mean += pi[c] * rest[c];
  for (std::size_t c = 0; c < m; ++c) variance += pi[c] * (rest[c] - mean) * (rest[c] - mean);
  basis.vectors.insert(basis.vectors.end(), rest.begin(), rest.end());
  basis.scale.push_back(std::sqrt(std::max(variance, 1e-200)));
  ++basis.rows;
}

/// Of a categorical observation. Beyond, small eigenvalues of an undecided model cost more than they tell.
int mostRows(const RankOption& rank, int outputs) {
  constexpr int kAlways = 10, kShare = 8;
  const int all = outputs - 1;
  if (rank.kind != RankOption::Kind::kAuto || rank.epsilon == 0) return all;
  return std::min(all, std::max(kAlways, all / kShare));
}

/// One row per output.
void chooseOutputs(int outputs, CotangentBasis& basis) {
  const std::size_t m = static_cast<std::size_t>(outputs);
  basis.rows = outputs;
  basis.scale.assign(m, 1);
  basis.vectors.assign(m * m, 0);
  for (std::size_t c = 0; c < m; ++c) basis.vectors[c * (m + 1)] = 1;
}

}  // namespace

void project(const CotangentBasis& basis, const std::vector<double>& x,
             std::vector<double>& result) {
  result.assign(static_cast<std::size_t>(basis.rows), 0);
  const double* u = basis.vectors.data();
  for (int i = 0; i < basis.rows; ++i, u += basis.outputs) {
    const double* of = x.data() + std::ptrdiff_t{i % basis.samples} * basis.outputs;
    double sum = 0;
    for (int c = 0; c < basis.outputs; ++c) sum += u[c] * of[c];
    result[static_cast<std::size_t>(i)] = sum;
  }
}

void vectorsOf(const CotangentBasis& basis, int sample, std::vector<double>& result) {
  result.clear();
  for (int i = sample; i < basis.rows; i += basis.samples) {
    const double* row = basis.vectors.data() + std::ptrdiff_t{i} * basis.outputs;
    result.insert(result.end(), row, row + basis.outputs);
  }
}

void BasisChooser::choose(const LokoOptions& options, const std::vector<double>& pi,
                          const std::vector<double>& innovation, int samples,
                          CotangentBasis& basis) {
  const std::size_t count = static_cast<std::size_t>(samples), m = innovation.size() / count;
  const RankOption rank = options.rank.value_or(RankOption{});
  std::vector<CotangentBasis> each(count);
  const auto chooseFor = [&](std::size_t sample, const RankOption& wanted) {
    const auto part = [&](const std::vector<double>& values) {
      const auto begin = values.begin() + static_cast<std::ptrdiff_t>(sample * m);
      return values.empty() ? values
                            : std::vector<double>(begin, begin + static_cast<std::ptrdiff_t>(m));
    };
    each[sample].outputs = static_cast<int>(m);
    chooseOne(options.observation, wanted, part(pi), part(innovation), each[sample]);
  };
  trace_ = 0;
  int most = 0;
  for (std::size_t sample = 0; sample < count; ++sample) {
    chooseFor(sample, rank);
    most = std::max(most, each[sample].rows);
    trace_ += spectrum_.trace() / static_cast<double>(samples);
  }
  RankOption same = rank;
  same.kind = RankOption::Kind::kFixed;
  same.rows = most;
  basis.rows = most * samples;
  basis.outputs = static_cast<int>(m);
  basis.samples = samples;
  basis.vectors.resize(static_cast<std::size_t>(basis.rows) * m);
  basis.scale.resize(static_cast<std::size_t>(basis.rows));
  for (std::size_t sample = 0; sample < count; ++sample) {
    if (each[sample].rows < most) chooseFor(sample, same);
    for (std::size_t row = 0; row < static_cast<std::size_t>(most); ++row) {
      const std::size_t at = row * count + sample;
      basis.scale[at] = each[sample].scale[row];
      std::copy_n(each[sample].vectors.data() + row * m, m, basis.vectors.data() + at * m);
    }
  }
}

void BasisChooser::chooseOne(Observation observation, const RankOption& rank,
                             const std::vector<double>& pi, const std::vector<double>& innovation,
                             CotangentBasis& basis) {
  const int m = basis.outputs;
  if (observation == Observation::kCategorical) {
    chooseCategorical(rank, pi, innovation, basis);
  } else if (observation == Observation::kSoftmax) {
    const double share = rank.kind == RankOption::Kind::kAuto ? 1 - rank.epsilon : 1;
    spectrum_.compute(pi, rank.kind == RankOption::Kind::kFixed ? rank.rows : m - 1, share);
    basis.rows = spectrum_.pairs();
    basis.vectors = spectrum_.vectors();
    basis.scale = spectrum_.values();  // U^T C = Lambda U^T
  } else {
    chooseOutputs(m, basis);
  }
}

void BasisChooser::chooseCategorical(const RankOption& rank, const std::vector<double>& pi,
                                     const std::vector<double>& innovation, CotangentBasis& basis) {
  const int m = basis.outputs;
  const auto useSpectrum = [&] {
    basis.rows = spectrum_.pairs();
    basis.vectors = spectrum_.vectors();
    basis.scale.clear();
    for (const double value : spectrum_.values()) basis.scale.push_back(std::sqrt(value));
  };
  if (rank.kind != RankOption::Kind::kFixed) {
    const int most = mostRows(rank, m);
    spectrum_.compute(pi, most < m - 1 ? most - 1 : most,
                      rank.kind == RankOption::Kind::kAuto ? 1 - rank.epsilon : 1);
    useSpectrum();
    if (basis.rows < m - 1) addInnovationDirection(pi, innovation, basis);
    return;
  }
  const int rows = std::min(rank.rows, m - 1);
  spectrum_.compute(pi, rows - 1, 1);
  useSpectrum();
  addInnovationDirection(pi, innovation, basis);
  if (basis.rows < rows) {  // the innovation lies in the span already
    spectrum_.compute(pi, rows, 1);
    useSpectrum();
  }
}

}  // namespace loko
