#pragma once

// How gemm.cc and gemm_across.cc cut a product into blocks, and the scratch that this takes.

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "cpu/gemm.h"
#include "cpu/kernels.h"

namespace loko::cpu {

constexpr int kSingleBlockK = kMaxTileDepth;  // up to here K is one block, without partial sums
constexpr int kBlockK = 768;                  // longest K block beyond
constexpr int kBlockRows = 168;               // 168 x 768 floats of A: half of a 1 MiB L2
constexpr int kAcrossRows = 160;              // the same, in whole panels of 32 rows
constexpr int kAcrossColumns = 96;            // computed together: 7 tiles of 13 or 14, 3 panels
constexpr int kPartialFloats = 64 * 1024;     // partial sums of one M x N block, when K is blocked
constexpr int kFetchAheadRows = 12;           // below, B streams faster without software prefetch

constexpr int roundUp(int value, int multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// The length of all K blocks but the last. It depends on K alone, so that sums do not depend on
// anything else.
inline int blockDepth(int k) {
  if (k <= kSingleBlockK) return roundUp(k, kPackGroup);
  const int blocks = (k + kBlockK - 1) / kBlockK;
  return roundUp((k + blocks - 1) / blocks, kPackGroup);
}

// Row tiles of nearly equal height: no tile is left with a height that wastes the registers.
struct TileGrid {
  std::int64_t tiles, base, taller;
  TileGrid(std::int64_t m, int tileRows)
      : tiles((m + tileRows - 1) / tileRows),
        base(tiles > 0 ? m / tiles : 0),
        taller(tiles > 0 ? m % tiles : 0) {}
  std::int64_t start(std::int64_t tile) const { return tile * base + std::min(tile, taller); }
  int height(std::int64_t tile) const { return static_cast<int>(base + (tile < taller ? 1 : 0)); }
};

// Floats of each part of one thread's scratch in gemm.cc.
struct ScratchLayout {
  std::size_t a, tailU, panel, partial;

  ScratchLayout(std::int64_t m, int n, int k, int rank) {
    const auto rows = static_cast<std::size_t>(std::min<std::int64_t>(m, kBlockRows));
    const auto depth = static_cast<std::size_t>(std::min(kSingleBlockK, roundUp(k, kPackGroup)));
    a = rows * depth;
    tailU = rows * static_cast<std::size_t>(roundUp(rank, kPackGroup));
    panel = depth * kPanelColumns;
    const std::size_t columns = static_cast<std::size_t>(roundUp(n, kPanelColumns));
    partial = k <= kSingleBlockK ? 0 : std::min<std::size_t>(kPartialFloats, rows * columns);
  }
  std::size_t total() const { return a + tailU + panel + partial; }
};

// The same in gemm_across.cc: rows come in panels of 32 there, too.
struct AcrossLayout {
  std::size_t panels, tailPanels, tailTile, sums;

  AcrossLayout(std::int64_t m, int n, int k, int rank) {
    const auto rows = static_cast<std::size_t>(
        roundUp(static_cast<int>(std::min<std::int64_t>(m, kAcrossRows)), kPanelColumns));
    const auto depth = static_cast<std::size_t>(std::min(kSingleBlockK, roundUp(k, kPackGroup)));
    const auto columns = static_cast<std::size_t>(roundUp(n, kAcrossColumns));
    panels = rows * depth;
    tailPanels = rows * static_cast<std::size_t>(roundUp(rank, kPackGroup));
    tailTile = kMaxTileRows * static_cast<std::size_t>(roundUp(rank, kPackGroup));
    sums = std::max(rows * kAcrossColumns,
                    std::min(static_cast<std::size_t>(kPartialFloats), rows * columns));
  }
  std::size_t total() const { return panels + tailPanels + tailTile + sums; }
};

// The same in gemm_split.cc, where depths and widths are whole slabs.
constexpr int kSplitRows =
    224;  // of A: with 768 k half of a 2 MiB L2, as all machines with AMX have
constexpr int kSplitBlockK = 768;  // longest K block
constexpr int kJobSlabs = 12;      // of a weight, split while the ones before are multiplied
constexpr int kSplitSums =
    128 * 1024;  // floats of partial sums of one M x N block, when K is blocked
constexpr int kStripFloats = kStrip * kStrip;
constexpr int kPackedRows = 8;  // of an A that is put together: divides a strip

struct SplitLayout {
  std::size_t rows, job, packed, tailU, sums, partial;

  SplitLayout(std::int64_t m, int n, int k, int rank) {
    const auto strips = static_cast<std::size_t>(
        roundUp(static_cast<int>(std::min<std::int64_t>(m, kSplitRows)), kStrip) / kStrip);
    const int depth = std::min(kSplitBlockK, roundUp(k, kSlabDepth));
    constexpr std::size_t slab = kSlabHalfwords / 2;
    rows = strips * static_cast<std::size_t>(depth / kSlabDepth) * slab;
    job = kJobSlabs * slab;
    packed = static_cast<std::size_t>(kPackedRows * depth);
    tailU = strips * kStrip * static_cast<std::size_t>(roundUp(rank, kPackGroup));
    const auto columns = static_cast<std::size_t>(roundUp(n, kStrip));
    sums = strips * kStripFloats;
    partial = k <= kSplitBlockK
                  ? 0
                  : std::min(static_cast<std::size_t>(kSplitSums), strips * kStrip * columns);
  }
  std::size_t total() const { return rows + 2 * job + packed + tailU + sums + partial; }
};

static_assert(kBlockRows <= kSplitRows && kAcrossRows <= kSplitRows);

// Where the rows of one block of C and of its operands lie.
struct RowOperands {
  float* c[kSplitRows];
  float* derivative[kSplitRows];
  const float* residual[kSplitRows];
  const float* multiplier[kSplitRows];

  void locate(const GemmArgs& args, std::int64_t row0, int rows) {
    const Epilogue& e = args.epilogue;
    for (int i = 0; i < rows; ++i) {
      const std::int64_t row = row0 + i;
      c[i] = args.c.row(row);
      if (e.residual) residual[i] = e.residual.row(row);
      if (e.multiplier)
        multiplier[i] = e.multiplier.row(e.multiplierPeriod > 0 ? row % e.multiplierPeriod : row);
      if (e.derivative) derivative[i] = e.derivative.row(row);
    }
  }

  // The epilogue of a finished tile [rows, columns], rows `stride` apart, at that row of the block and column of
  // the matrix.
  void finish(const Kernels& kernels, const Epilogue& e, const float* tile, int stride, int row,
              int rows, int column, int columns) {
    EpilogueArgs out{};
    out.tile = tile;
    out.tileStride = stride;
    out.rows = rows;
    out.column = column;
    out.columns = columns;
    out.bias = e.bias;
    out.c = c + row;
    out.residual = e.residual ? residual + row : nullptr;
    out.multiplier = e.multiplier ? multiplier + row : nullptr;
    out.derivative = e.derivative ? derivative + row : nullptr;
    out.accumulate = e.accumulate;
    out.multiplierOfRelu = e.multiplierOfRelu;
    out.multiplySum = e.multiplySum;
    out.activation = e.activation;
    kernels.epilogue(out);
  }
};

// The columns [k0, k0 + depth) of the rows [row, row + height), as Kernels::packRows lays them out.
inline void packTileOf(const Kernels& kernels, const RowMap& map, float* out, std::int64_t row,
                       int height, int k0, int depth) {
  const float* rows[kMaxTileRows];
  for (int i = 0; i < height; ++i) rows[i] = map.row(row + i) + k0;
  kernels.packRows(out, rows, height, depth);
}

// The same of A, in any of its forms.
void packTileOfA(const Kernels& kernels, const AOperand& a, float* out, std::int64_t row,
                 int height, int k0, int depth);

// The rows [rowBegin, rowEnd) and columns [nBegin, nEnd) of a product with such a B; n and k are multiples of
// kStrip, and so are the bounds, but for the last row.
void gemmSplit(const Kernels& kernels, const GemmArgs& args, float* scratch, std::int64_t rowBegin,
               std::int64_t rowEnd, int nBegin, int nEnd);

// The rows [rowBegin, rowEnd) of a product with a packed B that is read transposed, and the columns
// [nBegin, nEnd); bounds are multiples of kPanelColumns, or the ends of the matrix.
void gemmAcross(const Kernels& kernels, const GemmArgs& args, float* scratch, std::int64_t rowBegin,
                std::int64_t rowEnd, int nBegin, int nEnd);

}  // namespace loko::cpu
