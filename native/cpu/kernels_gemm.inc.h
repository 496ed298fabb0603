// Micro-kernels, packing and epilogue of the matrix product, written once for all vector widths.
// See kernels_math.inc.h for what the including unit provides and which rules hold here.
#pragma once

#include "cpu/kernels_math.inc.h"

// An integer that a lambda takes as a compile-time constant.
template <int n>
struct IntConstant {
  static constexpr int kValue = n;
};

// rows x (vectors * kWidth) outputs live in registers through the whole depth. Every element is one
// chain of multiply-adds over k, whatever the height of the tile: that makes results independent of
// how rows are cut into tiles. Earlier K blocks are added afterwards, so that a long sum is a sum of
// short ones, which is also more accurate than one long chain.
template <int rows, int vectors, bool across>
void computeTile(const TileArgs& args) {
  constexpr IntConstant<across ? kPanelColumns : kPackGroup> aStride{};
  constexpr IntConstant<kPackGroup> packedStride{};
  Vec acc[rows][vectors];
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) acc[i][v] = broadcast(0.0f);

  const float* a = args.a;
  const float* b = args.b;
  const std::ptrdiff_t ldb = args.ldb;
  auto multiplyAdd = [&acc](const float* aColumn, auto rowStride, const float* bRow)
      __attribute__((always_inline)) {
    Vec bv[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) bv[v] = load(bRow + v * kWidth);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      const Vec av = broadcast(aColumn[i * decltype(rowStride)::kValue]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) acc[i][v] = fma(av, bv[v], acc[i][v]);
    }
  };

  const float* ahead = args.prefetch;
  const int aheadLines = ahead ? args.prefetchLines : 0;
  int aheadLeft = args.prefetchLeft;
  const int groups = args.depth / kPackGroup;
  for (int group = 0; group < groups; ++group) {
    for (int line = 0; line < aheadLines; ++line) {
      __builtin_prefetch(ahead, 0, 2);  // into the second-level cache
      ahead += kPackGroup;
      if (--aheadLeft == 0) {
        ahead += args.prefetchJump;
        aheadLeft = args.prefetchRun;
      }
    }
    // The rows of the next 16 k lie in other lines, and every other time in another panel.
    if constexpr (across) {
      const float* next = a + args.aAdvance[group % 2];
#pragma GCC unroll 16
      for (int i = 0; i < rows; ++i) __builtin_prefetch(next + i * kPanelColumns, 0, 3);
    }
#pragma GCC unroll 4
    for (int k = 0; k < kPackGroup; ++k) {
      multiplyAdd(a + k, aStride, b);
      b += ldb;
    }
    a += across ? args.aAdvance[group % 2] : rows * kPackGroup;
  }
  for (int k = 0; k < args.depth % kPackGroup; ++k) {
    multiplyAdd(a + k, aStride, b);
    b += ldb;
  }

  const Vec alpha = broadcast(args.alpha);
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      if (args.partial) acc[i][v] += load(args.partial + (i * vectors + v) * kWidth);
      acc[i][v] *= alpha;
    }

  if (args.tailA)
    for (int k = args.tailBegin; k < args.tailEnd; ++k)
      multiplyAdd(args.tailA + k / kPackGroup * (rows * kPackGroup) + k % kPackGroup, packedStride,
                  args.tailB + k * args.tailLdb);

#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) store(args.out + (i * vectors + v) * kWidth, acc[i][v]);
}

void packRowsKernel(float* dst, const float* const* src, int rows, int depth) {
  for (int i = 0; i < rows; ++i) {
    const float* row = src[i];
    float* out = dst + i * kPackGroup;
    int k = 0;
    for (; k + kPackGroup <= depth; k += kPackGroup) {
      for (int j = 0; j < kPackGroup; j += kWidth) store(out + j, load(row + k + j));
      out += rows * kPackGroup;
    }
    for (int j = 0; k < depth && j < kPackGroup; j += kWidth) {
      const int left = depth - k - j;
      store(out + j, left >= kWidth
                         ? load(row + k + j)
                         : loadPartial(row + k + (left > 0 ? j : 0), left > 0 ? left : 0));
    }
  }
}

void copyBlockKernel(float* dst, std::ptrdiff_t dstStride, const float* src,
                     std::ptrdiff_t srcStride, int rows, int columns, int padded) {
  for (int i = 0; i < rows; ++i) {
    const float* row = src + i * srcStride;
    float* out = dst + i * dstStride;
    for (int j = 0; j < padded; j += kWidth) {
      const int left = columns - j;
      if (left >= kWidth)
        store(out + j, load(row + j));
      else
        store(out + j, left > 0 ? loadPartial(row + j, left) : broadcast(0.0f));
    }
  }
}

// Transposes kWidth x kWidth values in registers: log2(kWidth) rounds of interleaving row i with
// row i + kWidth / 2.
LOKO_INLINE void transposeSquare(Vec (&rows)[kWidth]) {
#pragma GCC unroll 4
  for (int round = 1; round < kWidth; round *= 2) {
    Vec next[kWidth];
#pragma GCC unroll 8
    for (int i = 0; i < kWidth / 2; ++i) {
      next[2 * i] = zipLow(rows[i], rows[i + kWidth / 2]);
      next[2 * i + 1] = zipHigh(rows[i], rows[i + kWidth / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kWidth; ++i) rows[i] = next[i];
  }
}

void transposeBlockKernel(float* dst, std::ptrdiff_t dstStride, const float* const* src, int rows,
                          int columns, int padded) {
  for (int i0 = 0; i0 < padded; i0 += kWidth) {
    const int height = rows - i0;
    for (int j0 = 0; j0 < columns; j0 += kWidth) {
      const int width = columns - j0;
      Vec square[kWidth];
      if (height >= kWidth && width >= kWidth) {
#pragma GCC unroll 16
        for (int i = 0; i < kWidth; ++i) square[i] = load(src[i0 + i] + j0);
      } else {
        for (int i = 0; i < kWidth; ++i)
          square[i] = i < height ? loadPartial(src[i0 + i] + j0, width < kWidth ? width : kWidth)
                                 : broadcast(0.0f);
      }
      transposeSquare(square);
      float* out = dst + j0 * dstStride + i0;
      if (width >= kWidth) {
#pragma GCC unroll 16
        for (int j = 0; j < kWidth; ++j) store(out + j * dstStride, square[j]);
      } else {
        for (int j = 0; j < width; ++j) store(out + j * dstStride, square[j]);
      }
    }
  }
}

// The operands of one row of a tile; null where an operand is absent.
struct EpilogueRow {
  const float* tile;
  const float* multiplier;
  const float* bias;
  const float* residual;
  const float* previous;  // C, when accumulating
  float* c;
  float* derivative;
  bool multiplierOfRelu;
  bool multiplySum;
};

LOKO_INLINE Vec multiplied(const EpilogueRow& row, Vec z, Vec multiplier) {
  if (!row.multiplierOfRelu) return z * multiplier;
  return select(multiplier > broadcast(0.0f), z, broadcast(0.0f));
}

// kWidth columns from j on, or the last `left` of a row when `partial`.
template <Activation kind, bool partial>
LOKO_INLINE void finishVector(const EpilogueRow& row, int j, int left) {
  Vec z = load(row.tile + j);
  Vec multiplier = broadcast(1.0f);
  if (row.multiplier)
    multiplier = partial ? loadPartial(row.multiplier + j, left) : load(row.multiplier + j);
  if (row.multiplier && !row.multiplySum) z = multiplied(row, z, multiplier);
  if (row.bias) z += partial ? loadPartial(row.bias + j, left) : load(row.bias + j);
  if (row.residual) z += partial ? loadPartial(row.residual + j, left) : load(row.residual + j);
  if (row.previous) z += partial ? loadPartial(row.previous + j, left) : load(row.previous + j);
  if (row.multiplier && row.multiplySum) z = multiplied(row, z, multiplier);
  const Activated a = activated<kind>(z);
  if constexpr (partial) {
    storePartial(row.c + j, a.y, left);
    if (row.derivative) storePartial(row.derivative + j, a.derivative, left);
  } else {
    store(row.c + j, a.y);
    if (row.derivative) store(row.derivative + j, a.derivative);
  }
}

template <Activation kind>
void epilogueRows(const EpilogueArgs& e) {
  const int column = e.column;
  for (int i = 0; i < e.rows; ++i) {
    const EpilogueRow row = {e.tile + i * e.tileStride,
                             e.multiplier ? e.multiplier[i] + column : nullptr,
                             e.bias ? e.bias + column : nullptr,
                             e.residual ? e.residual[i] + column : nullptr,
                             e.accumulate ? e.c[i] + column : nullptr,
                             e.c[i] + column,
                             e.derivative ? e.derivative[i] + column : nullptr,
                             e.multiplierOfRelu,
                             e.multiplySum};
    int j = 0;
    for (; j + kWidth <= e.columns; j += kWidth) finishVector<kind, false>(row, j, kWidth);
    if (j < e.columns) finishVector<kind, true>(row, j, e.columns - j);
  }
}

void epilogueDispatch(const EpilogueArgs& e) {
  switch (e.activation) {
    case Activation::kNone:
      return epilogueRows<Activation::kNone>(e);
    case Activation::kGelu:
      return epilogueRows<Activation::kGelu>(e);
    case Activation::kGeluTanh:
      return epilogueRows<Activation::kGeluTanh>(e);
    case Activation::kRelu:
      return epilogueRows<Activation::kRelu>(e);
    case Activation::kQuickGelu:
      return epilogueRows<Activation::kQuickGelu>(e);
    case Activation::kTanh:
      return epilogueRows<Activation::kTanh>(e);
  }
}

// Two multiply-adds a cycle with a latency of 4 or 5 need 8 to 10 independent chains; 12 leave room.
// The values converge to 1, so no chain overflows or turns denormal.
double fmaLoopKernel(std::int64_t iterations, float* sink) {
  constexpr int kChains = 12;
  Vec acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = broadcast(static_cast<float>(i));
  Vec x = broadcast(0.999f);
  Vec y = broadcast(0.001f);
  for (std::int64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) acc[i] = fma(acc[i], x, y);
  }
  Vec total = acc[0];
  for (int i = 1; i < kChains; ++i) total += acc[i];
  *sink = horizontalSum(total);
  return 2.0 * kChains * kWidth * static_cast<double>(iterations);
}

template <int height, int vectors, bool across>
constexpr auto tileOrNull() -> void (*)(const TileArgs&) {
  if constexpr (height <= kTileRows)
    return computeTile<height, vectors, across>;
  else
    return nullptr;
}

#define LOKO_ALL_TILES(vectors, across)                                       \
  {                                                                           \
    tileOrNull<1, vectors, across>(), tileOrNull<2, vectors, across>(),       \
        tileOrNull<3, vectors, across>(), tileOrNull<4, vectors, across>(),   \
        tileOrNull<5, vectors, across>(), tileOrNull<6, vectors, across>(),   \
        tileOrNull<7, vectors, across>(), tileOrNull<8, vectors, across>(),   \
        tileOrNull<9, vectors, across>(), tileOrNull<10, vectors, across>(),  \
        tileOrNull<11, vectors, across>(), tileOrNull<12, vectors, across>(), \
        tileOrNull<13, vectors, across>(), tileOrNull<14, vectors, across>()  \
  }

constexpr int kTileColumns = kTileVectors * kWidth;
static_assert(kTileRows <= kMaxTileRows && kPanelColumns % kTileColumns == 0);
constexpr int kNarrowVectors =
    kTileColumns < kNarrowPanelColumns ? kTileVectors : kNarrowPanelColumns / kWidth;

constexpr Kernels makeKernels(const char* name) {
  return {name,
          kWidth,
          kTileRows,
          kTileColumns,
          LOKO_ALL_TILES(kTileVectors, false),
          LOKO_ALL_TILES(kNarrowVectors, false),
          LOKO_ALL_TILES(kTileVectors, true),
          LOKO_ALL_TILES(kNarrowVectors, true),
          epilogueDispatch,
          packRowsKernel,
          copyBlockKernel,
          transposeBlockKernel,
          fmaLoopKernel,
          mapArray<expVec>,
          mapArray<erfVec>,
          mapArray<tanhVec>,
          activateDispatch,
          dotArray,
          sumArray,
          maxArray,
          expSumArray,
          axpyArray,
          scaleArray,
          nullptr};
}
#undef LOKO_ALL_TILES
