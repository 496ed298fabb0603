// The derivative of an activation where it could not be folded into a product.
#include "cpu/context.h"

namespace loko::cpu {

void run(const ActivationBackward& op, const Frame& frame, Context& context) {
  const int rows = op.dy.rows, cols = op.dy.cols;
  expectShape(op.derivative.factor, rows, cols, "derivative");
  const MutableRowMap dy = context.writableRows(op.dy, frame.segments());
  const RowMap factor = context.rows(op.derivative.factor, frame.batch);
  const std::int64_t period = std::int64_t{frame.batch} * rows;
  const auto multiply = op.derivative.ofRelu ? context.ops.maskPositive : context.ops.multiply;
  context.forEach(std::int64_t{frame.segments()} * rows, 10 * cols,
                  [&](std::int64_t i) { multiply(dy.row(i), factor.row(i % period), cols); });
}

}  // namespace loko::cpu
