// Batch norm in eval mode where no convolution could take it in: one pass over memory each way.
#include "cpu/context.h"

namespace loko::cpu {

void run(const BatchNorm& op, const Frame& frame, Context& context) {
  const int rows = op.x.rows, cols = op.x.cols;
  expectShape(op.y, rows, cols, "y");
  const RowMap x = context.rows(op.x, frame.batch);
  const MutableRowMap y = context.writableRows(op.y, frame.batch);
  const BatchNormRow common{nullptr, context.vector(op.scale, cols), context.vector(op.shift, cols),
                            cols, op.relu};
  context.forEach(std::int64_t{frame.batch} * rows, 10 * cols, [&](std::int64_t i) {
    BatchNormRow row = common;
    row.x = x.row(i);
    context.ops.batchNorm(row, y.row(i));
  });
}

void run(const BatchNormBackward& op, const Frame& frame, Context& context) {
  const int rows = op.dy.rows, cols = op.dy.cols, segments = frame.segments();
  expectShape(op.dx, rows, cols, "dx");
  expectShape(op.x, rows, cols, "x");
  const RowMap x = context.rows(op.x, frame.batch);
  const RowMap dy = context.rows(op.dy, segments);
  const MutableRowMap dx = context.writableRows(op.dx, segments);
  const std::int64_t period = std::int64_t{frame.batch} * rows;
  const BatchNormRow common{nullptr, context.vector(op.scale, cols), context.vector(op.shift, cols),
                            cols, op.relu};
  context.forEach(std::int64_t{segments} * rows, 10 * cols, [&](std::int64_t i) {
    BatchNormRow row = common;
    row.x = x.row(i % period);
    context.ops.batchNormBackward(row, dy.row(i), dx.row(i), op.accumulate);
  });
}

}  // namespace loko::cpu
