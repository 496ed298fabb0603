// Softmax attention, one head and a tile of queries (or, for dk and dv, of keys) at a time.
//
// Forward keeps the probabilities in global memory: in `probs`, where backward wants them, else in the
// workspace. A block writes the scores of its queries, normalises them and multiplies with v; what it reads
// back is still in cache. Backward never stores dS: the kernel of dq and that of dk and dv both multiply
// dO v^T again, a third more work for nothing but the outputs going through memory, and no sum crosses
// blocks.
//
// ViT-B, 197 tokens, 99 rows: dq 64 x 64 tiles, 4 x 12 x 99 blocks; 0.24 GFLOP forward, 0.6 backward for
// each row.

#include <algorithm>
#include <limits>

#include "cuda/block_product.cuh"
#include "cuda/context.h"
#include "cuda/launch.h"
#include "cuda/predecessor.cuh"
#include "cuda/reduce.cuh"

namespace loko::cuda {

namespace {

constexpr int kFewRows = 16, kManyRows = 64;
constexpr int kWarps = kTileThreads / 32;

struct Head {
  Rows map;
  bool aligned;

  /// Columns [begin, ...) of a sample; an operand along or across its rows.
  __device__ Operand of(int sample, int begin) const {
    Operand operand;
    operand.rows.data = map.at(sample, 0) + begin;
    operand.rows.rows = 0x7fffffff;
    operand.rows.ld = map.ld;
    operand.aligned = aligned;
    return operand;
  }
};

struct Shape {
  int heads, width, queries, keys, samples;
  float scale;
};

/// Where a tile begins, and where what it covers ends.
struct Covered {
  int begin, end;
};

/// The column of a tile that forEachOutput() gives this thread.
__device__ int columnOfThread() {
  return static_cast<int>(threadIdx.x) % kTileColumns;
}

/// Calls store(row, column, sum) for every output of a tile that exists; `out` is free again afterwards.
/// What store() reads of memory, it waits for: it should have been read before.
template <class Math, int kRows, class Store>
__device__ void forEachOutput(const Tile<Math, kRows>& tile, float* out, Covered rows,
                              Covered columns, const Store& store) {
  tile.store(out, kOutLd);
  __syncthreads();
  const int j = columnOfThread();
#pragma unroll
  for (int e = 0; e < kRows * kTileColumns / kTileThreads; ++e) {
    const int i = static_cast<int>(threadIdx.x) / kTileColumns + e * (kTileThreads / kTileColumns);
    if (rows.begin + i < rows.end && columns.begin + j < columns.end) {
      store(rows.begin + i, columns.begin + j, out[i * kOutLd + j]);
    }
  }
  __syncthreads();
}

struct ForwardArgs {
  Shape shape;
  Head q, k, v, probs;
  Rows o, mask;  // o absent: only the probabilities are wanted
};

/// probs = scale q k^T + mask for the block's queries.
template <class Math, int kRows>
__device__ void scores(const ForwardArgs& args, int sample, int head, int first,
                       LeftTile<Math, kRows>& left, RightTile<Math, false>& right, float* out) {
  const Shape& shape = args.shape;
  const Operand q = args.q.of(sample, head * shape.width),
                k = args.k.of(sample, head * shape.width);
  for (int key = 0; key < shape.keys; key += kTileColumns) {
    Tile<Math, kRows> tile;
    tile.clear();
    const int mine = key + columnOfThread();
    const float mask = args.mask.present() && mine < shape.keys ? args.mask.at(sample, 0)[mine] : 0;
    addProduct(tile, left, right, Fetch<false, kRows>(q, first, 0, shape.queries),
               Fetch<false, kTileColumns>(k, key, 0, shape.keys), 0, shape.width, Unscaled{});
    forEachOutput(
        tile, out, {first, shape.queries}, {key, shape.keys}, [&](int t, int j, float sum) {
          args.probs.map.at(sample, head * shape.queries + t)[j] = shape.scale * sum + mask;
        });
  }
}

__device__ float warpMax(float value) {
  for (int offset = 16; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, offset));
  }
  return value;
}

/// In place, a warp for each row, of any length.
__device__ void softmaxRow(float* row, int count) {
  const int lane = threadIdx.x % 32;
  float largest = -INFINITY;
  for (int j = lane; j < count; j += 32) largest = fmaxf(largest, row[j]);
  largest = warpMax(largest);
  float sum = 0;
  for (int j = lane; j < count; j += 32) {
    const float value = expf(row[j] - largest);
    row[j] = value;
    sum += value;
  }
  sum = warpSum(sum);
  for (int j = lane; j < count; j += 32) row[j] /= sum;
}

/// In place, the rows of a block, kBatch of a warp's at a time, of at most 32 * kPerLane columns. They stay in
/// registers, so that a warp waits for memory once for each batch, where softmaxRow() waits three times for
/// each row.
template <int kRows, int kBatch, int kPerLane, class RowOf>
__device__ void softmaxInRegisters(const RowOf& rowOf, int rows, int count) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int first = warp; first < kRows; first += kBatch * kWarps) {
    float values[kBatch][kPerLane];
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int i = first + b * kWarps;
      const float* row = i < rows ? rowOf(i) : nullptr;
#pragma unroll
      for (int c = 0; c < kPerLane; ++c) {
        const int j = lane + 32 * c;
        values[b][c] = row != nullptr && j < count ? row[j] : -INFINITY;
      }
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int i = first + b * kWarps;
      if (i >= rows) break;
      float largest = -INFINITY, sum = 0;
#pragma unroll
      for (int c = 0; c < kPerLane; ++c) largest = fmaxf(largest, values[b][c]);
      largest = warpMax(largest);
#pragma unroll
      for (int c = 0; c < kPerLane; ++c) {
        if (lane + 32 * c >= count) continue;
        values[b][c] = expf(values[b][c] - largest);
        sum += values[b][c];
      }
      sum = warpSum(sum);
      float* row = rowOf(i);
#pragma unroll
      for (int c = 0; c < kPerLane; ++c) {
        if (lane + 32 * c < count) row[lane + 32 * c] = values[b][c] / sum;
      }
    }
  }
}

/// In place, rows [0, rows) of what rowOf gives, of which the block has kRows at most.
template <int kRows, class RowOf>
__device__ void softmaxRows(const RowOf& rowOf, int rows, int count) {
  if (count <= 128) {
    softmaxInRegisters<kRows, 4, 4>(rowOf, rows, count);
  } else if (count <= 512) {
    softmaxInRegisters<kRows, 1, 16>(rowOf, rows, count);
  } else {
    for (int i = threadIdx.x / 32; i < rows && i < kRows; i += kWarps) softmaxRow(rowOf(i), count);
  }
}

template <class Math, int kRows>
__global__ void __launch_bounds__(kTileThreads)
    attentionKernel(const __grid_constant__ ForwardArgs args) {
  awaitPredecessor();
  __shared__ LeftTile<Math, kRows> left;
  __shared__ RightTile<Math, false> rightAlong;
  __shared__ RightTile<Math, true> rightAcross;
  alignas(32) __shared__ float out[kRows * kOutLd];
  const Shape& shape = args.shape;
  const int tiles = (shape.queries + kRows - 1) / kRows;
  const int sample = static_cast<int>(blockIdx.x) / tiles, head = blockIdx.y;
  const int first = static_cast<int>(blockIdx.x) % tiles * kRows;

  scores<Math, kRows>(args, sample, head, first, left, rightAlong, out);
  softmaxRows<kRows>(
      [&](int i) { return args.probs.map.at(sample, head * shape.queries + first + i); },
      shape.queries - first, shape.keys);
  __syncthreads();
  if (!args.o.present()) return;

  Operand probs = args.probs.of(sample, 0);
  probs.rows.data += head * shape.queries * args.probs.map.ld;
  const Operand v = args.v.of(sample, head * shape.width);
  for (int column = 0; column < shape.width; column += kTileColumns) {
    Tile<Math, kRows> tile;
    tile.clear();
    addProduct(tile, left, rightAcross, Fetch<false, kRows>(probs, first, 0, shape.queries),
               Fetch<true, kTileColumns>(v, column, 0, shape.width), 0, shape.keys, Unscaled{});
    forEachOutput(
        tile, out, {first, shape.queries}, {column, shape.width},
        [&](int t, int c, float sum) { args.o.at(sample, t)[head * shape.width + c] = sum; });
  }
}

struct BackwardArgs {
  Shape shape;  // samples: of the activations
  Head dout, q, k, v;
  Rows o, probs, dq, dk, dv;
  float* rowSums;  // [segments, heads, queries]: rowsum(dO * o)

  /// 0 for a query or a key that does not exist.
  __device__ float probability(int sample, int head, int t, int j) const {
    if (t >= shape.queries || j >= shape.keys) return 0;
    return probs.at(sample, head * shape.queries + t)[j];
  }
};

/// [kRows, 32] of a left operand: compute(row, column, what load(row, column) read). Eight reads are on their
/// way before the first is used.
template <class Math, int kRows, class Load, class Compute>
__device__ void fillLeft(LeftTile<Math, kRows>& left, bool rowsInnermost, const Load& load,
                         const Compute& compute) {
  constexpr int kMine = kRows * kTileDepth / kTileThreads;
  const auto rowOf = [&](int e) {
    const int at = static_cast<int>(threadIdx.x) + e * kTileThreads;
    return rowsInnermost ? at % kRows : at / kTileDepth;
  };
  const auto columnOf = [&](int e) {
    const int at = static_cast<int>(threadIdx.x) + e * kTileThreads;
    return rowsInnermost ? at / kRows : at % kTileDepth;
  };
  constexpr int kAtOnce = kMine < 8 ? kMine : 8;
#pragma unroll
  for (int first = 0; first < kMine; first += kAtOnce) {
    float values[kAtOnce];
#pragma unroll
    for (int e = 0; e < kAtOnce; ++e) values[e] = load(rowOf(first + e), columnOf(first + e));
#pragma unroll
    for (int e = 0; e < kAtOnce; ++e) {
      const int row = rowOf(first + e), column = columnOf(first + e);
      left.set(row, column, compute(row, column, values[e]));
    }
  }
}

/// 32 rows of a right operand read across.
using RightRows = Fetch<true, kTileColumns>;

__device__ RightRows::Parts loadRight(const Operand& operand, int column, int width, int k,
                                      int depth) {
  const RightRows fetch(operand, column, 0, width);
  return fetch.whole(depth) ? fetch.load<true>(k, depth) : fetch.load<false>(k, depth);
}

template <class Math>
__device__ void fillRight(RightTile<Math, true>& right, const RightRows::Parts& parts) {
  parts.each([&](int c, int row, float value) { right.set(row, c, value); });
}

/// dq = scale dS k for a tile of queries, and the row sums that the other kernel needs.
template <class Math, int kRows>
__global__ void __launch_bounds__(kTileThreads)
    queryCotangentKernel(const __grid_constant__ BackwardArgs args) {
  awaitPredecessor();
  __shared__ LeftTile<Math, kRows> left;
  __shared__ RightTile<Math, false> rightAlong;
  __shared__ RightTile<Math, true> rightAcross;
  alignas(32) __shared__ float out[kRows * kOutLd];
  __shared__ float rowSums[kRows];
  const Shape& shape = args.shape;
  const int tiles = (shape.queries + kRows - 1) / kRows, begin = blockIdx.y * shape.width;
  const int segment = static_cast<int>(blockIdx.x) / tiles, sample = segment % shape.samples;
  const int first = static_cast<int>(blockIdx.x) % tiles * kRows, head = blockIdx.y;

  const int warp = threadIdx.x / 32;
  float sums[kRows / kWarps] = {};
  for (int c = threadIdx.x % 32; c < shape.width; c += 32) {
#pragma unroll
    for (int r = 0; r < kRows / kWarps; ++r) {
      const int t = first + warp + r * kWarps;
      if (t >= shape.queries) continue;
      sums[r] += args.dout.map.at(segment, t)[begin + c] * args.o.at(sample, t)[begin + c];
    }
  }
#pragma unroll
  for (int r = 0; r < kRows / kWarps; ++r) {
    const int i = warp + r * kWarps;
    const float sum = warpSum(sums[r]);
    if (threadIdx.x % 32 != 0) continue;
    rowSums[i] = sum;
    if (first + i < shape.queries) {
      args.rowSums[(static_cast<std::int64_t>(segment) * shape.heads + head) * shape.queries +
                   first + i] = sum;
    }
  }
  __syncthreads();
  if (!args.dq.present()) return;

  const Operand dout = args.dout.of(segment, begin);
  const Operand k = args.k.of(sample, begin), v = args.v.of(sample, begin);
  const auto probability = [&](int t, int j) { return args.probability(sample, head, t, j); };
  for (int column = 0; column < shape.width; column += kTileColumns) {
    Tile<Math, kRows> dq;
    dq.clear();
    for (int key = 0; key < shape.keys; key += kTileColumns) {
      Tile<Math, kRows> dp;
      dp.clear();
      addProduct(dp, left, rightAlong, Fetch<false, kRows>(dout, first, 0, shape.queries),
                 Fetch<false, kTileColumns>(v, key, 0, shape.keys), 0, shape.width, Unscaled{});
      dp.store(out, kOutLd);
      __syncthreads();
      for (int half = 0; half < kTileColumns; half += kTileDepth) {
        const auto keys = loadRight(k, column, shape.width, key + half, shape.keys);
        fillLeft(
            left, false,
            [&](int row, int depth) { return probability(first + row, key + half + depth); },
            [&](int row, int depth, float p) {
              return p * (out[row * kOutLd + half + depth] - rowSums[row]);
            });
        fillRight(rightAcross, keys);
        __syncthreads();
        dq.add(left, rightAcross);
        __syncthreads();
      }
    }
    forEachOutput(
        dq, out, {first, shape.queries}, {column, shape.width},
        [&](int t, int c, float sum) { args.dq.at(segment, t)[begin + c] = shape.scale * sum; });
  }
}

/// dk = scale dS^T q and dv = P^T dO for a tile of keys.
template <class Math, int kRows>
__global__ void __launch_bounds__(kTileThreads)
    keyCotangentKernel(const __grid_constant__ BackwardArgs args) {
  awaitPredecessor();
  __shared__ LeftTile<Math, kRows> left;
  __shared__ RightTile<Math, false> rightAlong;
  __shared__ RightTile<Math, true> rightAcross;
  alignas(32) __shared__ float out[kRows * kOutLd];
  __shared__ float sums[kTileColumns];  // rowSums of the queries at hand
  const Shape& shape = args.shape;
  const int tiles = (shape.keys + kRows - 1) / kRows, begin = blockIdx.y * shape.width;
  const int segment = static_cast<int>(blockIdx.x) / tiles, sample = segment % shape.samples;
  const int first = static_cast<int>(blockIdx.x) % tiles * kRows, head = blockIdx.y;
  const float* rowSums =
      args.rowSums + (static_cast<std::int64_t>(segment) * shape.heads + head) * shape.queries;
  const Operand dout = args.dout.of(segment, begin);
  const Operand q = args.q.of(sample, begin), v = args.v.of(sample, begin);
  const auto probability = [&](int t, int j) { return args.probability(sample, head, t, j); };

  for (int column = 0; column < shape.width; column += kTileColumns) {
    Tile<Math, kRows> dk, dv;
    dk.clear();
    dv.clear();
    for (int query = 0; query < shape.queries; query += kTileColumns) {
      if (args.dk.present()) {
        if (threadIdx.x < kTileColumns) {
          const int t = query + static_cast<int>(threadIdx.x);
          sums[threadIdx.x] = t < shape.queries ? rowSums[t] : 0;
        }
        Tile<Math, kRows> dp;
        dp.clear();
        // Three tiles of sums leave no room for more steps ahead.
        addProduct<32>(dp, left, rightAlong, Fetch<false, kRows>(v, first, 0, shape.keys),
                       Fetch<false, kTileColumns>(dout, query, 0, shape.queries), 0, shape.width,
                       Unscaled{});
        dp.store(out, kOutLd);
        __syncthreads();
      }
      for (int half = 0; half < kTileColumns; half += kTileDepth) {
        const auto load = [&](const Operand& operand) {
          return loadRight(operand, column, shape.width, query + half, shape.queries);
        };
        if (args.dk.present()) {
          const auto queries = load(q);
          fillLeft(
              left, true,
              [&](int row, int depth) { return probability(query + half + depth, first + row); },
              [&](int row, int depth, float p) {
                return p * (out[row * kOutLd + half + depth] - sums[half + depth]);
              });
          fillRight(rightAcross, queries);
          __syncthreads();
          dk.add(left, rightAcross);
          __syncthreads();
        }
        if (args.dv.present()) {
          const auto cotangents = load(dout);
          fillLeft(
              left, true,
              [&](int row, int depth) { return probability(query + half + depth, first + row); },
              [](int, int, float p) { return p; });
          fillRight(rightAcross, cotangents);
          __syncthreads();
          dv.add(left, rightAcross);
          __syncthreads();
        }
      }
    }
    const auto write = [&](const Tile<Math, kRows>& tile, const Rows& target, float scale) {
      forEachOutput(
          tile, out, {first, shape.keys}, {column, shape.width},
          [&](int j, int c, float sum) { target.at(segment, j)[begin + c] = scale * sum; });
    };
    if (args.dk.present()) write(dk, args.dk, shape.scale);
    if (args.dv.present()) write(dv, args.dv, 1);
  }
}

template <class Args>
using Kernel = void (*)(Args);

template <class Args>
void launchTiles(const char* name, Kernel<Args> few, Kernel<Args> many, int rows, int count,
                 int heads, const Args& args, Context& context) {
  const std::int64_t large = std::int64_t{ceilDiv(rows, kManyRows)} * count * heads;
  const bool fills = large >= context.multiprocessors();
  const int tiles = ceilDiv(rows, fills ? kManyRows : kFewRows);
  launch({name, dim3(static_cast<unsigned>(tiles * count), static_cast<unsigned>(heads)),
          dim3(kTileThreads), context.queue()},
         fills ? many : few, args);
}

void launchForward(const ForwardArgs& args, Context& context) {
  const Shape& shape = args.shape;
  const auto start = [&](Kernel<ForwardArgs> few, Kernel<ForwardArgs> many) {
    launchTiles("attention", few, many, shape.queries, shape.samples, shape.heads, args, context);
  };
  switch (context.precision()) {
    case Precision::kFloat32:
      return start(attentionKernel<Float32, kFewRows>, attentionKernel<Float32, kManyRows>);
    case Precision::kTf32:
      return start(attentionKernel<Tf32, kFewRows>, attentionKernel<Tf32, kManyRows>);
    case Precision::kBfloat16:
      return start(attentionKernel<Bfloat16, kFewRows>, attentionKernel<Bfloat16, kManyRows>);
  }
}

template <class Math>
void launchBackward(const BackwardArgs& args, int segments, Context& context) {
  const Shape& shape = args.shape;
  launchTiles("attention dq", queryCotangentKernel<Math, kFewRows>,
              queryCotangentKernel<Math, kManyRows>, shape.queries, segments, shape.heads, args,
              context);
  if (!args.dk.present() && !args.dv.present()) return;
  launchTiles("attention dk dv", keyCotangentKernel<Math, kFewRows>,
              keyCotangentKernel<Math, kManyRows>, shape.keys, segments, shape.heads, args,
              context);
}

template <class Operation>
Shape shapeOf(const Operation& op, int samples) {
  Shape shape;
  shape.heads = op.heads;
  shape.queries = op.q.rows;
  shape.keys = op.k.rows;
  shape.width = op.q.cols / op.heads;
  shape.samples = samples;
  shape.scale = op.scale;
  LOKO_CHECK(shape.width * op.heads == op.q.cols, "heads do not divide the columns");
  expectShape(op.k, shape.keys, op.q.cols, "k");
  expectShape(op.v, shape.keys, op.q.cols, "v");
  expectShape(op.o, shape.queries, op.q.cols, "o");
  if (op.probs.present()) expectShape(op.probs, op.heads * op.q.rows, op.k.rows, "probs");
  if (op.mask.present()) expectShape(op.mask, 1, op.k.rows, "mask");
  return shape;
}

Head headOf(const Rows& rows, int width) {
  return {rows, operandOf(rows).aligned && width % 4 == 0};
}

std::int64_t probabilityCount(const Shape& shape) {
  return std::int64_t{shape.heads} * shape.queries * shape.keys;
}

/// Where the probabilities of `samples` samples go that no view keeps.
Rows workspaceRows(const Shape& shape, int samples, float* memory) {
  Rows rows;
  rows.data = memory;
  rows.rows = shape.heads * shape.queries;
  rows.samples = samples;
  rows.ld = shape.keys;
  rows.sampleStride = probabilityCount(shape);
  return rows;
}

/// Without a view for the probabilities, inference takes as many samples at a time as this has room for.
int samplesAtOnce(const Shape& shape, int batch) {
  constexpr std::int64_t kWorkspaceFloats = 64 << 20;
  const std::int64_t room = kWorkspaceFloats / std::max<std::int64_t>(probabilityCount(shape), 1);
  return static_cast<int>(std::min<std::int64_t>(std::max<std::int64_t>(room, 1), batch));
}

Rows from(Rows rows, int sample, int samples) {
  if (!rows.present()) return rows;
  rows.data += sample * rows.sampleStride;
  rows.samples = samples;
  return rows;
}

std::int64_t rowSumCount(const Shape& shape, std::int64_t segments) {
  return segments * shape.heads * shape.queries;
}

}  // namespace

void prepare(const Attention& op, const WorkspaceHint& hint, Context& context) {
  if (op.probs.present()) return;
  const Shape shape = shapeOf(op, hint.batch);
  context.needFloats(probabilityCount(shape) * samplesAtOnce(shape, hint.batch));
}

void run(const Attention& op, const Frame& frame, Context& context) {
  const Shape whole = shapeOf(op, frame.batch);
  const int most = op.probs.present() ? frame.batch : samplesAtOnce(whole, frame.batch);
  for (int begin = 0; begin < frame.batch; begin += most) {
    ForwardArgs args;
    args.shape = whole;
    const int count = args.shape.samples = std::min(most, frame.batch - begin);
    const auto part = [&](const View& view) {
      return from(context.rows(view, frame.batch), begin, count);
    };
    args.q = headOf(part(op.q), whole.width);
    args.k = headOf(part(op.k), whole.width);
    args.v = headOf(part(op.v), whole.width);
    args.o = part(op.o);
    args.mask = part(op.mask);
    const Rows probs =
        op.probs.present()
            ? part(op.probs)
            : workspaceRows(whole, count, context.floats(probabilityCount(whole) * count));
    args.probs = headOf(probs, 4);
    launchForward(args, context);
  }
}

void prepare(const AttentionBackward& op, const WorkspaceHint& hint, Context& context) {
  const Shape shape = shapeOf(op, hint.batch);
  const std::int64_t segments = std::int64_t{hint.batch} * hint.maxRows;
  const std::int64_t probs = op.probs.present() ? 0 : probabilityCount(shape) * hint.batch;
  context.needFloats(rowSumCount(shape, segments) + probs);
}

void run(const AttentionBackward& op, const Frame& frame, Context& context) {
  const int segments = frame.segments(), batch = frame.batch;
  BackwardArgs args;
  const Shape& shape = args.shape = shapeOf(op, batch);
  expectShape(op.dout, shape.queries, op.q.cols, "dout");
  if (op.dq.present()) expectShape(op.dq, shape.queries, op.q.cols, "dq");
  if (op.dk.present()) expectShape(op.dk, shape.keys, op.q.cols, "dk");
  if (op.dv.present()) expectShape(op.dv, shape.keys, op.q.cols, "dv");
  args.dout = headOf(context.rows(op.dout, segments), shape.width);
  args.q = headOf(context.rows(op.q, batch), shape.width);
  args.k = headOf(context.rows(op.k, batch), shape.width);
  args.v = headOf(context.rows(op.v, batch), shape.width);
  args.o = context.rows(op.o, batch);
  args.dq = context.rows(op.dq, segments);
  args.dk = context.rows(op.dk, segments);
  args.dv = context.rows(op.dv, segments);

  const std::int64_t sums = rowSumCount(shape, segments);
  const std::int64_t probs = op.probs.present() ? 0 : probabilityCount(shape) * batch;
  float* memory = context.floats(sums + probs);
  args.rowSums = memory;
  args.probs = context.rows(op.probs, batch);
  if (!op.probs.present()) {
    args.probs = workspaceRows(shape, batch, memory + sums);
    const Head again = headOf(args.probs, 4);
    const ForwardArgs forward{
        shape, args.q, args.k, args.v, again, Rows{}, context.rows(op.mask, batch)};
    launchForward(forward, context);
  }
  switch (context.precision()) {
    case Precision::kFloat32:
      return launchBackward<Float32>(args, segments, context);
    case Precision::kTf32:
      return launchBackward<Tf32>(args, segments, context);
    case Precision::kBfloat16:
      return launchBackward<Bfloat16>(args, segments, context);
  }
}

}  // namespace loko::cuda
