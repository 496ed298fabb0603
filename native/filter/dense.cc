#include "filter/dense.h"

#include <algorithm>
#include <cfloat>
#include <cstddef>

namespace loko {
namespace {

// Four doubles: one AVX register, or two of SSE2 or NEON. The lanes are independent sums, so the
// result does not depend on the width that the machine has.
using Lanes = double __attribute__((vector_size(32), aligned(8), may_alias));

constexpr int kTileRows = 4;
constexpr int kTileCols = 8;
// Rows of A and B per pass: that many pages stay in the translation buffer, and the strip of B in L1.
constexpr int kDepthBlock = 64;

inline __attribute__((always_inline)) void fullTile(const double* a, std::ptrdiff_t lda,
                                                    const double* b, std::ptrdiff_t ldb, double* c,
                                                    std::ptrdiff_t ldc, int depth) {
  Lanes sum[kTileRows][2];
  for (int r = 0; r < kTileRows; ++r) {
    sum[r][0] = *reinterpret_cast<const Lanes*>(c + r * ldc);
    sum[r][1] = *reinterpret_cast<const Lanes*>(c + r * ldc + 4);
  }
  for (int l = 0; l < depth; ++l, a += lda, b += ldb) {
    const Lanes b0 = *reinterpret_cast<const Lanes*>(b);
    const Lanes b1 = *reinterpret_cast<const Lanes*>(b + 4);
    for (int r = 0; r < kTileRows; ++r) {
      sum[r][0] += a[r] * b0;
      sum[r][1] += a[r] * b1;
    }
  }
  for (int r = 0; r < kTileRows; ++r) {
    *reinterpret_cast<Lanes*>(c + r * ldc) = sum[r][0];
    *reinterpret_cast<Lanes*>(c + r * ldc + 4) = sum[r][1];
  }
}

inline __attribute__((always_inline)) void edgeTile(const double* a, std::ptrdiff_t lda,
                                                    const double* b, std::ptrdiff_t ldb, double* c,
                                                    std::ptrdiff_t ldc, int depth, int rows,
                                                    int cols) {
  for (int l = 0; l < depth; ++l, a += lda, b += ldb) {
    for (int r = 0; r < rows; ++r) {
      for (int j = 0; j < cols; ++j) c[r * ldc + j] += a[r] * b[j];
    }
  }
}

inline __attribute__((always_inline)) void productBody(const TransposedProduct& p) {
  const std::ptrdiff_t lda = p.lda, ldb = p.ldb, ldc = p.ldc;
  for (int l0 = 0; l0 < p.depth; l0 += kDepthBlock) {
    const int depth = std::min(kDepthBlock, p.depth - l0);
    const int firstRow = p.triangle == Triangle::kUpperLeft ? l0 / kTileRows * kTileRows : 0;
    for (int j = 0; j < p.cols; j += kTileCols) {
      const int cols = std::min(kTileCols, p.cols - j);
      const int lastRow =
          p.triangle == Triangle::kUpperResult ? std::min(p.rows, j + cols) : p.rows;
      const double* b = p.b + l0 * ldb + j;
      for (int i = firstRow; i < lastRow; i += kTileRows) {
        const int rows = std::min(kTileRows, p.rows - i);
        const double* a = p.a + l0 * lda + i;
        double* c = p.c + i * ldc + j;
        if (rows == kTileRows && cols == kTileCols) {
          fullTile(a, lda, b, ldb, c, ldc, depth);
        } else {
          edgeTile(a, lda, b, ldb, c, ldc, depth, rows, cols);
        }
      }
    }
  }
  if (p.triangle == Triangle::kUpperResult) {
    for (int i = 1; i < p.rows; ++i) {
      for (int j = std::max(0, i - kTileRows - kTileCols); j < i; ++j) p.c[i * ldc + j] = 0;
    }
  }
}

#if defined(__x86_64__)
// Without FMA on purpose: the same bits as the portable body, at twice the width.
__attribute__((target("avx2"))) void productAvx2(const TransposedProduct& p) {
  productBody(p);
}
#endif

}  // namespace

void addTransposedProduct(const TransposedProduct& product) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return productAvx2(product);
#endif
  productBody(product);
}

bool factorCholesky(std::vector<double>& s, int k) {
  const auto row = [&](int i) { return s.data() + static_cast<std::ptrdiff_t>(i) * k; };
  std::vector<double> smallest(static_cast<std::size_t>(k));
  for (int i = 0; i < k; ++i) {
    smallest[static_cast<std::size_t>(i)] = k * DBL_EPSILON * row(i)[i];
  }
  for (int j = 0; j < k; ++j) {
    double* u = row(j);
    // The negated comparison also refuses NaN.
    if (!(u[j] > smallest[static_cast<std::size_t>(j)])) return false;
    const double inverse = 1 / __builtin_sqrt(u[j]);
    u[j] = __builtin_sqrt(u[j]);
    for (int c = j + 1; c < k; ++c) u[c] *= inverse;
    for (int i = j + 1; i < k; ++i) {
      double* target = row(i);
      const double factor = u[i];
      for (int c = i; c < k; ++c) target[c] -= factor * u[c];
    }
  }
  return true;
}

void solveLower(const std::vector<double>& factor, int k, double* x) {
  for (int j = 0; j < k; ++j) {
    const double* u = factor.data() + static_cast<std::ptrdiff_t>(j) * k;
    x[j] /= u[j];
    for (int i = j + 1; i < k; ++i) x[i] -= u[i] * x[j];
  }
}

void solveUpper(const std::vector<double>& factor, int k, double* x) {
  for (int j = k - 1; j >= 0; --j) {
    const double* u = factor.data() + static_cast<std::ptrdiff_t>(j) * k;
    double sum = x[j];
    for (int i = j + 1; i < k; ++i) sum -= u[i] * x[i];
    x[j] = sum / u[j];
  }
}

void invertLower(const std::vector<double>& factor, int k, std::vector<double>& inverse) {
  inverse.assign(static_cast<std::size_t>(k) * static_cast<std::size_t>(k), 0);
  const auto row = [&](int i) { return inverse.data() + static_cast<std::ptrdiff_t>(i) * k; };
  for (int i = 0; i < k; ++i) row(i)[i] = 1;
  for (int j = 0; j < k; ++j) {
    const double* u = factor.data() + static_cast<std::ptrdiff_t>(j) * k;
    double* x = row(j);
    for (int c = 0; c <= j; ++c) x[c] /= u[j];
    for (int i = j + 1; i < k; ++i) {
      double* target = row(i);
      for (int c = 0; c <= j; ++c) target[c] -= u[i] * x[c];
    }
  }
}

double dot(const std::vector<double>& x, const std::vector<double>& y) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}

void multiplySymmetric(const std::vector<double>& a, int k, const double* x, double* y) {
  std::fill(y, y + k, 0.0);
  for (int i = 0; i < k; ++i) {
    const double* row = a.data() + static_cast<std::ptrdiff_t>(i) * k;
    for (int j = 0; j < k; ++j) y[j] += row[j] * x[i];
  }
}

}  // namespace loko
