#include "filter/symmetric_eigen.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <numeric>

namespace loko {
namespace {

constexpr int kMostSweeps = 60;  // per eigenvalue; two or three are usual
// Of the largest entry: what is below counts as 0, so that squares do not underflow.
constexpr double kNothing = 1e-30;

/// A = Q^T T Q with T tridiagonal. All matrices are row-major [k, k].
struct Tridiagonal {
  std::vector<double> diagonal;  // [k]
  std::vector<double> beside;    // [k]; beside[i] couples i and i + 1, the last is 0
  std::vector<double> rows;      // Q
};

double* row(std::vector<double>& matrix, int k, int i) {
  return matrix.data() + static_cast<std::ptrdiff_t>(i) * k;
}

/// Applies I - 2 v v^T / |v|^2 to both sides of the trailing matrix of A that begins at `first`; v [k - first].
void reflectBothSides(std::vector<double>& a, int k, int first, const std::vector<double>& v,
                      double scale) {
  const int size = k - first;
  std::vector<double> w(v.size(), 0);
  for (int i = 0; i < size; ++i) {
    const double* from = row(a, k, first + i) + first;
    for (int j = 0; j < size; ++j)
      w[static_cast<std::size_t>(i)] += from[j] * v[static_cast<std::size_t>(j)];
  }
  double product = 0;
  for (std::size_t i = 0; i < v.size(); ++i) product += (w[i] *= scale) * v[i];
  for (std::size_t i = 0; i < v.size(); ++i) w[i] -= 0.5 * scale * product * v[i];
  for (int i = 0; i < size; ++i) {
    double* to = row(a, k, first + i) + first;
    const double vi = v[static_cast<std::size_t>(i)], wi = w[static_cast<std::size_t>(i)];
    for (int j = 0; j < size; ++j) {
      to[j] -= vi * w[static_cast<std::size_t>(j)] + wi * v[static_cast<std::size_t>(j)];
    }
  }
}

/// Q <- (I - scale v v^T) Q on the rows from `first` on.
void reflectRows(std::vector<double>& q, int k, int first, const std::vector<double>& v,
                 double scale) {
  std::vector<double> sum(static_cast<std::size_t>(k), 0);
  for (int i = first; i < k; ++i) {
    const double* from = row(q, k, i);
    const double factor = scale * v[static_cast<std::size_t>(i - first)];
    for (int j = 0; j < k; ++j) sum[static_cast<std::size_t>(j)] += factor * from[j];
  }
  for (int i = first; i < k; ++i) {
    double* to = row(q, k, i);
    const double factor = v[static_cast<std::size_t>(i - first)];
    for (int j = 0; j < k; ++j) to[j] -= factor * sum[static_cast<std::size_t>(j)];
  }
}

/// The largest entry of A is 1.
Tridiagonal tridiagonalise(std::vector<double> a, int k) {
  Tridiagonal result;
  result.rows.assign(static_cast<std::size_t>(k) * static_cast<std::size_t>(k), 0);
  for (int i = 0; i < k; ++i) row(result.rows, k, i)[i] = 1;
  for (int column = 0; column + 2 < k; ++column) {
    const int first = column + 1;
    std::vector<double> v(static_cast<std::size_t>(k - first));
    double squares = 0;
    for (int i = first; i < k; ++i) {
      v[static_cast<std::size_t>(i - first)] = row(a, k, i)[column];
      squares += v[static_cast<std::size_t>(i - first)] * v[static_cast<std::size_t>(i - first)];
    }
    const double norm = std::sqrt(squares);
    const double head = v[0];
    // Below the head all is 0 already.
    if (!(norm > kNothing) || !(norm > std::fabs(head))) continue;
    v[0] += std::copysign(norm, head);
    const double scale = 2 / (squares - head * head + v[0] * v[0]);
    reflectBothSides(a, k, first, v, scale);
    reflectRows(result.rows, k, first, v, scale);
    row(a, k, first)[column] = -std::copysign(norm, head);
  }
  for (int i = 0; i < k; ++i) {
    result.diagonal.push_back(row(a, k, i)[i]);
    result.beside.push_back(i + 1 < k ? row(a, k, i + 1)[i] : 0);
  }
  return result;
}

/// Rows i and i + 1 of Q turn by the rotation (c, s).
void rotateRows(std::vector<double>& q, int k, int i, double c, double s) {
  double *upper = row(q, k, i), *lower = row(q, k, i + 1);
  for (int j = 0; j < k; ++j) {
    const double x = upper[j], y = lower[j];
    upper[j] = c * x - s * y;
    lower[j] = s * x + c * y;
  }
}

/// Not std::hypot, which would need glibc 2.35. Entries are at most 1, so no square overflows, and one that
/// underflows is nothing beside them.
double length(double x, double y) {
  return std::sqrt(x * x + y * y);
}

/// One implicit QL sweep over the unreduced block [first, last] with Wilkinson's shift.
void sweep(Tridiagonal& t, int k, int first, int last) {
  std::vector<double>&d = t.diagonal, &e = t.beside;
  const auto at = [](int i) { return static_cast<std::size_t>(i); };
  double g = (d[at(first + 1)] - d[at(first)]) / (2 * e[at(first)]);
  g = d[at(last)] - d[at(first)] + e[at(first)] / (g + std::copysign(length(g, 1), g));
  double s = 1, c = 1, p = 0;
  for (int i = last - 1; i >= first; --i) {
    const double f = s * e[at(i)], b = c * e[at(i)];
    const double r = length(f, g);
    e[at(i + 1)] = r;
    if (r == 0) {  // the block falls apart here
      d[at(i + 1)] -= p;
      e[at(last)] = 0;
      return;
    }
    s = f / r;
    c = g / r;
    g = d[at(i + 1)] - p;
    const double shifted = (d[at(i)] - g) * s + 2 * c * b;
    p = s * shifted;
    d[at(i + 1)] = g + p;
    g = c * shifted - b;
    rotateRows(t.rows, k, i, c, s);
  }
  d[at(first)] -= p;
  e[at(first)] = g;
  e[at(last)] = 0;
}

bool diagonalise(Tridiagonal& t, int k) {
  // Relative to the norm of the whole: among eigenvalues that are 0 but for rounding nothing else converges.
  double norm = 0;
  for (std::size_t i = 0; i < t.diagonal.size(); ++i) {
    norm = std::max(norm, std::fabs(t.diagonal[i]) + std::fabs(t.beside[i]));
  }
  for (int first = 0; first < k; ++first) {
    for (int sweeps = 0;; ++sweeps) {
      int last = first;
      while (last + 1 < k &&
             !(std::fabs(t.beside[static_cast<std::size_t>(last)]) <= DBL_EPSILON * norm)) {
        ++last;
      }
      if (last == first) break;
      if (sweeps == kMostSweeps) return false;
      sweep(t, k, first, last);
    }
  }
  return true;
}

}  // namespace

bool symmetricEigenpairs(const std::vector<double>& a, int k, Eigenpairs& result) {
  double largest = 0;
  for (const double value : a) {
    if (!std::isfinite(value)) return false;
    largest = std::max(largest, std::fabs(value));
  }
  std::vector<double> scaled = a;
  if (largest > 0) {
    for (double& value : scaled) value /= largest;
  }
  Tridiagonal t = tridiagonalise(std::move(scaled), k);
  if (!diagonalise(t, k)) return false;
  std::vector<int> order(static_cast<std::size_t>(k));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int i, int j) {
    return t.diagonal[static_cast<std::size_t>(i)] > t.diagonal[static_cast<std::size_t>(j)];
  });
  result.values.clear();
  result.vectors.clear();
  for (const int i : order) {
    result.values.push_back(largest * t.diagonal[static_cast<std::size_t>(i)]);
    const double* vector = row(t.rows, k, i);
    result.vectors.insert(result.vectors.end(), vector, vector + k);
  }
  return true;
}

}  // namespace loko
