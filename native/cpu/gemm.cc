// Blocking, packing and partition of the matrix product; the arithmetic is in kernels_gemm.inc.h.
//
// Loops, outermost first: blocks of rows that fit the second-level cache (M), blocks of columns whose
// partial sums fit there too (N), blocks of K; then panels of 32 columns, which stay in the
// first-level cache while all row tiles of the block pass over them.
//
// A is always packed: a copy costs little, gives every tile contiguous cache lines, and hides row
// maps and transposition from the micro-kernels. B is packed once (weights), per panel on the fly
// (activations), or read in place when there are too few rows to pay for packing.
#include "cpu/gemm.h"

#include <algorithm>

#include "core/status.h"
#include "cpu/gemm_blocking.h"
#include "cpu/pool.h"

namespace loko::cpu {

namespace {

constexpr int kReadInPlaceRows = 28;          // rows up to which activations B are not packed
constexpr std::int64_t kSerialWork = 250000;  // multiply-adds below which waking threads costs more

void packTransposedTile(const Kernels& kernels, const AOperand& a, float* out, std::int64_t row,
                        int height, int k0, int depth) {
  const float* sources[kPackGroup];
  for (int k = 0; k < depth; k += kPackGroup) {
    const int count = std::min(kPackGroup, depth - k);
    // A tile may span several column blocks; each piece is a transposition of its own.
    for (int i = 0; i < height;) {
      const std::int64_t m = row + i;
      const int inBlock = static_cast<int>(m % a.columnBlock);
      const int piece = std::min(height - i, a.columnBlock - inBlock);
      const std::ptrdiff_t offset = m / a.columnBlock * a.columnBlockStride + inBlock;
      for (int j = 0; j < count; ++j) sources[j] = a.rows.row(k0 + k + j) + offset;
      kernels.transposeBlock(out + i * kPackGroup, kPackGroup, sources, count, piece, kPackGroup);
      i += piece;
    }
    out += height * kPackGroup;
  }
}

// One thread's share: row tiles [tileBegin, tileEnd) x columns [nBegin, nEnd).
class Share {
 public:
  Share(const Kernels& kernels, const GemmArgs& args, float* scratch)
      : kernels_(kernels),
        args_(args),
        grid_(args.m, kernels.tileRows),
        depth_(blockDepth(args.k)),
        rank_(args.tailV ? args.tailV->rank() : 0) {
    const ScratchLayout layout(args.m, args.n, args.k, rank_);
    a_ = scratch;
    tailU_ = a_ + layout.a;
    panel_ = tailU_ + layout.tailU;
    partial_ = panel_ + layout.panel;
  }

  void run(std::int64_t tileBegin, std::int64_t tileEnd, int nBegin, int nEnd) {
    const std::int64_t tilesPerBlock = kBlockRows / kernels_.tileRows;
    for (std::int64_t t = tileBegin; t < tileEnd; t += tilesPerBlock) {
      firstTile_ = t;
      tiles_ = static_cast<int>(std::min(tilesPerBlock, tileEnd - t));
      row0_ = grid_.start(t);
      rows_ = static_cast<int>(grid_.start(t + tiles_) - row0_);
      runRows(nBegin, nEnd);
    }
  }

 private:
  void runRows(int nBegin, int nEnd) {
    operands_.locate(args_, row0_, rows_);
    if (args_.tailV) packTailU();
    const bool single = args_.k <= depth_;
    const int columns =
        single ? nEnd - nBegin
               : std::max(kPanelColumns, kPartialFloats / rows_ / kPanelColumns * kPanelColumns);
    for (int n0 = nBegin; n0 < nEnd; n0 += columns) {
      const int n1 = std::min(nEnd, n0 + columns);
      int k0 = 0;
      do {
        const int depth = std::min(depth_, args_.k - k0);
        packA(k0, depth);
        for (int n = n0; n < n1; n += kPanelColumns) {
          if (n + kPanelColumns < n1)
            announcePanel(n + kPanelColumns, k0);
          else
            announcePanel(n0, k0 + depth);
          runPanel(n, k0, depth, partial_ + static_cast<std::ptrdiff_t>(n - n0) * rows_);
        }
        k0 += depth_;
      } while (k0 < args_.k);
    }
  }

  // Calls fn(first row within the block, height) for every tile of the block.
  template <typename Fn>
  void forEachTile(Fn&& fn) {
    int row = 0;
    for (int t = 0; t < tiles_; ++t) {
      const int height = grid_.height(firstTile_ + t);
      fn(row, height);
      row += height;
    }
  }

  void packTailU() {
    forEachTile([&](int row, int height) {
      packTileOf(kernels_, args_.tailU, tailU_ + row * roundUp(rank_, kPackGroup), row0_ + row,
                 height, 0, rank_);
    });
  }

  void packA(int k0, int depth) {
    forEachTile([&](int row, int height) {
      packTileOfA(kernels_, args_.a,
                  a_ + static_cast<std::ptrdiff_t>(row) * roundUp(depth, kPackGroup), row0_ + row,
                  height, k0, depth);
    });
  }

  struct Panel {
    const float* data;
    std::ptrdiff_t ld;
  };

  // The rows [k0, k0 + depth) of the panel at column n, at least `width` columns wide.
  Panel locateB(int n, int width, int k0, int depth) {
    const BOperand& b = args_.b;
    if (b.packed)
      return {b.packed->panel(b.kBegin + k0, b.nBegin + n), b.packed->panelColumns(b.nBegin + n)};
    const int columns = std::min(width, args_.n - n);
    if (b.source) {
      b.source->fillPanel(kernels_, panel_, width, n, columns, k0, depth);
      return {panel_, width};
    }
    if (b.transposed) {
      const float* sources[kPanelColumns];
      for (int j = 0; j < columns; ++j) sources[j] = b.data + (n + j) * b.ld + k0;
      kernels_.transposeBlock(panel_, width, sources, columns, depth, width);
      return {panel_, width};
    }
    const float* source = b.data + k0 * b.ld + n;
    if (rows_ <= kReadInPlaceRows && columns == width) return {source, b.ld};
    kernels_.copyBlock(panel_, width, source, b.ld, depth, columns, width);
    return {panel_, width};
  }

  // Which packed panel comes next: the tiles of the current one fetch it from memory.
  void announcePanel(int n, int k0) {
    const BOperand& b = args_.b;
    const bool worthwhile = b.packed && rows_ >= kFetchAheadRows && k0 < args_.k;
    ahead_ = worthwhile ? b.packed->panel(b.kBegin + k0, b.nBegin + n) : nullptr;
  }

  void runPanel(int n, int k0, int depth, float* partial) {
    const int left = args_.n - n;
    const int width = left <= kNarrowPanelColumns ? kNarrowPanelColumns : kPanelColumns;
    const bool narrow = width < kernels_.tileColumns;
    const int stripWidth = std::min(width, kernels_.tileColumns);
    const bool first = k0 == 0;
    const bool last = k0 + depth_ >= args_.k;
    const Panel b = locateB(n, width, k0, depth);

    TileArgs tile{};
    tile.ldb = b.ld;
    tile.depth = depth;
    tile.alpha = last ? args_.epilogue.alpha : 1.0f;
    const float* tailB = nullptr;
    if (last && args_.tailV) {
      const PackedTail::Range range = args_.tailV->range(args_.tailNBegin + n);
      tile.tailBegin = range.begin;
      tile.tailEnd = range.end;
      tile.tailLdb = args_.tailV->matrix().panelColumns(args_.tailNBegin + n);
      if (range.begin < range.end) tailB = args_.tailV->matrix().panel(0, args_.tailNBegin + n);
    }
    const int paddedDepth = roundUp(depth, kPackGroup);
    const int paddedRank = roundUp(rank_, kPackGroup);

    const int groups = std::max(1, depth / kPackGroup);
    const int tileCalls = tiles_ * (width / stripWidth);
    tile.prefetchLines =
        (paddedDepth * width / kPackGroup + tileCalls * groups - 1) / (tileCalls * groups);
    const float* ahead = ahead_;

    for (int s = 0; s < std::min(width, left); s += stripWidth) {
      tile.b = b.data + s;
      tile.tailB = tailB ? tailB + s : nullptr;
      float* sums = partial + static_cast<std::ptrdiff_t>(s) * rows_;
      forEachTile([&](int row, int height) {
        tile.a = a_ + static_cast<std::ptrdiff_t>(row) * paddedDepth;
        tile.tailA = tailB ? tailU_ + static_cast<std::ptrdiff_t>(row) * paddedRank : nullptr;
        tile.partial = first ? nullptr : sums;
        tile.out = last ? tile_ : sums;
        tile.prefetch = ahead;
        if (ahead) ahead += tile.prefetchLines * groups * kPackGroup;
        if (last) fetchOutput(row, height, n + s, stripWidth);
        (narrow ? kernels_.narrowTile : kernels_.tile)[height - 1](tile);
        if (last)
          operands_.finish(kernels_, args_.epilogue, tile_, stripWidth, row, height, n + s,
                           std::min(stripWidth, left - s));
        sums += height * stripWidth;
      });
    }
  }

  // The lines of C that a tile will write arrive while it is computed.
  void fetchOutput(int row, int height, int column, int width) {
    for (int i = 0; i < height; ++i)
      for (int j = 0; j < width; j += kPackGroup)
        __builtin_prefetch(operands_.c[row + i] + column + j, 1);
  }

  const Kernels& kernels_;
  const GemmArgs& args_;
  const TileGrid grid_;
  const int depth_;
  const int rank_;
  float* a_;
  float* tailU_;
  float* panel_;
  float* partial_;
  const float* ahead_ = nullptr;

  // The current block of rows.
  std::int64_t firstTile_ = 0;
  int tiles_ = 0;
  std::int64_t row0_ = 0;
  int rows_ = 0;
  RowOperands operands_;
  alignas(64) float tile_[kMaxTileRows * kPanelColumns];
};

bool readsAcross(const GemmArgs& args) {
  return args.b.packed != nullptr && args.b.transposed;
}

// Parts of a matrix are split where they are whole strips, as all of it is.
bool splits(const Kernels& kernels, const GemmArgs& args) {
  return args.b.packed != nullptr && isSplit(kernels, args.b.packed->k(), args.b.packed->n()) &&
         args.k > 0 && args.k % kSlabDepth == 0 && args.n % kStrip == 0;
}

// What threads share out: row tiles, or panels of rows.
std::int64_t rowUnits(const Kernels& kernels, const GemmArgs& args) {
  const bool panels = splits(kernels, args) || readsAcross(args);
  return TileGrid(args.m, panels ? kPanelColumns : kernels.tileRows).tiles;
}

void runShare(const Kernels& kernels, const GemmArgs& args, float* scratch, std::int64_t unitBegin,
              std::int64_t unitEnd, int nBegin, int nEnd) {
  const std::int64_t rowBegin = unitBegin * kPanelColumns;
  const std::int64_t rowEnd = std::min(args.m, unitEnd * kPanelColumns);
  if (splits(kernels, args))
    gemmSplit(kernels, args, scratch, rowBegin, rowEnd, nBegin, nEnd);
  else if (readsAcross(args))
    gemmAcross(kernels, args, scratch, rowBegin, rowEnd, nBegin, nEnd);
  else
    Share(kernels, args, scratch).run(unitBegin, unitEnd, nBegin, nEnd);
}

void checkArgs(const GemmArgs& args) {
  LOKO_CHECK(args.m >= 0 && args.n >= 0 && args.k >= 0, "negative extent");
  LOKO_CHECK(args.b.nBegin % kPanelColumns == 0 && args.tailNBegin % kPanelColumns == 0,
             "column offset into a packed operand");
  if (readsAcross(args)) {
    const bool whole = args.b.kBegin == 0 && args.b.nBegin == 0 && args.tailNBegin == 0 &&
                       args.k == args.b.packed->n() && args.n == args.b.packed->k();
    LOKO_CHECK(whole && !args.a.transposed,
               "a packed B that is read transposed is read whole, with A as it is");
  } else if (const PackedMatrix* packed = args.b.packed) {
    LOKO_CHECK(args.b.kBegin + args.k <= packed->k() && args.b.nBegin + args.n <= packed->n(),
               "packed B is smaller than the product");
  }
  if (args.tailV)
    LOKO_CHECK(args.tailNBegin + args.n <= args.tailV->n(), "tail is narrower than the product");
}

}  // namespace

void packTileOfA(const Kernels& kernels, const AOperand& a, float* out, std::int64_t row,
                 int height, int k0, int depth) {
  if (a.source) return a.source->packTile(kernels, out, row, height, k0, depth);
  if (a.transposed) return packTransposedTile(kernels, a, out, row, height, k0, depth);
  packTileOf(kernels, a.rows, out, row, height, k0, depth);
}

std::size_t gemmScratchBytes(const Kernels& kernels, std::int64_t m, int n, int k, int rank) {
  const std::size_t split = kernels.split ? SplitLayout(m, n, k, rank).total() : 0;
  return std::max(
             {ScratchLayout(m, n, k, rank).total(), AcrossLayout(m, n, k, rank).total(), split}) *
         sizeof(float);
}

void gemm(const Kernels& kernels, const GemmArgs& args, void* scratch) {
  checkArgs(args);
  runShare(kernels, args, static_cast<float*>(scratch), 0, rowUnits(kernels, args), 0, args.n);
}

void gemm(const Kernels& kernels, ThreadPool& pool, const GemmArgs& args, void* scratch) {
  const std::int64_t units = rowUnits(kernels, args);
  const std::int64_t panels = (args.n + kPanelColumns - 1) / kPanelColumns;
  const int depth = args.k + (args.tailV ? args.tailV->rank() : 0);
  if (pool.threads() == 1 || args.m * args.n * depth < kSerialWork)
    return gemm(kernels, args, scratch);
  checkArgs(args);

  // Of all grids of threads, the one whose largest share is smallest; columns are preferred, since
  // then each thread reads its own part of B, except where A is gathered and longer than B is wide.
  const bool preferRows = args.a.source != nullptr && args.m > args.n;
  int columnParts = 1;
  std::int64_t best = units * panels + 1;
  for (int i = 0; i < pool.threads(); ++i) {
    const int parts = preferRows ? i + 1 : pool.threads() - i;
    const std::int64_t rowParts = pool.threads() / parts;
    const std::int64_t share = ((units + rowParts - 1) / rowParts) * ((panels + parts - 1) / parts);
    if (share < best) {
      best = share;
      columnParts = parts;
    }
  }
  const int rowParts = pool.threads() / columnParts;

  const std::size_t bytes =
      gemmScratchBytes(kernels, args.m, args.n, args.k, args.tailV ? args.tailV->rank() : 0);
  pool.run(
      [&](int part, int) {
        const int i = part / columnParts;
        const int j = part % columnParts;
        const int nBegin = static_cast<int>(panels * j / columnParts) * kPanelColumns;
        const int nEnd =
            std::min<int>(args.n, static_cast<int>(panels * (j + 1) / columnParts) * kPanelColumns);
        if (nBegin >= nEnd) return;
        runShare(kernels, args,
                 reinterpret_cast<float*>(static_cast<char*>(scratch) + part * bytes),
                 units * i / rowParts, units * (i + 1) / rowParts, nBegin, nEnd);
      },
      rowParts * columnParts);
}

}  // namespace loko::cpu
