// Layer norm, softmax, Gram blocks and the Kalman update, written once for all vector widths. See
// kernels_math.inc.h, which must be included before, for the rules that hold here.

LOKO_INLINE Vec loadLanes(const float* p, int left) {
  return left >= kWidth ? load(p) : loadPartial(p, left);
}
LOKO_INLINE void storeLanes(float* p, Vec v, int left) {
  if (left >= kWidth)
    store(p, v);
  else
    storePartial(p, v, left);
}
LOKO_INLINE IntVec laneNumbers() {
  IntVec lanes;
  for (int i = 0; i < kWidth; ++i) lanes[i] = i;
  return lanes;
}

void layerNormKernel(const LayerNormRow& row) {
  const int n = row.columns;
  const float mean = sumArray(row.x, n) / static_cast<float>(n);
  const Vec center = broadcast(mean);
  // Lanes beyond the end must not count as x = 0.
  const IntVec lanes = laneNumbers();
  Vec squares[2] = {broadcast(0), broadcast(0)};
  int i = 0;
  for (; i + 2 * kWidth <= n; i += 2 * kWidth)
    for (int j = 0; j < 2; ++j) {
      const Vec d = load(row.x + i + j * kWidth) - center;
      squares[j] = fma(d, d, squares[j]);
    }
  for (; i < n; i += kWidth) {
    Vec d = loadLanes(row.x + i, n - i) - center;
    d = select(lanes < n - i, d, broadcast(0));
    squares[0] = fma(d, d, squares[0]);
  }
  const float variance = horizontalSum(squares[0] + squares[1]) / static_cast<float>(n);
  const float rstd = 1.0f / __builtin_sqrtf(variance + row.eps);
  if (row.rstd) *row.rstd = rstd;

  const Vec factor = broadcast(rstd);
  for (i = 0; i < n; i += kWidth) {
    const int left = n - i;
    const Vec xhat = (loadLanes(row.x + i, left) - center) * factor;
    if (row.xhat) storeLanes(row.xhat + i, xhat, left);
    storeLanes(row.y + i, fma(xhat, loadLanes(row.gamma + i, left), loadLanes(row.beta + i, left)),
               left);
  }
}

void layerNormBackwardKernel(const LayerNormBackwardRow& row) {
  const int n = row.columns;
  Vec sums[2] = {broadcast(0), broadcast(0)};
  Vec products[2] = {broadcast(0), broadcast(0)};
  int i = 0;
  for (; i + 2 * kWidth <= n; i += 2 * kWidth)
    for (int j = 0; j < 2; ++j) {
      const Vec g = load(row.dy + i + j * kWidth) * load(row.gamma + i + j * kWidth);
      sums[j] += g;
      products[j] = fma(g, load(row.xhat + i + j * kWidth), products[j]);
    }
  for (; i < n; i += kWidth) {
    const int left = n - i;
    const Vec g = loadLanes(row.dy + i, left) * loadLanes(row.gamma + i, left);
    sums[0] += g;
    products[0] = fma(g, loadLanes(row.xhat + i, left), products[0]);
  }
  const float scale = 1.0f / static_cast<float>(n);
  const Vec mean = broadcast(horizontalSum(sums[0] + sums[1]) * scale);
  const Vec projection = broadcast(horizontalSum(products[0] + products[1]) * scale);
  const Vec rstd = broadcast(row.rstd);
  for (i = 0; i < n; i += kWidth) {
    const int left = n - i;
    const Vec g = loadLanes(row.dy + i, left) * loadLanes(row.gamma + i, left);
    Vec dx = rstd * (g - mean - loadLanes(row.xhat + i, left) * projection);
    if (row.accumulate) dx += loadLanes(row.dx + i, left);
    storeLanes(row.dx + i, dx, left);
  }
}

void softmaxKernel(float* row, int n) {
  const float sum = expSumArray(row, row, maxArray(row, n), n);
  scaleArray(row, 1.0f / sum, row, n);
}

void multiplyKernel(float* y, const float* x, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) store(y + i, load(y + i) * load(x + i));
  const int rest = static_cast<int>(n - i);
  if (rest > 0) storePartial(y + i, loadPartial(y + i, rest) * loadPartial(x + i, rest), rest);
}

void scoreCotangentKernel(const ScoreCotangent& args) {
  for (int i = 0; i < args.rows; ++i) {
    const Vec rowSum = broadcast(args.rowSums[i]);
    const float* tile = args.tile + i * args.stride;
    const float* probs = args.probs + i * args.probsLd;
    float* packed = args.packed + i * kPackGroup;
    float* plain = args.plain + i * args.plainLd;
    for (int j = 0; j < args.columns; j += kWidth) {
      const Vec ds = loadLanes(probs + j, args.columns - j) * (load(tile + j) - rowSum);
      store(plain + j, ds);
      store(packed + j / kPackGroup * (args.rows * kPackGroup) + j % kPackGroup, ds);
    }
  }
}

// kWidth rows at a time: their partial sums are transposed, so that one addition per lane finishes
// all of them.
void rowDotsKernel(float* out, const float* x, std::ptrdiff_t ldx, const float* y,
                   std::ptrdiff_t ldy, int rows, int columns) {
  for (int i0 = 0; i0 < rows; i0 += kWidth) {
    const int count = rows - i0 < kWidth ? rows - i0 : kWidth;
    Vec sums[kWidth];
    for (int i = 0; i < kWidth; ++i) {
      sums[i] = broadcast(0.0f);
      if (i >= count) continue;
      const float* xi = x + (i0 + i) * ldx;
      const float* yi = y + (i0 + i) * ldy;
      for (int j = 0; j < columns; j += kWidth)
        sums[i] = fma(loadLanes(xi + j, columns - j), loadLanes(yi + j, columns - j), sums[i]);
    }
    transposeSquare(sums);
    Vec total = sums[0];
    for (int i = 1; i < kWidth; ++i) total += sums[i];
    storeLanes(out + i0, total, count);
  }
}

void storeTileKernel(float* dst, std::ptrdiff_t ld, const float* src, int stride, int rows,
                     int columns, bool accumulate) {
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; j += kWidth) {
      float* target = dst + i * ld + j;
      Vec value = load(src + i * stride + j);
      if (accumulate) value += loadLanes(target, columns - j);
      storeLanes(target, value, columns - j);
    }
  }
}

void storeTransposedKernel(float* dst, std::ptrdiff_t ld, const float* src, std::ptrdiff_t stride,
                           int rows, int columns, bool accumulate) {
  for (int j0 = 0; j0 < columns; j0 += kWidth) {
    const int width = columns - j0 < kWidth ? columns - j0 : kWidth;
    for (int i0 = 0; i0 < rows; i0 += kWidth) {
      const int height = rows - i0;
      Vec square[kWidth];
      for (int i = 0; i < kWidth; ++i)
        square[i] = i < height ? loadLanes(src + (i0 + i) * stride + j0, width) : broadcast(0.0f);
      transposeSquare(square);
      for (int j = 0; j < width; ++j) {
        float* target = dst + (j0 + j) * ld + i0;
        if (accumulate) square[j] += loadLanes(target, height);
        storeLanes(target, square[j], height);
      }
    }
  }
}

// All rows * columns sums stay in registers; few of them alone could not hide the latency of a
// multiply-add, so small blocks keep several partial sums per element.
template <int leftRows, int rightRows>
void computeGramBlock(const GramBlock& block) {
  constexpr int kUnroll = leftRows * rightRows <= 2 ? 4 : leftRows * rightRows <= 6 ? 2 : 1;
  Vec acc[kUnroll][leftRows][rightRows];
#pragma GCC unroll 4
  for (int u = 0; u < kUnroll; ++u)
#pragma GCC unroll 5
    for (int i = 0; i < leftRows; ++i)
#pragma GCC unroll 5
      for (int j = 0; j < rightRows; ++j) acc[u][i][j] = broadcast(0.0f);

  auto add = [&block](Vec(&sums)[leftRows][rightRows], int column, int left)
      __attribute__((always_inline)) {
    const Vec weights = block.weights ? loadLanes(block.weights + column, left) : broadcast(1.0f);
    Vec right[rightRows];
#pragma GCC unroll 5
    for (int j = 0; j < rightRows; ++j)
      right[j] = loadLanes(block.right + j * block.ld + column, left);
#pragma GCC unroll 5
    for (int i = 0; i < leftRows; ++i) {
      const Vec weighted = weights * loadLanes(block.left + i * block.ld + column, left);
#pragma GCC unroll 5
      for (int j = 0; j < rightRows; ++j) sums[i][j] = fma(weighted, right[j], sums[i][j]);
    }
  };

  int column = 0;
  for (; column + kUnroll * kWidth <= block.columns; column += kUnroll * kWidth) {
#pragma GCC unroll 4
    for (int u = 0; u < kUnroll; ++u) add(acc[u], column + u * kWidth, kWidth);
  }
  for (; column < block.columns; column += kWidth) add(acc[0], column, block.columns - column);

  for (int i = 0; i < leftRows; ++i)
    for (int j = 0; j < rightRows; ++j) {
      Vec total = acc[0][i][j];
      for (int u = 1; u < kUnroll; ++u) total += acc[u][i][j];
      block.out[i * rightRows + j] = horizontalSum(total);
    }
}

// AVX-512 has room for 5 x 5 sums, 5 rows and one product in its 32 registers, the others for 3 x 3.
constexpr int kGramBlockRows = kWidth == 16 ? 5 : 3;

template <int leftRows>
void dispatchGramBlock(const GramBlock& block) {
  switch (block.rightRows) {
    case 1:
      return computeGramBlock<leftRows, 1>(block);
    case 2:
      return computeGramBlock<leftRows, 2>(block);
    case 3:
      return computeGramBlock<leftRows, 3>(block);
    case 4:
      return computeGramBlock < leftRows, kGramBlockRows == 5 ? 4 : 1 > (block);
    case 5:
      return computeGramBlock < leftRows, kGramBlockRows == 5 ? 5 : 1 > (block);
  }
}

void gramBlockKernel(const GramBlock& block) {
  switch (block.leftRows) {
    case 1:
      return dispatchGramBlock<1>(block);
    case 2:
      return dispatchGramBlock<2>(block);
    case 3:
      return dispatchGramBlock<3>(block);
    case 4:
      return dispatchGramBlock < kGramBlockRows == 5 ? 4 : 1 > (block);
    case 5:
      return dispatchGramBlock < kGramBlockRows == 5 ? 5 : 1 > (block);
  }
}

void addSquaresKernel(float* q, const float* tile, int stride, int rows, int columns) {
  for (int j = 0; j < columns; j += kWidth) {
    Vec sum = loadLanes(q + j, columns - j);
    for (int i = 0; i < rows; ++i) {
      const Vec value = loadLanes(tile + i * stride + j, columns - j);
      sum = fma(value, value, sum);
    }
    storeLanes(q + j, sum, columns - j);
  }
}

std::int64_t kalmanColumnsKernel(const KalmanColumns& args) {
  const Vec floor = broadcast(args.floor);
  const Vec zero = broadcast(0.0f);
  const Vec one = broadcast(1.0f);
  const IntVec lanes = laneNumbers();
  IntVec floored = lanes - lanes;
  for (std::int64_t i = 0; i < args.n; i += kWidth) {
    const int left = args.n - i < kWidth ? static_cast<int>(args.n - i) : kWidth;
    const Vec p = loadLanes(args.p + i, left);
    const Vec q = loadLanes(args.q + i, left);
    const Vec step = loadLanes(args.step + i, left);
    const Vec theta = loadLanes(args.theta + i, left);
    // -0 + 0 would lose its sign.
    storeLanes(args.theta + i, select(step == zero, theta, fma(p, step, theta)), left);
    const Vec next = args.variational ? p / fma(p, q, one) : fma(negate(p * p), q, p);
    const IntVec low = (next < floor) & (lanes < left);
    storeLanes(args.p + i, select(low, floor, next), left);
    floored -= low;
  }
  std::int64_t total = 0;
  for (int lane = 0; lane < kWidth; ++lane) total += floored[lane];
  return total;
}

#include "cpu/kernels_image.inc.h"

constexpr OpKernels makeOpKernels() {
  return {layerNormKernel,       layerNormBackwardKernel, softmaxKernel,           multiplyKernel,
          maskPositiveKernel,    batchNormKernel,         batchNormBackwardKernel, maxUpdateKernel,
          addWhereEqualKernel,   scoreCotangentKernel,    rowDotsKernel,           storeTileKernel,
          storeTransposedKernel, kGramBlockRows,          gramBlockKernel,         addSquaresKernel,
          kalmanColumnsKernel};
}
