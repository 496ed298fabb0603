// Layer normalisation, one row at a time, rows spread over the threads.
#include "cpu/context.h"

namespace loko::cpu {

namespace {
constexpr int kWorkPerElement = 25;  // multiply-adds in the time of one element
}  // namespace

void run(const LayerNorm& op, const Frame& frame, Context& context) {
  const int rows = op.x.rows, cols = op.x.cols, batch = frame.batch;
  expectShape(op.y, rows, cols, "y");
  if (op.xhat.present()) expectShape(op.xhat, rows, cols, "xhat");
  if (op.rstd.present()) expectShape(op.rstd, rows, 1, "rstd");
  const RowMap x = context.rows(op.x, batch);
  const MutableRowMap y = context.writableRows(op.y, batch);
  const MutableRowMap xhat = context.writableRows(op.xhat, batch);
  const MutableRowMap rstd = context.writableRows(op.rstd, batch);
  LayerNormRow common{};
  common.gamma = context.vector(op.gamma, cols);
  common.beta = op.trainedBeta == kNoParameter ? context.vector(op.beta, cols)
                                               : context.parameter(op.trainedBeta, cols);
  common.columns = cols;
  common.eps = op.eps;
  context.forEach(std::int64_t{batch} * rows, kWorkPerElement * cols, [&](std::int64_t i) {
    LayerNormRow row = common;
    row.x = x.row(i);
    row.y = y.row(i);
    row.xhat = xhat ? xhat.row(i) : nullptr;
    row.rstd = rstd ? rstd.row(i) : nullptr;
    context.ops.layerNorm(row);
  });
}

void run(const LayerNormBackward& op, const Frame& frame, Context& context) {
  const int rows = op.dy.rows, cols = op.dy.cols, segments = frame.segments();
  expectShape(op.dx, rows, cols, "dx");
  expectShape(op.xhat, rows, cols, "xhat");
  expectShape(op.rstd, rows, 1, "rstd");
  const RowMap dy = context.rows(op.dy, segments);
  const MutableRowMap dx = context.writableRows(op.dx, segments);
  const RowMap xhat = context.rows(op.xhat, frame.batch);
  const RowMap rstd = context.rows(op.rstd, frame.batch);
  const std::int64_t period = std::int64_t{frame.batch} * rows;
  LayerNormBackwardRow common{};
  common.gamma = context.vector(op.gamma, cols);
  common.columns = cols;
  common.accumulate = op.accumulate;
  context.forEach(std::int64_t{segments} * rows, kWorkPerElement * cols, [&](std::int64_t i) {
    LayerNormBackwardRow row = common;
    row.dy = dy.row(i);
    row.dx = dx.row(i);
    row.xhat = xhat.row(i % period);
    row.rstd = *rstd.row(i % period);
    context.ops.layerNormBackward(row);
  });
}

}  // namespace loko::cpu
