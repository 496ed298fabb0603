#pragma once

// What the low-rank branches of linear layers and of convolutions have in common.

#include <cstdint>

#include "core/op.h"
#include "cuda/context.h"
#include "cuda/product.h"

namespace loko::cuda {

/// A dense [rows, cols] matrix.
Rows denseRows(float* data, int rows, std::int64_t cols);
/// Columns from `begin` on.
Rows columnsOf(Rows rows, int begin);
/// One more term over all columns; throws kUnsupported for more than a kernel takes.
Term& addTerm(Product& product, const Operand& left, const Operand& right, int depth);
/// A product with one term.
SmallProduct smallProduct(int m, int n, int depth, const Rows& left, const Rows& right);

/// Launches as many small products at a time as a kernel takes.
class SmallProductQueue {
 public:
  SmallProductQueue(Orientation left, Orientation right, int segments, Context& context)
      : left_(left), right_(right), context_(context) {
    pending_.segments = segments;
  }
  void setWindow(const Window& window) { pending_.window = window; }
  void add(const SmallProduct& product);
  void flush();

 private:
  Orientation left_, right_;
  Context& context_;
  SmallProducts pending_;
};

/// Some columns of an activation or of a cotangent, over as many samples or segments.
struct Part {
  const View& view;
  int samples, begin, cols;
};

/// sum over rows t of left[t, m] * right[t, n], where right may be gathered: a block of the Jacobian for each
/// segment, or one for all. The block has `size` entries; the caller says where (m, n) lies in it.
SmallProduct rowSums(const Part& left, const Part& right, ParameterOffset block, std::int64_t size,
                     const Frame& frame, Context& context);

/// What columns [site.outBegin, ...) of the output multiply B by; null: nothing.
const float* outputScale(const LoraSite& site, int out, Context& context);

/// u = scale dy B of every site.
void outputCotangent(const View& dy, const View& u, const std::vector<LoraSite>& sites,
                     const Frame& frame, Context& context);
/// dB[seg] = scale dy^T h of a site.
SmallProduct blockOfB(const LoraSite& site, const View& h, const View& dy, const Frame& frame,
                      Context& context);

}  // namespace loko::cuda
