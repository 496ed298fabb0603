#pragma once

// What an optimizer may ask of a model: the outputs of the current batch, and products of its
// Jacobian with chosen cotangents. core/engine.h implements it over a plan; tests implement it over
// a formula.

#include <cstdint>
#include <vector>

#include "core/backend.h"

namespace loko {

class Objective {
 public:
  virtual ~Objective() = default;

  virtual int outputs() const = 0;              // m
  virtual std::int64_t parameters() const = 0;  // n
  virtual int batch() const = 0;                // B of the current batch
  virtual Backend& backend() = 0;

  /// Runs the current batch through the model at the present theta and keeps what backward needs.
  /// logits [B, m].
  virtual void forward(std::vector<double>& logits) = 0;

  /// Fills rows 0..rows*B-1 of the Jacobian space with G = V J, J = d logits / d theta [m, n].
  /// cotangents V [rows, B, m]; row c*B + b of G belongs to cotangent c of sample b. When `gram` is
  /// given, [rows*B, rows*B], it receives G diag(p) G^T (p null: all ones).
  /// Needs forward() at the same theta before.
  virtual void jacobian(const std::vector<double>& cotangents, int rows, const StateArray* p,
                        double* gram) = 0;

  /// Row 0 of the Jacobian space becomes the sum over samples of cotangents[b] J_b; cotangents [B,
  /// m].
  virtual void gradient(const std::vector<double>& cotangents) = 0;

  /// Recomputes G diag(p) G^T of the stored rows for another p.
  virtual void gram(int rows, const StateArray* p, double* gram) = 0;
};

}  // namespace loko
