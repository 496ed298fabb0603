// The derivative of an activation where it could not be folded into a product.
#include "cpu/context.h"

namespace loko::cpu {

void run(const ActivationBackward& op, const Frame& frame, Context& context) {
  const int rows = op.dy.rows, cols = op.dy.cols;
  expectShape(op.actGrad, rows, cols, "actGrad");
  const MutableRowMap dy = context.writableRows(op.dy, frame.segments());
  const RowMap actGrad = context.rows(op.actGrad, frame.batch);
  const std::int64_t period = std::int64_t{frame.batch} * rows;
  context.forEach(std::int64_t{frame.segments()} * rows, 10 * cols, [&](std::int64_t i) {
    context.ops.multiply(dy.row(i), actGrad.row(i % period), cols);
  });
}

}  // namespace loko::cpu
