#pragma once

// The small float64 linear algebra of the filter, row-major. Loops run along rows of memory, sums
// have a fixed order, and nothing here is multi-threaded: at m = 1000 outputs and k = 100 rows all
// of it takes milliseconds beside a backward pass of seconds.

#include <vector>

namespace loko {

enum class Triangle {
  kFull,
  kUpperResult,  // only the upper triangle of C is wanted; its strict lower part is left at 0
  kUpperLeft,    // A is upper triangular: a[l][i] = 0 for l > i
};

/// C += A^T B with A [depth, rows], B [depth, cols], C [rows, cols], leading dimensions as given.
/// kUpperResult expects the strict lower part of C to be 0 on entry.
struct TransposedProduct {
  const double* a = nullptr;
  int lda = 0;
  const double* b = nullptr;
  int ldb = 0;
  double* c = nullptr;
  int ldc = 0;
  int depth = 0, rows = 0, cols = 0;
  Triangle triangle = Triangle::kFull;
};
void addTransposedProduct(const TransposedProduct& product);

/// Factors the symmetric S [k, k] in place, S = L L^T: the upper triangle becomes L^T, the strict
/// lower one is not read and not written. False (S is spoiled) when a pivot is not larger than what
/// rounding leaves of its diagonal entry, k * 2^-52 * S_ii: the factor would be noise.
bool factorCholesky(std::vector<double>& s, int k);

/// x <- L^-1 x, with the factor as factorCholesky leaves it.
void solveLower(const std::vector<double>& factor, int k, double* x);
/// x <- L^-T x.
void solveUpper(const std::vector<double>& factor, int k, double* x);
/// L^-1 [k, k], lower triangular, zeros above.
void invertLower(const std::vector<double>& factor, int k, std::vector<double>& inverse);

double dot(const std::vector<double>& x, const std::vector<double>& y);

/// y = A x for a symmetric A [k, k].
void multiplySymmetric(const std::vector<double>& a, int k, const double* x, double* y);

}  // namespace loko
