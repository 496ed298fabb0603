#pragma once

// What an optimizer may ask of a model: the outputs of the current batch, and products of its
// Jacobian with chosen cotangents. core/engine.h implements it over a plan; tests implement it over
// a formula.

#include <cstdint>
#include <vector>

#include "core/backend.h"

namespace loko {

/// A Gram matrix V diag(p) V^T that is wanted, with V = [factor; G].
struct GramRequest {
  double* values = nullptr;             // [r + k, r + k] host; null: none is wanted
  const StateArray* weights = nullptr;  // p; null: all ones
  const StateArray* factor = nullptr;   // [r, n]; null: V = G
  int factorRows = 0;                   // r
};

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

  /// Fills the k = rows*B first rows of the Jacobian space with G = Y J, J = d logits / d theta [m, n].
  /// cotangents Y [rows, B, m]; row c*B + b of G belongs to cotangent c of sample b.
  /// Needs forward() at the same theta before.
  virtual void jacobian(const std::vector<double>& cotangents, int rows,
                        const GramRequest& gram) = 0;

  /// Row 0 of the Jacobian space becomes the sum over samples of cotangents[b] J_b; cotangents [B,
  /// m].
  virtual void gradient(const std::vector<double>& cotangents) = 0;

  /// A Gram matrix of the k = rows stored rows.
  virtual void gram(int rows, const GramRequest& request) = 0;
};

}  // namespace loko
