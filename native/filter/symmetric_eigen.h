#pragma once

#include <vector>

namespace loko {

/// Eigenpairs of a symmetric matrix, largest eigenvalue first.
struct Eigenpairs {
  std::vector<double> values;   // [k]
  std::vector<double> vectors;  // [k, k], orthonormal rows
};

/// Of A [k, k], of which the lower triangle is read: Householder reduction to a tridiagonal matrix, then
/// implicit QL (Golub and Van Loan, Matrix Computations, 8.3). About 9 k^3 operations; eigenvalues are right
/// to some rounding errors of the largest. False where a number is not finite, or it does not converge.
bool symmetricEigenpairs(const std::vector<double>& a, int k, Eigenpairs& result);

}  // namespace loko
