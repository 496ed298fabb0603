// The low-rank branch beside a linear layer, and the blocks of the Jacobian.
//
// All of it are products with one short side, so the tile turns: its 16 rows are ranks, its 64 columns
// the rows of an activation or the features. Backward is two launches: u and dB read dy together, dA
// needs u.

#include <algorithm>

#include "cuda/context.h"
#include "cuda/launch.h"
#include "cuda/predecessor.cuh"
#include "cuda/lora_blocks.h"

namespace loko::cuda {

void run(const LoraDown& op, const Frame& frame, Context& context) {
  const int rows = op.x.rows, in = op.x.cols, batch = frame.batch;
  SmallProductQueue queue(Orientation::kAlong, Orientation::kAlong, 1, context);
  for (const LoraSite& site : op.sites) {
    checkSites({site}, op.h, rows, site.outEnd);
    float* a = context.parameter(site.a, std::int64_t{site.rank} * in);
    SmallProduct item = smallProduct(site.rank, batch * rows, in, denseRows(a, site.rank, in),
                                     context.rows(op.x, batch));
    item.epilogue.target = columnsOf(context.rows(op.h, batch), site.hBegin);
    item.epilogue.transposed = true;
    queue.add(item);
  }
  queue.flush();
}

void run(const LoraBackward& op, const Frame& frame, Context& context) {
  const int rows = op.dy.rows, in = op.x.cols, segments = frame.segments();
  expectShape(op.x, rows, in, "x");
  expectShape(op.h, rows, op.h.cols, "h");
  checkSites(op.sites, op.h, rows, op.dy.cols);
  checkSites(op.sites, op.u, rows, op.dy.cols);
  outputCotangent(op.dy, op.u, op.sites, frame, context);
  SmallProductQueue queue(Orientation::kAcross, Orientation::kAcross, frame.reduce ? 1 : segments,
                          context);
  for (const LoraSite& site : op.sites) {
    queue.add(blockOfB(site, op.h, op.dy, frame, context));
    queue.add(rowSums({op.u, segments, site.hBegin, site.rank}, {op.x, frame.batch, 0, in}, site.a,
                      std::int64_t{site.rank} * in, frame, context));
  }
  queue.flush();
}

namespace {

/// db[seg] = sum over rows of dy. One thread for each column; rows in order.
__global__ void biasKernel(const Rows dy, int rows, int cols, float* target,
                           std::int64_t targetStep, int segmentsInRow) {
  awaitPredecessor();
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
            dim3(kThreads), context.queue()},
           biasKernel, dy, op.dy.rows, out, target + begin * context.parameters(),
           context.parameters(), frame.reduce ? segments : 1);
  }
}

}  // namespace

void run(const WeightBackward& op, const Frame& frame, Context& context) {
  const int rows = op.dy.rows, out = op.dy.cols, in = op.x.cols, segments = frame.segments();
  if (op.weight != kNoParameter) {
    expectShape(op.x, rows, in, "x");
    SmallProductQueue queue(Orientation::kAcross, Orientation::kAcross, frame.reduce ? 1 : segments,
                            context);
    queue.add(rowSums({op.dy, segments, 0, out}, {op.x, frame.batch, 0, in}, op.weight,
                      std::int64_t{out} * in, frame, context));
    queue.flush();
  }
  if (op.bias != kNoParameter) biasBackward(op, frame, context);
}

}  // namespace loko::cuda
