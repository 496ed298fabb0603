// C = A B with a packed B that is read transposed: dx = dy W from the one copy of W that y = x W^T uses.
//
// The packed matrix holds panels of 32 of B's rows (k), each with all of B's columns (n): 32 consecutive k
// of one n lie together, as the micro-kernels want the operand that they broadcast. So the roles are
// swapped and C^T = B^T A^T is computed: B^T is read in place, across the panels; the rows of A are
// transposed to panels of 32 (a small matrix beside a weight), and tiles of C^T are transposed on their
// way into the epilogue.
//
// Loops, outermost first: blocks of rows of A that fit the second-level cache; blocks of columns where K
// is blocked; blocks of K; units of 96 columns of B; tiles of them; panels of 32 rows of A.
#include <algorithm>

#include "core/status.h"
#include "cpu/gemm_blocking.h"

namespace loko::cpu {

namespace {

// k of a last panel of 16 columns or fewer, whose rows lie differently.
int narrowDepth(int k) {
  const int rest = k % kPanelColumns;
  return rest <= kNarrowPanelColumns ? rest : 0;
}

class AcrossShare {
 public:
  AcrossShare(const Kernels& kernels, const GemmArgs& args, float* scratch)
      : kernels_(kernels),
        args_(args),
        packed_(*args.b.packed),
        narrowDepth_(narrowDepth(args.k)),
        wideDepth_(args.k - narrowDepth_),
        blockDepth_(blockDepth(wideDepth_)),
        rank_(args.tailV ? args.tailV->rank() : 0) {
    const AcrossLayout layout(args.m, args.n, args.k, rank_);
    panels_ = scratch;
    tailPanels_ = panels_ + layout.panels;
    tailTile_ = tailPanels_ + layout.tailPanels;
    sums_ = tailTile_ + layout.tailTile;
  }

  void run(std::int64_t rowBegin, std::int64_t rowEnd, int nBegin, int nEnd) {
    for (row0_ = rowBegin; row0_ < rowEnd; row0_ += kAcrossRows) {
      rows_ = static_cast<int>(std::min<std::int64_t>(kAcrossRows, rowEnd - row0_));
      operands_.locate(args_, row0_, rows_);
      if (args_.tailV) transposeRows(tailPanels_, args_.tailU, 0, rank_);
      runRows(nBegin, nEnd);
    }
  }

 private:
  struct Block {
    int k0, depth;
    bool narrow, first, last;
  };

  void runRows(int nBegin, int nEnd) {
    const bool single = narrowDepth_ == 0 && wideDepth_ <= blockDepth_;
    const int padded = roundUp(rows_, kPanelColumns);
    const int columns =
        single
            ? nEnd - nBegin
            : std::max(kAcrossColumns, kPartialFloats / padded / kAcrossColumns * kAcrossColumns);
    for (int n0 = nBegin; n0 < nEnd; n0 += columns) {
      const int n1 = std::min(nEnd, n0 + columns);
      const int sumRows = single ? 0 : padded;
      const bool narrow = narrowDepth_ > 0;
      if (narrow) runBlock({wideDepth_, narrowDepth_, true, true, false}, n0, n1, sumRows);
      int k0 = 0;
      do {
        const int depth = std::min(blockDepth_, wideDepth_ - k0);
        runBlock({k0, depth, false, k0 == 0 && !narrow, k0 + depth == wideDepth_}, n0, n1, sumRows);
        k0 += depth;
      } while (k0 < wideDepth_);
    }
  }

  // sumRows: rows of sums that are kept of each column between blocks of K; 0 where there is one block.
  void runBlock(const Block& block, int n0, int n1, int sumRows) {
    transposeRows(panels_, args_.a.rows, block.k0, block.depth);
    for (int n = n0; n < n1; n += kAcrossColumns) {
      const int next = n + kAcrossColumns;
      const bool announce = rows_ >= kFetchAheadRows && next < n1 && !block.narrow;
      ahead_ = announce ? packed_.panel(next, block.k0) : nullptr;
      float* sums = sums_ + static_cast<std::ptrdiff_t>(n - n0) * sumRows;
      runUnit(n, std::min(kAcrossColumns, n1 - n), block, sums);
    }
  }

  int panelWidth(int row) const {
    return rows_ - row <= kNarrowPanelColumns ? kNarrowPanelColumns : kPanelColumns;
  }

  // Columns [k0, k0 + depth) of the rows of this block, as panels [depth][32 rows].
  void transposeRows(float* out, const RowMap& rows, int k0, int depth) {
    const float* sources[kPanelColumns];
    for (int row = 0; row < rows_; row += kPanelColumns) {
      const int count = std::min(kPanelColumns, rows_ - row);
      for (int i = 0; i < count; ++i) sources[i] = rows.row(row0_ + row + i) + k0;
      const int width = panelWidth(row);
      kernels_.transposeBlock(out, width, sources, count, depth, width);
      out += static_cast<std::ptrdiff_t>(depth) * kPanelColumns;
    }
  }

  // The tail's columns [n, n + height), each as a row of the tile.
  void packTailTile(int n, int height) {
    const PackedMatrix& v = args_.tailV->matrix();
    const float* rows[kPackGroup];
    float* out = tailTile_;
    for (int k = 0; k < rank_; k += kPackGroup) {
      const int count = std::min(kPackGroup, rank_ - k);
      for (int i = 0; i < height;) {
        const int piece = std::min(height - i, kPanelColumns - (n + i) % kPanelColumns);
        for (int j = 0; j < count; ++j) rows[j] = v.panel(k + j, n + i);
        kernels_.transposeBlock(out + i * kPackGroup, kPackGroup, rows, count, piece, kPackGroup);
        i += piece;
      }
      out += height * kPackGroup;
    }
  }

  // All rows x columns [n, n + columns) of one block of K. Sums: for each panel of rows strips of
  // tileColumns rows, [kAcrossColumns][tileColumns rows] each.
  void runUnit(int n, int columns, const Block& block, float* sums) {
    TileArgs tile{};
    const bool odd = block.k0 / kPackGroup % 2 == 1;
    tile.aAdvance[odd ? 1 : 0] = kPackGroup;
    tile.aAdvance[odd ? 0 : 1] = std::ptrdiff_t{packed_.k()} * kPanelColumns - kPackGroup;
    tile.depth = block.depth;
    tile.alpha = block.last ? args_.epilogue.alpha : 1.0f;
    const TileGrid grid(columns, kernels_.tileRows);
    planFetching(tile, grid.tiles, columns);
    for (std::int64_t t = 0; t < grid.tiles; ++t) {
      const int column = static_cast<int>(grid.start(t)), height = grid.height(t);
      const std::ptrdiff_t rowFloats = block.narrow ? kNarrowPanelColumns : kPanelColumns;
      tile.a = packed_.panel(n, block.k0) + column * rowFloats;
      if (block.last && args_.tailV) locateTail(tile, n + column, height);
      for (int row = 0; row < rows_; row += kPanelColumns) {
        if (block.last && t + 1 == grid.tiles) fetchOutput(row, n, columns);
        float* panelSums = sums + static_cast<std::ptrdiff_t>(row) * kAcrossColumns;
        runTiles(tile, block, row, column, height, panelSums);
      }
    }
    if (!block.last) return;
    for (int row = 0; row < rows_; row += kPanelColumns)
      for (int begin = 0; begin < columns; begin += kPanelColumns)
        finish(n, begin, std::min(kPanelColumns, columns - begin), row,
               sums + static_cast<std::ptrdiff_t>(row) * kAcrossColumns);
  }

  // The rows of V that any of these columns needs.
  void locateTail(TileArgs& tile, int n, int height) {
    const PackedTail::Range a = args_.tailV->range(n), b = args_.tailV->range(n + height - 1);
    const bool one = a.begin >= a.end || b.begin >= b.end;
    tile.tailBegin = !one ? std::min(a.begin, b.begin) : a.begin < a.end ? a.begin : b.begin;
    tile.tailEnd = std::max(a.end, b.end);
    tile.tailA = tile.tailBegin < tile.tailEnd ? tailTile_ : nullptr;
    if (tile.tailA) packTailTile(n, height);
  }

  // One tile of B^T times one panel of rows.
  void runTiles(TileArgs tile, const Block& block, int row, int column, int height, float* sums) {
    const int width = panelWidth(row), stripWidth = std::min(width, kernels_.tileColumns);
    const bool narrow = width < kernels_.tileColumns;
    tile.ldb = tile.tailLdb = width;
    for (int s = 0; s < width && row + s < rows_; s += stripWidth) {
      tile.b = panels_ + static_cast<std::ptrdiff_t>(row) * tile.depth + s;
      tile.tailB = tailPanels_ + static_cast<std::ptrdiff_t>(row) * rank_ + s;
      tile.out = sums + s * kAcrossColumns + column * stripWidth;
      tile.partial = block.first ? nullptr : tile.out;
      if (ahead_) {
        tile.prefetch =
            ahead_ + lines_ * kPackGroup + lines_ / tile.prefetchRun * tile.prefetchJump;
        tile.prefetchLeft = static_cast<int>(tile.prefetchRun - lines_ % tile.prefetchRun);
        lines_ += tile.prefetchLines * (tile.depth / kPackGroup);
      }
      // A last panel of 16 or fewer k is a packed tile as it stands.
      if (block.narrow)
        (narrow ? kernels_.narrowTile : kernels_.tile)[height - 1](tile);
      else
        (narrow ? kernels_.narrowAcrossTile : kernels_.acrossTile)[height - 1](tile);
    }
  }

  // The tiles of a unit share the fetching of the next one; 16 k of it are a line of each of its rows.
  void planFetching(TileArgs& tile, std::int64_t tiles, int columns) {
    const auto calls =
        static_cast<int>(tiles) * ((rows_ + kernels_.tileColumns - 1) / kernels_.tileColumns);
    tile.prefetchLines = (columns + calls - 1) / calls;
    tile.prefetchRun = columns * kPanelColumns / kPackGroup;
    tile.prefetchJump = std::ptrdiff_t{packed_.k() - columns} * kPanelColumns;
    lines_ = 0;
  }

  // The lines of C that the epilogue will write arrive while the last tiles are computed.
  void fetchOutput(int row, int n, int columns) {
    for (int i = row; i < std::min(rows_, row + kPanelColumns); ++i)
      for (int j = 0; j < columns; j += kPackGroup) __builtin_prefetch(operands_.c[i] + n + j, 1);
  }

  // Rows [row, row + 32) x columns [n + begin, n + begin + columns) of C from the sums of C^T.
  void finish(int n, int begin, int columns, int row, const float* sums) {
    const int rows = std::min(kPanelColumns, rows_ - row);
    const int stripWidth = std::min(panelWidth(row), kernels_.tileColumns);
    const float* sources[kPanelColumns];
    for (int s = 0; s < rows; s += stripWidth) {
      const float* strip = sums + s * kAcrossColumns + begin * stripWidth;
      for (int j = 0; j < columns; ++j) sources[j] = strip + j * stripWidth;
      kernels_.transposeBlock(finished_ + s * kPanelColumns, kPanelColumns, sources, columns,
                              std::min(stripWidth, rows - s), roundUp(columns, kPackGroup));
    }
    operands_.finish(kernels_, args_.epilogue, finished_, kPanelColumns, row, rows, n + begin,
                     columns);
  }

  const Kernels& kernels_;
  const GemmArgs& args_;
  const PackedMatrix& packed_;
  const int narrowDepth_;  // a block of its own
  const int wideDepth_;
  const int blockDepth_;
  const int rank_;
  float* panels_;      // of A
  float* tailPanels_;  // of U
  float* tailTile_;    // of V^T
  float* sums_;
  const float* ahead_ = nullptr;
  std::ptrdiff_t lines_ = 0;  // of the panel ahead, fetched so far

  // The current block of rows.
  std::int64_t row0_ = 0;
  int rows_ = 0;
  RowOperands operands_;
  alignas(64) float finished_[kPanelColumns * kPanelColumns];
};

}  // namespace

bool transposesExactly(const Kernels& kernels, const PackedMatrix& matrix) {
  return narrowDepth(matrix.n()) == 0 && !isSplit(kernels, matrix.k(), matrix.n());
}

void gemmAcross(const Kernels& kernels, const GemmArgs& args, float* scratch, std::int64_t rowBegin,
                std::int64_t rowEnd, int nBegin, int nEnd) {
  AcrossShare(kernels, args, scratch).run(rowBegin, rowEnd, nBegin, nEnd);
}

}  // namespace loko::cpu
