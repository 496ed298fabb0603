// Micro-kernels, packing and epilogue of the matrix product, written once for all vector widths.
// See kernels_math.inc.h for what the including unit provides and which rules hold here.
#pragma once

#include "cpu/kernels_math.inc.h"

// rows x (vectors * kWidth) outputs live in registers through the whole depth. Every element is one
// chain of multiply-adds over k, whatever the height of the tile: that makes results independent of
// how rows are cut into tiles. Earlier K blocks are added afterwards, so that a long sum is a sum of
// short ones, which is also more accurate than one long chain.
template <int rows, int vectors>
void computeTile(const TileArgs& args) {
  Vec acc[rows][vectors];
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) acc[i][v] = broadcast(0.0f);

  const float* a = args.a;
  const float* b = args.b;
  const std::ptrdiff_t ldb = args.ldb;
  auto multiplyAdd = [&acc](const float* aColumn, const float* bRow)
      __attribute__((always_inline)) {
    Vec bv[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) bv[v] = load(bRow + v * kWidth);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      const Vec av = broadcast(aColumn[i * kPackGroup]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) acc[i][v] = fma(av, bv[v], acc[i][v]);
    }
  };

  for (int group = args.depth / kPackGroup; group > 0; --group) {
#pragma GCC unroll 4
    for (int k = 0; k < kPackGroup; ++k) {
      multiplyAdd(a + k, b);
      b += ldb;
    }
    a += rows * kPackGroup;
  }
  for (int k = 0; k < args.depth % kPackGroup; ++k) {
    multiplyAdd(a + k, b);
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
      multiplyAdd(args.tailA + k / kPackGroup * (rows * kPackGroup) + k % kPackGroup,
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

template <Activation kind>
void epilogueRows(const EpilogueArgs& e) {
  for (int i = 0; i < e.rows; ++i) {
    const float* tile = e.tile + i * e.tileStride;
    for (int j = 0; j < e.columns; j += kWidth) {
      const int left = e.columns - j;
      const bool whole = left >= kWidth;
      const int column = e.column + j;
      auto operand = [=](const float* row) __attribute__((always_inline)) {
        return whole ? load(row + column) : loadPartial(row + column, left);
      };
      auto write = [=](float* row, Vec v) __attribute__((always_inline)) {
        if (whole)
          store(row + column, v);
        else
          storePartial(row + column, v, left);
      };
      Vec z = load(tile + j);
      if (e.multiplier) z *= operand(e.multiplier[i]);
      if (e.bias) z += operand(e.bias);
      if (e.residual) z += operand(e.residual[i]);
      if (e.accumulate) z += operand(e.c[i]);
      const Activated a = activated<kind>(z);
      write(e.c[i], a.y);
      if (e.derivative) write(e.derivative[i], a.derivative);
    }
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
  }
}

// Eight independent chains hide the latency of the multiply-add (4 or 5 cycles, 2 per cycle); 12
// leave room on wider machines. The volatile-free barrier keeps the compiler from folding the loop.
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

template <int height, int vectors>
constexpr auto tileOrNull() -> void (*)(const TileArgs&) {
  if constexpr (height <= kTileRows)
    return computeTile<height, vectors>;
  else
    return nullptr;
}

#define LOKO_ALL_TILES(vectors)                                                          \
  {                                                                                      \
    tileOrNull<1, vectors>(), tileOrNull<2, vectors>(), tileOrNull<3, vectors>(),        \
        tileOrNull<4, vectors>(), tileOrNull<5, vectors>(), tileOrNull<6, vectors>(),    \
        tileOrNull<7, vectors>(), tileOrNull<8, vectors>(), tileOrNull<9, vectors>(),    \
        tileOrNull<10, vectors>(), tileOrNull<11, vectors>(), tileOrNull<12, vectors>(), \
        tileOrNull<13, vectors>(), tileOrNull<14, vectors>()                             \
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
          LOKO_ALL_TILES(kTileVectors),
          LOKO_ALL_TILES(kNarrowVectors),
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
          scaleArray};
}
#undef LOKO_ALL_TILES
