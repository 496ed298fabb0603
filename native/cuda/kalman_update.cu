// The measurement update of theta, p and a factor: one pass over all of them and the rows of G. With
// V = [factor; G] of r + k rows,
//
//   k <= 16, r + k <= 32   a thread owns a column, its r + k numbers in registers
//   above                  [root; gain; carry] V in tiles of 64 rows x 64 columns, their squares summed in
//                          shared memory. A block owns the columns: it has made all that it carries before it
//                          writes any of it.
//
// RoBERTa-base, k = 1: 18 MB. ViT-B, k = 99: 117 MB and 5.8 GFLOP.

#include <algorithm>
#include <string>
#include <vector>

#include "cuda/block_product.cuh"
#include "cuda/context.h"
#include "cuda/launch.h"
#include "cuda/predecessor.cuh"
#include "cuda/reduce.cuh"

namespace loko::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kFewRows = 16, kFewWithFactor = 32;
constexpr int kCarryTileRows = 64, kMaxCarryTiles = 4;  // they wait in registers
constexpr int kMaxBlocks = 1024;

struct Statistics {
  double sum;
  std::int64_t floored;
  float min, max;

  __device__ void add(const Statistics& other) {
    sum += other.sum;
    floored += other.floored;
    min = fminf(min, other.min);
    max = fmaxf(max, other.max);
  }
};

__device__ Statistics noStatistics() {
  return {0, 0, INFINITY, -INFINITY};
}

struct UpdateArgs {
  const float* jacobian;
  const float* coefficients;  // [rootRows + 1 + r, r + k]: root, gain, carry
  float* factor;              // [r, n]
  float* theta;
  float* p;
  std::int64_t n;
  int rootRows, factorRows, dualRows, rows;
  float floor;
  bool variational;
  Statistics* partials;  // of each block

  __host__ __device__ int width() const { return factorRows + rows; }
  __device__ const float* row(int i) const {
    return i < factorRows ? factor + i * n : jacobian + (i - factorRows) * n;
  }
  /// What a carried row i is, where p became `shrinkage` times smaller.
  __device__ float carried(int i, float value, float shrinkage) const {
    return i >= factorRows - dualRows ? value * shrinkage : value;
  }
};

/// A zero step and a zero q leave theta and p as they are, to the bit. Returns p / (new p), 1 for a
/// frozen parameter, whose p is 0.
__device__ float updateColumn(const UpdateArgs& args, std::int64_t c, float step, float q,
                              Statistics& statistics) {
  const float p = args.p[c];
  if (step != 0) args.theta[c] += p * step;
  float next = p;
  if (q != 0) next = args.variational ? p / (1 + p * q) : p * (1 - p * q);
  if (next < args.floor) {
    next = args.floor;
    ++statistics.floored;
  }
  args.p[c] = next;
  statistics.sum += static_cast<double>(next);
  statistics.min = fminf(statistics.min, next);
  statistics.max = fmaxf(statistics.max, next);
  return next > 0 ? p / next : 1;
}

/// The block's statistics, threads in their order.
__device__ void reduceStatistics(const Statistics& mine, Statistics* shared, Statistics* target) {
  shared[threadIdx.x] = mine;
  __syncthreads();
  for (int half = static_cast<int>(blockDim.x) / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half) shared[threadIdx.x].add(shared[threadIdx.x + half]);
    __syncthreads();
  }
  if (threadIdx.x == 0) *target = shared[0];
}

template <int kWidth>
__device__ float dotColumn(const float* coefficients, const float (&column)[kWidth], int width) {
  float sum = 0;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    if (j < width) sum = fmaf(coefficients[j], column[j], sum);
  }
  return sum;
}

template <int kWidth>
__global__ void fewRowsKernel(const UpdateArgs args) {
  awaitPredecessor();
  alignas(16) __shared__ float coefficients[(2 * kWidth + 1) * kWidth];
  __shared__ Statistics shared[kThreads];
  const int width = args.width(), count = args.rootRows + 1 + args.factorRows;
  for (int e = threadIdx.x; e < count * width; e += kThreads) {
    coefficients[e / width * kWidth + e % width] = args.coefficients[e];
  }
  __syncthreads();
  const float* gain = coefficients + args.rootRows * kWidth;
  Statistics statistics = noStatistics();
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t c = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; c < args.n;
       c += stride) {
    float v[kWidth];
#pragma unroll
    for (int i = 0; i < kWidth; ++i) v[i] = i < width ? args.row(i)[c] : 0;
    float q = 0;
    for (int i = 0; i < args.rootRows; ++i) {
      const float whitened = dotColumn(coefficients + i * kWidth, v, width);
      q = fmaf(whitened, whitened, q);
    }
    const float shrinkage = updateColumn(args, c, dotColumn(gain, v, width), q, statistics);
    for (int i = 0; i < args.factorRows; ++i) {
      const float value = dotColumn(gain + (i + 1) * kWidth, v, width);
      args.factor[i * args.n + c] = args.carried(i, value, shrinkage);
    }
  }
  reduceStatistics(statistics, shared, &args.partials[blockIdx.x]);
}

/// kTileColumns columns of V, which lies in two memories.
class FetchStacked {
 public:
  static constexpr bool kAcross = true;
  static constexpr bool kWhole = false;
  using Parts = Vectors<kAcross, kTileColumns>;

  __device__ FetchStacked(const UpdateArgs& args, std::int64_t column)
      : args_(args),
        column_(column),
        columns_(static_cast<int>(min(std::int64_t{kTileColumns}, args.n - column))) {}

  __device__ int columns() const { return columns_; }

  template <bool>
  __device__ Parts load(int k, int depth) const {
    Parts parts;
#pragma unroll
    for (int i = 0; i < Parts::kCount; ++i) {
      const int at = k + Parts::depthOf(i), extent = Parts::extentOf(i);
      const float* start = at >= depth ? nullptr : args_.row(at) + column_ + extent;
      parts.packed[i] = fetchVector<false>(start, columns_ - extent, args_.n % 4 == 0);
    }
    return parts;
  }

 private:
  const UpdateArgs& args_;
  std::int64_t column_;
  int columns_;
};

/// kCarryTiles: tiles of the rows that are carried.
template <int kCarryTiles>
__global__ void __launch_bounds__(kTileThreads)
    manyRowsKernel(const UpdateArgs args, const Operand coefficients) {
  awaitPredecessor();
  constexpr int kRows = kCarryTileRows;
  __shared__ LeftTile<Float32, kRows> left;
  __shared__ RightTile<Float32, true> right;
  alignas(32) __shared__ float out[kRows * kOutLd];
  __shared__ float shrinkage[kTileColumns];
  __shared__ Statistics shared[kTileThreads];
  const int thread = static_cast<int>(threadIdx.x);
  const int count = args.rootRows + 1 + args.factorRows;
  Statistics statistics = noStatistics();
  const std::int64_t tiles = (args.n + kTileColumns - 1) / kTileColumns;
  for (std::int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const std::int64_t column = tile * kTileColumns;
    const FetchStacked stacked(args, column);
    const int columns = stacked.columns();
    const auto multiply = [&](Tile<Float32, kRows>& product, int row) {
      product.clear();
      addProduct(product, left, right, Fetch<false, kRows>(coefficients, row, 0, count), stacked, 0,
                 args.width(), Unscaled{});
    };
    float q = 0, step = 0;
    for (int row = 0; row <= args.rootRows; row += kRows) {
      Tile<Float32, kRows> product;
      multiply(product, row);
      product.store(out, kOutLd);
      __syncthreads();
      for (int i = 0; thread < columns && i < kRows && row + i <= args.rootRows; ++i) {
        const float value = out[i * kOutLd + thread];
        if (row + i == args.rootRows) {
          step = value;
        } else {
          q = fmaf(value, value, q);
        }
      }
      __syncthreads();
    }
    if (thread < columns) {
      shrinkage[thread] = updateColumn(args, column + thread, step, q, statistics);
    }
    if constexpr (kCarryTiles > 0) {
      Tile<Float32, kRows> carried[kCarryTiles];
#pragma unroll
      for (int t = 0; t < kCarryTiles; ++t) multiply(carried[t], args.rootRows + 1 + t * kRows);
#pragma unroll
      for (int t = 0; t < kCarryTiles; ++t) {
        carried[t].store(out, kOutLd);
        __syncthreads();
        for (int e = thread; e < kRows * kTileColumns; e += kTileThreads) {
          const int i = t * kRows + e / kTileColumns, c = e % kTileColumns;
          if (i >= args.factorRows || c >= columns) continue;
          args.factor[i * args.n + column + c] =
              args.carried(i, out[e / kTileColumns * kOutLd + c], shrinkage[c]);
        }
        __syncthreads();
      }
    }
  }
  reduceStatistics(statistics, shared, &args.partials[blockIdx.x]);
}

/// One block: all partial statistics, in order.
__global__ void gatherKernel(const Statistics* partials, int count, Statistics* target) {
  awaitPredecessor();
  __shared__ Statistics shared[kThreads];
  Statistics mine = noStatistics();
  for (int i = threadIdx.x; i < count; i += kThreads) mine.add(partials[i]);
  reduceStatistics(mine, shared, target);
}

__global__ void capKernel(float* p, std::int64_t n, float most, float* factor, int firstRow,
                          int lastRow) {
  awaitPredecessor();
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride) {
    if (!(p[i] > most)) continue;
    const float ratio = p[i] / most;
    for (std::int64_t row = firstRow; row < lastRow; ++row) factor[row * n + i] *= ratio;
    p[i] = most;
  }
}

__global__ void transitionKernel(float* values, std::int64_t n, float factor, float added,
                                 float most) {
  awaitPredecessor();
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride) {
    const float next = factor * values[i] + added;
    values[i] = next > most ? most : next;
  }
}

int coefficientRows(const KalmanUpdate& update) {
  return update.rootRows + 1 + update.factorRows;
}

void uploadCoefficients(const KalmanUpdate& update, Context& context) {
  const std::int64_t width = update.width();
  const int count = coefficientRows(update);
  std::vector<float> host(static_cast<std::size_t>(count * width));
  auto target = host.begin();
  const auto narrow = [&](const double* source, std::int64_t rows) {
    target = std::transform(source, source + rows * width, target,
                            [](double value) { return static_cast<float>(value); });
  };
  narrow(update.root, update.rootRows);
  narrow(update.gain, 1);
  narrow(update.carry, update.factorRows);
  context.upload(context.coefficients(count, update.width()), host.data(),
                 host.size() * sizeof(float));
}

Operand coefficientsOf(const UpdateArgs& args) {
  Rows map;
  map.data = const_cast<float*>(args.coefficients);
  map.rows = args.rootRows + 1 + args.factorRows;
  map.ld = args.width();
  return operandOf(map);
}

unsigned launchUpdate(const UpdateArgs& args, Context& context) {
  const auto few = [&](void (*kernel)(UpdateArgs)) {
    const unsigned blocks = blocksFor(args.n, kThreads, kMaxBlocks);
    launch({"Kalman update", dim3(blocks), dim3(kThreads), context.queue()}, kernel, args);
    return blocks;
  };
  const auto many = [&](void (*kernel)(UpdateArgs, Operand)) {
    const unsigned blocks = blocksFor(args.n, kTileColumns, kMaxBlocks);
    launch({"Kalman update", dim3(blocks), dim3(kTileThreads), context.queue()}, kernel, args,
           coefficientsOf(args));
    return blocks;
  };
  const int width = args.width(), r = args.factorRows;
  if (width <= 2) return few(fewRowsKernel<2>);
  if (width <= 8) return few(fewRowsKernel<8>);
  if (width <= kFewRows) return few(fewRowsKernel<kFewRows>);
  if (r > 0 && args.rows <= kFewRows && width <= kFewWithFactor) {
    return few(fewRowsKernel<kFewWithFactor>);
  }
  if (r == 0) return many(manyRowsKernel<0>);
  return r <= kCarryTileRows ? many(manyRowsKernel<1>) : many(manyRowsKernel<kMaxCarryTiles>);
}

}  // namespace

KalmanUpdateResult kalmanUpdate(const KalmanUpdate& update, State& p, Context& context) {
  static_assert((kMaxBlocks + 1) * sizeof(Statistics) <= Context::kResultBytes);
  const std::int64_t n = context.parameters();
  LOKO_CHECK(update.rows > 0 && p.size() == n, "p and the Jacobian differ in size");
  LOKO_CHECK(update.rootRows >= 0 && update.rootRows <= update.width() && update.dualRows >= 0 &&
                 update.dualRows <= update.factorRows,
             "the rows of an update");
  if (update.factorRows > kMaxCarryTiles * kCarryTileRows) {
    throw Error(ErrorCode::kUnsupported, "A covariance with a low-rank part of " +
                                             std::to_string(update.factorRows) +
                                             " rows was asked for; on a GPU it has at most " +
                                             std::to_string(kMaxCarryTiles * kCarryTileRows) +
                                             ". Use a lower rank, or device \"cpu\".");
  }
  if (n == 0) return {};
  uploadCoefficients(update, context);
  auto* partials = static_cast<Statistics*>(context.results());
  UpdateArgs args{};
  args.jacobian = context.jacobian(0, 0, n);
  context.jacobian(update.rows - 1, 0, n);
  args.coefficients = context.coefficients(coefficientRows(update), update.width());
  args.factor = factorValues(update.factor, update.factorRows, n);
  args.theta = context.parameter(0, n);
  args.p = p.values();
  args.n = n;
  args.rows = update.rows;
  args.rootRows = update.rootRows;
  args.factorRows = update.factorRows;
  args.dualRows = update.dualRows;
  args.floor = static_cast<float>(update.floor);
  args.variational = update.rule == CovarianceRule::kVariationalDecoupled;
  args.partials = partials + 1;
  const unsigned blocks = launchUpdate(args, context);
  launch({"Kalman update, statistics", dim3(1), dim3(kThreads), context.queue()}, gatherKernel,
         args.partials, static_cast<int>(blocks), partials);
  Statistics statistics;
  context.download(&statistics, partials, sizeof statistics);
  KalmanUpdateResult result;
  result.floored = statistics.floored;
  result.sum = statistics.sum;
  result.min = static_cast<double>(statistics.min);
  result.max = static_cast<double>(statistics.max);
  return result;
}

void transition(float* values, std::int64_t n, const Transition& by, Context& context) {
  if (n == 0) return;
  launch({"state transition", dim3(blocksFor(n, kThreads, kMaxBlocks)), dim3(kThreads),
          context.queue()},
         transitionKernel, values, n, static_cast<float>(by.factor), static_cast<float>(by.added),
         static_cast<float>(by.most));
}

void capVariance(State& p, double most, State& factor, int firstRow, int lastRow,
                 Context& context) {
  const std::int64_t n = p.size();
  if (n == 0) return;
  launch({"cap of a variance", dim3(blocksFor(n, kThreads, kMaxBlocks)), dim3(kThreads),
          context.queue()},
         capKernel, p.values(), n, static_cast<float>(most), factor.values(), firstRow, lastRow);
}

}  // namespace loko::cuda
