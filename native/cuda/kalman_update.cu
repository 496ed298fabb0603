// The measurement update of theta and p: one pass over p, theta and the rows of G.
//
//   k <= 16   a thread owns a column, its k numbers in registers
//   above     [root; gain] G in tiles of 64 rows x 64 columns, their squares summed in shared memory
//
// RoBERTa-base, k = 1: 18 MB. ViT-B, k = 99: 117 MB and 5.8 GFLOP.

#include <algorithm>

#include "cuda/block_product.cuh"
#include "cuda/context.h"
#include "cuda/launch.h"
#include "cuda/reduce.cuh"

namespace loko::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kFewRows = 16;
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
  const float* coefficients;  // [k + 1, k]: root, then gain
  float* theta;
  float* p;
  std::int64_t n;
  int rows;
  float floor;
  bool variational;
  Statistics* partials;  // of each block
};

/// A zero step and a zero q leave theta and p as they are, to the bit.
__device__ void updateColumn(const UpdateArgs& args, std::int64_t c, float step, float q,
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

template <int kRows>
__global__ void fewRowsKernel(const UpdateArgs args) {
  __shared__ float coefficients[(kRows + 1) * kRows];
  __shared__ Statistics shared[kThreads];
  for (int e = threadIdx.x; e < (args.rows + 1) * args.rows; e += kThreads) {
    coefficients[e / args.rows * kRows + e % args.rows] = args.coefficients[e];
  }
  __syncthreads();
  Statistics statistics = noStatistics();
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t c = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; c < args.n;
       c += stride) {
    float g[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) g[i] = i < args.rows ? args.jacobian[i * args.n + c] : 0;
    float step = 0, q = 0;
    for (int i = 0; i < args.rows; ++i) {
      float whitened = 0;
#pragma unroll
      for (int j = 0; j < kRows; ++j) {
        if (j < args.rows) whitened = fmaf(coefficients[i * kRows + j], g[j], whitened);
      }
      q = fmaf(whitened, whitened, q);
    }
#pragma unroll
    for (int j = 0; j < kRows; ++j) {
      if (j < args.rows) step = fmaf(coefficients[args.rows * kRows + j], g[j], step);
    }
    updateColumn(args, c, step, q, statistics);
  }
  reduceStatistics(statistics, shared, &args.partials[blockIdx.x]);
}

__global__ void __launch_bounds__(kTileThreads)
    manyRowsKernel(const UpdateArgs args, const Operand coefficients, const Operand jacobian) {
  constexpr int kRows = 64, kOutLd = kTileColumns + 4;
  __shared__ LeftTile<Float32, kRows> left;
  __shared__ RightTile<Float32, true> right;
  alignas(32) __shared__ float out[kRows * kOutLd];
  __shared__ Statistics shared[kTileThreads];
  Statistics statistics = noStatistics();
  const std::int64_t tiles = (args.n + kTileColumns - 1) / kTileColumns;
  for (std::int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const std::int64_t column = tile * kTileColumns;
    Operand part = jacobian;
    part.rows.data += column;
    const int columns = static_cast<int>(min(std::int64_t{kTileColumns}, args.n - column));
    float q = 0, step = 0;
    for (int row = 0; row <= args.rows; row += kRows) {
      Tile<Float32, kRows> product;
      product.clear();
      addProduct(product, left, right, Fetch<false, kRows>(coefficients, row, 0, args.rows + 1),
                 Fetch<true, kTileColumns>(part, 0, 0, columns), 0, args.rows, Unscaled{});
      product.store(out, kOutLd);
      __syncthreads();
      if (static_cast<int>(threadIdx.x) < columns) {
        for (int i = 0; i < kRows && row + i <= args.rows; ++i) {
          const float value = out[i * kOutLd + threadIdx.x];
          if (row + i == args.rows) {
            step = value;
          } else {
            q = fmaf(value, value, q);
          }
        }
      }
      __syncthreads();
    }
    if (static_cast<int>(threadIdx.x) < columns) {
      updateColumn(args, column + threadIdx.x, step, q, statistics);
    }
  }
  reduceStatistics(statistics, shared, &args.partials[blockIdx.x]);
}

/// One block: all partial statistics, in order.
__global__ void gatherKernel(const Statistics* partials, int count, Statistics* target) {
  __shared__ Statistics shared[kThreads];
  Statistics mine = noStatistics();
  for (int i = threadIdx.x; i < count; i += kThreads) mine.add(partials[i]);
  reduceStatistics(mine, shared, target);
}

__global__ void predictKernel(float* p, std::int64_t n, float factor, float noise, float most) {
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride) {
    const float next = factor * p[i] + noise;
    p[i] = next > most ? most : next;
  }
}

void uploadCoefficients(const KalmanUpdate& update, Context& context) {
  const int k = update.rows;
  std::vector<float> host(static_cast<std::size_t>(k + 1) * static_cast<std::size_t>(k));
  const auto narrow = [](double value) { return static_cast<float>(value); };
  std::transform(update.root, update.root + std::int64_t{k} * k, host.begin(), narrow);
  std::transform(update.gain, update.gain + k, host.begin() + std::int64_t{k} * k, narrow);
  context.upload(context.coefficients(k), host.data(), host.size() * sizeof(float));
}

Operand matrixOf(const float* data, int rows, std::int64_t ld) {
  Rows map;
  map.data = const_cast<float*>(data);
  map.rows = rows;
  map.ld = ld;
  return operandOf(map);
}

unsigned launchUpdate(const UpdateArgs& args, Context& context) {
  const auto few = [&](void (*kernel)(UpdateArgs)) {
    const unsigned blocks = blocksFor(args.n, kThreads, kMaxBlocks);
    launch({"Kalman update", dim3(blocks), dim3(kThreads), context.stream()}, kernel, args);
    return blocks;
  };
  if (args.rows <= 2) return few(fewRowsKernel<2>);
  if (args.rows <= 4) return few(fewRowsKernel<4>);
  if (args.rows <= 8) return few(fewRowsKernel<8>);
  if (args.rows <= kFewRows) return few(fewRowsKernel<kFewRows>);
  const unsigned blocks = blocksFor(args.n, kTileColumns, kMaxBlocks);
  launch({"Kalman update", dim3(blocks), dim3(kTileThreads), context.stream()}, manyRowsKernel,
         args, matrixOf(args.coefficients, args.rows + 1, args.rows),
         matrixOf(args.jacobian, args.rows, args.n));
  return blocks;
}

}  // namespace

KalmanUpdateResult kalmanUpdate(const KalmanUpdate& update, State& p, Context& context) {
  static_assert((kMaxBlocks + 1) * sizeof(Statistics) <= Context::kResultBytes);
  const std::int64_t n = context.parameters();
  LOKO_CHECK(update.rows > 0 && p.size() == n, "p and the Jacobian differ in size");
  if (n == 0) return {};
  uploadCoefficients(update, context);
  auto* partials = static_cast<Statistics*>(context.results());
  UpdateArgs args{};
  args.jacobian = context.jacobian(0, 0, n);
  context.jacobian(update.rows - 1, 0, n);
  args.coefficients = context.coefficients(update.rows);
  args.theta = context.parameter(0, n);
  args.p = p.values();
  args.n = n;
  args.rows = update.rows;
  args.floor = static_cast<float>(update.floor);
  args.variational = update.rule == CovarianceRule::kVariationalDecoupled;
  args.partials = partials + 1;
  const unsigned blocks = launchUpdate(args, context);
  launch({"Kalman update, statistics", dim3(1), dim3(kThreads), context.stream()}, gatherKernel,
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

void predictCovariance(State& p, double gamma2, double q, double pMax, Context& context) {
  if (p.size() == 0) return;
  launch({"predict covariance", dim3(blocksFor(p.size(), kThreads, kMaxBlocks)), dim3(kThreads),
          context.stream()},
         predictKernel, p.values(), p.size(), static_cast<float>(gamma2), static_cast<float>(q),
         static_cast<float>(pMax));
}

}  // namespace loko::cuda
