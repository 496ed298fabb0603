// The low-rank branch beside a linear layer, and the blocks of the Jacobian.
//
// All of it are products with one short side, so the tile turns: its 16 rows are ranks, its 64 columns
// the rows of an activation or the features. Backward is two launches: u and dB read dy together, dA
// needs u.

#include <algorithm>

#include "cuda/context.h"
#include "cuda/launch.h"
#include "cuda/product.h"

namespace loko::cuda {

namespace {

Rows columns(Rows rows, int begin) {
  rows.data += begin;
  return rows;
}

Rows dense(float* data, int rows, int cols) {
  Rows map;
  map.data = data;
  map.rows = rows;
  map.ld = cols;
  return map;
}

/// Launches as many products at a time as a kernel takes.
class Queue {
 public:
  Queue(Orientation left, Orientation right, int segments, Context& context)
      : left_(left), right_(right), context_(context) {
    pending_.segments = segments;
  }
  void add(const SmallProduct& product) {
    pending_.items[pending_.count++] = product;
    if (pending_.count == kMaxSmallProducts) flush();
  }
  void flush() {
    if (pending_.count > 0) run(pending_, left_, right_, context_);
    pending_.count = 0;
  }

 private:
  Orientation left_, right_;
  Context& context_;
  SmallProducts pending_;
};

SmallProduct product(int m, int n, int depth, const Rows& left, const Rows& right) {
  SmallProduct result;
  result.m = m;
  result.n = n;
  result.term.left = operandOf(left);
  result.term.right = operandOf(right);
  result.term.depth = depth;
  result.term.begin = 0;
  result.term.end = n;
  return result;
}

const float* scaleOf(const LoraSite& site, int out, Context& context) {
  if (site.outputScale == kNoWeight) return nullptr;
  return context.vector(site.outputScale, out) + site.outBegin;
}

/// Some columns of an activation or of a cotangent, over as many samples or segments.
struct Part {
  const View& view;
  int samples, begin, cols;
};

/// sum over rows t of left[t, m] * right[t, n]: a block of the Jacobian for each segment, or one for all.
SmallProduct rowSums(const Part& left, const Part& right, ParameterOffset block, bool transposed,
                     const Frame& frame, Context& context) {
  const int rows = left.view.rows, segments = frame.segments(), m = left.cols, n = right.cols;
  SmallProduct item = product(m, n, frame.reduce ? segments * rows : rows,
                              columns(context.rows(left.view, left.samples), left.begin),
                              columns(context.rows(right.view, right.samples), right.begin));
  const std::int64_t size = std::int64_t{m} * n;
  float* target = context.jacobian(frame.reduce ? 0 : frame.firstRow, block, size);
  item.epilogue.target = transposed ? dense(target, n, m) : dense(target, m, n);
  item.epilogue.transposed = transposed;
  if (frame.reduce) return item;
  context.jacobian(frame.firstRow + segments - 1, block, size);
  item.leftStep = left.view.sampleStride;
  item.rightStep = right.view.sampleStride;
  item.leftSamples = left.samples;
  item.rightSamples = right.samples;
  item.targetStep = context.parameters();
  return item;
}

}  // namespace

void run(const LoraDown& op, const Frame& frame, Context& context) {
  const int rows = op.x.rows, in = op.x.cols, batch = frame.batch;
  Queue queue(Orientation::kAlong, Orientation::kAlong, 1, context);
  for (const LoraSite& site : op.sites) {
    checkSites({site}, op.h, rows, site.outEnd);
    const Rows a = dense(context.parameter(site.a, std::int64_t{site.rank} * in), site.rank, in);
    SmallProduct item = product(site.rank, batch * rows, in, a, context.rows(op.x, batch));
    item.epilogue.target = columns(context.rows(op.h, batch), site.hBegin);
    item.epilogue.transposed = true;
    queue.add(item);
  }
  queue.flush();
}

namespace {

/// u = scale dy B of every site.
void outputCotangent(const LoraBackward& op, const Frame& frame, Context& context) {
  const int segments = frame.segments();
  Queue queue(Orientation::kAcross, Orientation::kAlong, 1, context);
  for (const LoraSite& site : op.sites) {
    const int width = site.outEnd - site.outBegin;
    const Rows b =
        dense(context.parameter(site.b, std::int64_t{width} * site.rank), width, site.rank);
    SmallProduct item = product(site.rank, segments * op.dy.rows, width, b,
                                columns(context.rows(op.dy, segments), site.outBegin));
    item.term.scale = site.scale;
    item.term.depthScale = scaleOf(site, op.dy.cols, context);
    item.epilogue.target = columns(context.rows(op.u, segments), site.hBegin);
    item.epilogue.transposed = true;
    queue.add(item);
  }
  queue.flush();
}

}  // namespace

void run(const LoraBackward& op, const Frame& frame, Context& context) {
  const int rows = op.dy.rows, in = op.x.cols, segments = frame.segments();
  expectShape(op.x, rows, in, "x");
  expectShape(op.h, rows, op.h.cols, "h");
  checkSites(op.sites, op.h, rows, op.dy.cols);
  checkSites(op.sites, op.u, rows, op.dy.cols);
  outputCotangent(op, frame, context);
  Queue queue(Orientation::kAcross, Orientation::kAcross, frame.reduce ? 1 : segments, context);
  for (const LoraSite& site : op.sites) {
    const Part h{op.h, frame.batch, site.hBegin, site.rank};
    const Part u{op.u, segments, site.hBegin, site.rank};
    const Part dy{op.dy, segments, site.outBegin, site.outEnd - site.outBegin};
    SmallProduct forB = rowSums(h, dy, site.b, true, frame, context);
    forB.term.scale = site.scale;
    forB.term.columnScale = scaleOf(site, op.dy.cols, context);
    queue.add(forB);
    queue.add(rowSums(u, {op.x, frame.batch, 0, in}, site.a, false, frame, context));
  }
  queue.flush();
}

namespace {

/// db[seg] = sum over rows of dy. One thread for each column; rows in order.
__global__ void biasKernel(const Rows dy, int rows, int cols, float* target,
                           std::int64_t targetStep, int segmentsInRow) {
  const int column = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (column >= cols) return;
  const int first = static_cast<int>(blockIdx.y) * segmentsInRow * rows;
  float sum = 0;
  for (int r = first; r < first + segmentsInRow * rows; ++r) sum += dy[r][column];
  target[blockIdx.y * targetStep + column] = sum;
}

void biasBackward(const WeightBackward& op, const Frame& frame, Context& context) {
  const int out = op.dy.cols, segments = frame.segments();
  const int blocks = frame.reduce ? 1 : segments;
  float* target = context.jacobian(frame.reduce ? 0 : frame.firstRow, op.bias, out);
  if (!frame.reduce) context.jacobian(frame.firstRow + segments - 1, op.bias, out);
  constexpr int kThreads = 128, kMaxGridY = 65535;
  for (int begin = 0; begin < blocks; begin += kMaxGridY) {
    const int count = std::min(kMaxGridY, blocks - begin);
    Rows dy = context.rows(op.dy, segments);
    dy.data += begin * op.dy.sampleStride;
    launch({"bias cotangent",
            dim3(static_cast<unsigned>(ceilDiv(out, kThreads)), static_cast<unsigned>(count)),
            dim3(kThreads), context.stream()},
           biasKernel, dy, op.dy.rows, out, target + begin * context.parameters(),
           context.parameters(), frame.reduce ? segments : 1);
  }
}

}  // namespace

void run(const WeightBackward& op, const Frame& frame, Context& context) {
  const int rows = op.dy.rows, out = op.dy.cols, in = op.x.cols, segments = frame.segments();
  if (op.weight != kNoParameter) {
    expectShape(op.x, rows, in, "x");
    Queue queue(Orientation::kAcross, Orientation::kAcross, frame.reduce ? 1 : segments, context);
    queue.add(rowSums({op.dy, segments, 0, out}, {op.x, frame.batch, 0, in}, op.weight, false,
                      frame, context));
    queue.flush();
  }
  if (op.bias != kNoParameter) biasBackward(op, frame, context);
}

}  // namespace loko::cuda
