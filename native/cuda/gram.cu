// V diag(p) V^T over a range of columns, V = [factor; G]: every block takes a slab of columns, and the slabs
// are added in a fixed order in float64.
//
//   up to 8 rows   a thread owns columns and all pairs of rows, in float64
//   above          32 x 32 pairs in a block, float32 within 64 columns, float64 across
//
// RoBERTa-base, k = 1: reads 3.5 MB of G and as much of p. ViT-B, k = 99: 117 MB, 5.8 GFLOP.

#include <algorithm>

#include "cuda/context.h"
#include "cuda/launch.h"
#include "cuda/predecessor.cuh"
#include "cuda/reduce.cuh"

namespace loko::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kFewRows = 8;
constexpr int kTileRows = 32, kTileColumns = 64;
constexpr int kMaxSlabs = 256;
constexpr int kSlabGroups = kThreads / 32;
constexpr int kFullGrid = 2048;  // blocks that fill a device

struct Columns {
  const float* factor;
  const float* jacobian;
  int factorRows;
  const float* weights;  // null: ones
  std::int64_t ld, begin, end, slabColumns;
};

__device__ inline float valueAt(const Columns& columns, int row, std::int64_t c) {
  const bool carried = row < columns.factorRows;
  const float* base = carried ? columns.factor : columns.jacobian;
  return base[(carried ? row : row - columns.factorRows) * columns.ld + c];
}

__device__ inline float weightAt(const Columns& columns, std::int64_t c) {
  return columns.weights != nullptr ? columns.weights[c] : 1;
}

/// partials[slab][pair], pairs (i >= j) row by row.
template <int kRows>
__global__ void fewRowsKernel(const Columns columns, int rows, double* partials) {
  awaitPredecessor();
  constexpr int kPairs = kRows * (kRows + 1) / 2;
  __shared__ double shared[kThreads / 32][kPairs];
  double sums[kPairs];
#pragma unroll
  for (double& sum : sums) sum = 0;
  const std::int64_t begin = columns.begin + blockIdx.x * columns.slabColumns;
  const std::int64_t end = min(columns.end, begin + columns.slabColumns);
  for (std::int64_t c = begin + threadIdx.x; c < end; c += kThreads) {
    float g[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) g[i] = i < rows ? valueAt(columns, i, c) : 0;
    const float weight = weightAt(columns, c);
    int pair = 0;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const double weighted = static_cast<double>(weight * g[i]);
#pragma unroll
      for (int j = 0; j <= i; ++j) sums[pair++] += weighted * static_cast<double>(g[j]);
    }
  }
  // A constant index, or the sums lie in memory from the beginning.
#pragma unroll
  for (int pair = 0; pair < kPairs; ++pair) {
    const double sum = warpSum(sums[pair]);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32][pair] = sum;
  }
  __syncthreads();
  const int pairs = rows * (rows + 1) / 2, pair = static_cast<int>(threadIdx.x);
  if (pair >= pairs) return;
  double sum = shared[0][pair];
  for (int warp = 1; warp < kThreads / 32; ++warp) sum += shared[warp][pair];
  partials[std::int64_t{blockIdx.x} * pairs + pair] = sum;
}

/// What a thread reads of two times 32 rows and 64 columns: one column, every fourth row.
class PairOfTiles {
 public:
  static constexpr int kRowStep = kThreads / kTileColumns;
  static constexpr int kCount = kTileRows / kRowStep;

  __device__ PairOfTiles(const Columns& columns, int rows, int leftTile, int rightTile)
      : columns_(columns),
        rows_(rows),
        left_(leftTile * kTileRows),
        right_(rightTile * kTileRows) {}

  __device__ void load(std::int64_t column, std::int64_t end) {
    const std::int64_t c = column + offset();
    weight_ = c < end ? weightAt(columns_, c) : 0;
#pragma unroll
    for (int e = 0; e < kCount; ++e) {
      const int i = left_ + row(e), j = right_ + row(e);
      lefts_[e] = c < end && i < rows_ ? valueAt(columns_, i, c) : 0;
      if (left_ != right_) rights_[e] = c < end && j < rows_ ? valueAt(columns_, j, c) : 0;
    }
  }

  template <class Tile>
  __device__ void store(Tile& left, Tile& right) const {
#pragma unroll
    for (int e = 0; e < kCount; ++e) {
      left[row(e)][offset()] = weight_ * lefts_[e];
      right[row(e)][offset()] = left_ != right_ ? rights_[e] : lefts_[e];
    }
  }

 private:
  __device__ static int offset() {
    return static_cast<int>(threadIdx.x) % kTileColumns;
  }
  __device__ static int row(int e) {
    return static_cast<int>(threadIdx.x) / kTileColumns + e * kRowStep;
  }

  const Columns& columns_;
  int rows_, left_, right_;
  float weight_, lefts_[kCount], rights_[kCount];
};

/// Block (pair of 32 rows, slab): partials[slab][pair][32][32].
__global__ void manyRowsKernel(const Columns columns, int rows, double* partials) {
  awaitPredecessor();
  __shared__ float left[kTileRows][kTileColumns + 1], right[kTileRows][kTileColumns + 1];
  int leftTile = 0, rightTile = static_cast<int>(blockIdx.x);
  while (rightTile > leftTile) rightTile -= ++leftTile;
  const std::int64_t begin = columns.begin + blockIdx.y * columns.slabColumns;
  const std::int64_t end = min(columns.end, begin + columns.slabColumns);
  const int ty = threadIdx.x / 16 * 2, tx = threadIdx.x % 16 * 2;
  double sums[2][2] = {};
  PairOfTiles mine(columns, rows, leftTile, rightTile);
  mine.load(begin, end);
  for (std::int64_t column = begin; column < end; column += kTileColumns) {
    mine.store(left, right);
    __syncthreads();
    mine.load(column + kTileColumns, end);  // on its way while this one is multiplied
    float part[2][2] = {};
    for (int c = 0; c < kTileColumns; ++c) {
      for (int a = 0; a < 2; ++a) {
        for (int b = 0; b < 2; ++b)
          part[a][b] = fmaf(left[ty + a][c], right[tx + b][c], part[a][b]);
      }
    }
    for (int a = 0; a < 2; ++a) {
      for (int b = 0; b < 2; ++b) sums[a][b] += static_cast<double>(part[a][b]);
    }
    __syncthreads();
  }
  const std::int64_t tile = std::int64_t{blockIdx.y} * gridDim.x + blockIdx.x;
  for (int a = 0; a < 2; ++a) {
    for (int b = 0; b < 2; ++b) {
      partials[(tile * kTileRows + ty + a) * kTileRows + tx + b] = sums[a][b];
    }
  }
}

/// gram += the slabs, both triangles. A block has 32 entries, and eight groups of threads, each with every eighth
/// slab: one thread for all of them would wait for memory as often as there are slabs.
__global__ void addSlabsKernel(const double* partials, int rows, int slabs, double* gram) {
  awaitPredecessor();
  __shared__ double shared[kSlabGroups][32];
  const int lane = static_cast<int>(threadIdx.x) % 32, group = static_cast<int>(threadIdx.x) / 32;
  const std::int64_t index = std::int64_t{blockIdx.x} * 32 + lane;
  const int i = static_cast<int>(index / rows), j = static_cast<int>(index % rows);
  const bool exists = i < rows && j <= i;
  std::int64_t offset, stride;
  if (rows <= kFewRows) {
    stride = rows * (rows + 1) / 2;
    offset = i * (i + 1) / 2 + j;
  } else {
    const int tiles = (rows + kTileRows - 1) / kTileRows;
    const int leftTile = i / kTileRows, rightTile = j / kTileRows;
    stride = std::int64_t{tiles} * (tiles + 1) / 2 * kTileRows * kTileRows;
    const std::int64_t pair = std::int64_t{leftTile} * (leftTile + 1) / 2 + rightTile;
    offset = (pair * kTileRows + i % kTileRows) * kTileRows + j % kTileRows;
  }
  double sum = 0;
#pragma unroll 8
  for (int slab = group; slab < (exists ? slabs : 0); slab += kSlabGroups) {
    sum += partials[slab * stride + offset];
  }
  shared[group][lane] = sum;
  __syncthreads();
  if (group > 0 || !exists) return;
  double all = gram[index];
  for (int g = 0; g < kSlabGroups; ++g) all += shared[g][lane];
  gram[index] = all;
  gram[std::int64_t{j} * rows + i] = all;
}

std::int64_t pairTiles(int rows) {
  const std::int64_t tiles = ceilDiv(rows, kTileRows);
  return tiles * (tiles + 1) / 2;
}

std::int64_t partialsPerSlab(int rows) {
  return rows <= kFewRows ? rows * (rows + 1) / 2 : pairTiles(rows) * kTileRows * kTileRows;
}

/// Enough blocks to fill a device; fewer slabs where there are many pairs.
int slabsFor(int rows) {
  if (rows <= kFewRows) return kMaxSlabs;
  return static_cast<int>(std::clamp<std::int64_t>(kFullGrid / pairTiles(rows), 1, kMaxSlabs));
}

}  // namespace

std::int64_t gramPartialCount(int rows) {
  const std::int64_t few = partialsPerSlab(kFewRows) * kMaxSlabs;
  if (rows <= kFewRows) return few;
  // Fewer rows have more slabs.
  constexpr std::int64_t kTile = std::int64_t{kTileRows} * kTileRows;
  const std::int64_t most = std::min<std::int64_t>(kFullGrid, pairTiles(rows) * kMaxSlabs);
  return std::max(few, std::max(most, pairTiles(rows)) * kTile);
}

void run(const Gram& op, const Frame& frame, Context& context) {
  if (frame.gram == nullptr || op.begin == op.end) return;
  LOKO_CHECK(op.begin >= 0 && op.begin <= op.end && frame.gramRows > 0, "columns of a Gram matrix");
  Columns columns{};
  columns.jacobian = context.jacobian(0, 0, op.end);
  context.jacobian(frame.gramRows - 1, 0, op.end);
  if (frame.gramWeights != nullptr) {
    const auto& p = dynamic_cast<const State&>(*frame.gramWeights);
    LOKO_CHECK(p.size() >= op.end, "fewer weights than columns");
    columns.weights = p.values();
  }
  columns.ld = context.parameters();
  columns.factor = factorValues(frame.factor, frame.factorRows, columns.ld);
  columns.factorRows = frame.factorRows;
  columns.begin = op.begin;
  columns.end = op.end;
  const int rows = frame.gramSize();
  const std::int64_t tiles = ceilDiv<std::int64_t>(op.end - op.begin, kTileColumns);
  columns.slabColumns = ceilDiv<std::int64_t>(tiles, slabsFor(rows)) * kTileColumns;
  const auto slabs = static_cast<unsigned>(ceilDiv(op.end - op.begin, columns.slabColumns));
  double* partials = context.gramPartials(partialsPerSlab(rows) * slabs);
  const auto few = [&](void (*kernel)(Columns, int, double*)) {
    launch({"Gram", dim3(slabs), dim3(kThreads), context.queue()}, kernel, columns, rows, partials);
  };
  if (rows <= 1) {
    few(fewRowsKernel<1>);
  } else if (rows <= 2) {
    few(fewRowsKernel<2>);
  } else if (rows <= 4) {
    few(fewRowsKernel<4>);
  } else if (rows <= kFewRows) {
    few(fewRowsKernel<kFewRows>);
  } else {
    launch({"Gram", dim3(static_cast<unsigned>(pairTiles(rows)), slabs), dim3(kThreads),
            context.queue()},
           manyRowsKernel, columns, rows, partials);
  }
  const std::int64_t entries = std::int64_t{rows} * rows;
  launch({"Gram, slabs", dim3(static_cast<unsigned>(ceilDiv<std::int64_t>(entries, 32))),
          dim3(kThreads), context.queue()},
         addSlabsKernel, partials, rows, static_cast<int>(slabs), context.gram(rows));
}

}  // namespace loko::cuda
