// C = A B with a frozen B on units that multiply bfloat16: float32 operands are split into three parts each, B
// while it is used, so that one packed copy in float32 serves both directions (kernels.h: SplitKernels).
//
// Forward, strips of 32 rows of A are left operands and strips of 32 columns of B right ones. With a packed B
// that is read transposed, 32 consecutive k of one n lie together, as a left operand wants them: so
// C^T = B^T A^T is computed, as in gemm_across.cc, and blocks of C^T are transposed on their way into the
// epilogue.
//
// Loops, outermost first: blocks of rows of A that fit the second-level cache, split; blocks of columns whose
// partial sums fit there too, where K is blocked; blocks of K; strips of B; jobs of 384 k of them, over which
// all strips of A pass. Meanwhile the next job is split, and the one after fetched from memory. Shorter
// jobs would fit the first-level cache: with one strip of A, where splitting takes as long as multiplying, they
// do; with more, loading the sums more often costs more than that gains.
#include <algorithm>
#include <cstring>

#include "core/status.h"
#include "cpu/gemm_blocking.h"

namespace loko::cpu {

namespace {

// Weights, below which few rows do not pay for splitting.
constexpr std::int64_t kSmallestSplit = 64 * 1024;
constexpr int kJobDepth = kJobSlabs * kSlabDepth;
constexpr int kShortJobDepth = 2 * kSlabDepth;

constexpr int stripsOf(int rows) {
  return (rows + kStrip - 1) / kStrip;
}
constexpr int halvesOf(int rows) {
  return rows > kHalfStrip ? 2 : 1;
}

// The state of the tiles of this thread.
class Tiles {
 public:
  explicit Tiles(const SplitKernels& kernels) : kernels_(kernels) { kernels_.begin(); }
  ~Tiles() { kernels_.end(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

 private:
  const SplitKernels& kernels_;
};

class SplitShare {
 public:
  SplitShare(const Kernels& kernels, const GemmArgs& args, float* scratch)
      : kernels_(kernels),
        split_(*kernels.split),
        args_(args),
        packed_(*args.b.packed),
        across_(args.b.transposed),
        rank_(args.tailV ? args.tailV->rank() : 0) {
    const int blocks = (args.k + kSplitBlockK - 1) / kSplitBlockK;
    depth_ = roundUp((args.k + blocks - 1) / blocks, kJobDepth);
    const SplitLayout layout(args.m, args.n, args.k, rank_);
    const auto halfwords = [](float* p) { return reinterpret_cast<std::uint16_t*>(p); };
    strips_ = halfwords(scratch);
    scratch += layout.rows;
    for (std::uint16_t*& job : jobs_) {
      job = halfwords(scratch);
      scratch += layout.job;
    }
    packedRows_ = scratch;
    tailU_ = packedRows_ + layout.packed;
    sums_ = tailU_ + layout.tailU;
    partial_ = sums_ + layout.sums;
  }

  void run(std::int64_t rowBegin, std::int64_t rowEnd, int nBegin, int nEnd) {
    nBegin_ = nBegin;
    nEnd_ = nEnd;
    const Tiles tiles(split_);
    const std::int64_t rows = rowEnd - rowBegin, blocks = (rows + kSplitRows - 1) / kSplitRows;
    const int step = roundUp(static_cast<int>((rows + blocks - 1) / blocks), kStrip);
    for (row0_ = rowBegin; row0_ < rowEnd; row0_ += step) {
      rows_ = static_cast<int>(std::min<std::int64_t>(step, rowEnd - row0_));
      operands_.locate(args_, row0_, rows_);
      if (args_.tailV) packTailU();
      runRows();
    }
  }

 private:
  // What is multiplied at a time: the strip of B at column n, k from k on.
  struct Step {
    int n, k;
  };

  void runRows() {
    const bool single = args_.k <= depth_;
    jobDepth_ = rows_ <= kStrip ? kShortJobDepth : kJobDepth;
    const int stripRows = stripsOf(rows_) * kStrip;
    columns_ =
        single ? nEnd_ - nBegin_ : std::max(kStrip, kSplitSums / stripRows / kStrip * kStrip);
    enterColumns(nBegin_);
    prepareJob({nBegin_, 0});
    finishJob();
    for (int n0 = nBegin_; n0 < nEnd_; n0 += columns_) {
      enterColumns(n0);
      for (int k0 = 0; k0 < args_.k; k0 += depth_) {
        const int depth = std::min(depth_, args_.k - k0);
        splitRows(k0, depth);
        for (int n = n0_; n < n1_; n += kStrip)
          runStrip(n, k0, depth, partial_ + static_cast<std::ptrdiff_t>(n - n0_) * stripRows);
      }
    }
  }

  void enterColumns(int n0) {
    n0_ = n0;
    n1_ = std::min(nEnd_, n0 + columns_);
  }

  // Sums start anew in each block of K, as in gemm.cc: the rounding errors of a chain grow faster than its
  // length. Rows that do not exist are added along.
  void runStrip(int n, int k0, int depth, float* partial) {
    const bool first = k0 == 0, last = k0 + depth == args_.k;
    float* sums = first && !last ? partial : sums_;
    sumBlock(n, k0, depth, sums);
    const std::int64_t floats = std::int64_t{stripsOf(rows_)} * kStripFloats;
    if (!first && !last) kernels_.axpy(partial, 1.0f, sums, floats);
    if (!first && last) kernels_.axpy(sums, 1.0f, partial, floats);
    if (!last) return;
    for (int strip = 0; strip < stripsOf(rows_); ++strip)
      finish(n, strip, sums + std::ptrdiff_t{strip} * kStripFloats);
  }

  void sumBlock(int n, int k0, int depth, float* sums) {
    for (int k = k0; k < k0 + depth; k += jobDepth_) {
      const std::uint16_t* weights = job_.target;
      const int slabs = slabsFrom(k);
      prepareJob(next({n, k}));
      const int calls = stripsOf(rows_) * slabs;
      const int pieces = (job_.end + calls - 1) / calls;
      for (int strip = 0; strip < stripsOf(rows_); ++strip) {
        const std::ptrdiff_t slab =
            std::ptrdiff_t{strip} * (depth / kSlabDepth) + (k - k0) / kSlabDepth;
        multiply(strips_ + slab * kSlabHalfwords, weights, slabs, k == k0, pieces, strip,
                 sums + std::ptrdiff_t{strip} * kStripFloats);
      }
      finishJob();
    }
  }

  void multiply(const std::uint16_t* rows, const std::uint16_t* weights, int slabs, bool first,
                int pieces, int strip, float* sums) {
    const int halves = halvesOf(rows_ - strip * kStrip);
    SplitProduct product{rows, weights, slabs, halves, 2, first, sums};
    if (!across_) return split_.multiply(product, job_, pieces);
    std::swap(product.left, product.right);
    std::swap(product.leftHalves, product.rightHalves);
    split_.multiplyAcross(product, job_, pieces);
  }

  // ---- the weight

  int slabsFrom(int k) const { return std::min(jobDepth_, args_.k - k) / kSlabDepth; }

  // n = -1 after the last one.
  Step next(Step step) const {
    if (step.n < 0) return step;
    const int kEnd = std::min(args_.k, (step.k / depth_ + 1) * depth_);
    if (step.k + jobDepth_ < kEnd) return {step.n, step.k + jobDepth_};
    if (step.n + kStrip < n1_) return {step.n + kStrip, step.k / depth_ * depth_};
    if (kEnd < args_.k) return {n0_, kEnd};
    if (n1_ < nEnd_) return {n1_, 0};
    return {-1, 0};
  }

  const float* source(Step step) const {
    if (step.n < 0) return nullptr;
    if (across_) return packed_.panel(step.n, step.k);
    return packed_.panel(args_.b.kBegin + step.k, args_.b.nBegin + step.n);
  }

  void prepareJob(Step step) {
    current_ ^= 1;
    job_.source = source(step);
    job_.sourceStride = std::ptrdiff_t{across_ ? packed_.k() : kSlabDepth} * kStrip;
    job_.target = jobs_[current_];
    job_.next = 0;
    job_.end = step.n < 0 ? 0 : slabsFrom(step.k) * kJobPieces;
    job_.fetchAhead = source(next(step));
  }

  void finishJob() { across_ ? split_.finishJobAcross(job_) : split_.finishJob(job_); }

  // ---- the rows of A

  void splitRows(int k0, int depth) {
    const int slabs = depth / kSlabDepth;
    for (int strip = 0; strip < stripsOf(rows_); ++strip) {
      const int row = strip * kStrip, count = std::min(kStrip, rows_ - row);
      std::uint16_t* out = strips_ + std::ptrdiff_t{strip} * slabs * kSlabHalfwords;
      if (count < kStrip)
        std::memset(out, 0, sizeof(*out) * kSlabHalfwords * static_cast<std::size_t>(slabs));
      if (args_.a.source || args_.a.transposed)
        splitPacked(out, row, count, k0, depth);
      else
        splitInPlace(out, row, count, k0, slabs);
      if (across_) split_.transposeStrip(out, slabs);
    }
  }

  void splitInPlace(std::uint16_t* out, int row, int count, int k0, int slabs) {
    const float* rows[kStrip];
    for (int i = 0; i < count; ++i) rows[i] = args_.a.rows.row(row0_ + row + i) + k0;
    split_.splitRows(out, rows, kPackGroup, 0, count, slabs);
  }

  void splitPacked(std::uint16_t* out, int row, int count, int k0, int depth) {
    const float* rows[kPackedRows];
    for (int i = 0; i < count; i += kPackedRows) {
      const int height = std::min(kPackedRows, count - i);
      packTileOfA(kernels_, args_.a, packedRows_, row0_ + row + i, height, k0, depth);
      for (int j = 0; j < height; ++j) rows[j] = packedRows_ + j * kPackGroup;
      split_.splitRows(out, rows, std::ptrdiff_t{height} * kPackGroup, i, i + height,
                       depth / kSlabDepth);
    }
  }

  // ---- the low-rank tail, and the epilogue

  template <typename Fn>
  void forEachTile(int strip, Fn&& fn) {
    const int row = strip * kStrip;
    const TileGrid grid(std::min(kStrip, rows_ - row), kernels_.tileRows);
    for (std::int64_t t = 0; t < grid.tiles; ++t)
      fn(row + static_cast<int>(grid.start(t)), grid.height(t));
  }

  void packTailU() {
    for (int strip = 0; strip < stripsOf(rows_); ++strip)
      forEachTile(strip, [&](int row, int height) {
        packTileOf(kernels_, args_.tailU, tailU_ + row * roundUp(rank_, kPackGroup), row0_ + row,
                   height, 0, rank_);
      });
  }

  // 32 columns from n on of one strip of rows.
  void finish(int n, int strip, float* sums) {
    const int row = strip * kStrip, rows = std::min(kStrip, rows_ - row);
    if (across_) {
      const float* columns[kStrip];
      for (int j = 0; j < kStrip; ++j) columns[j] = sums + j * kStrip;
      kernels_.transposeBlock(finished_, kStrip, columns, kStrip, rows, kStrip);
      sums = finished_;
    }
    if (args_.tailV || args_.epilogue.alpha != 1.0f) addTail(n, strip, sums);
    operands_.finish(kernels_, args_.epilogue, sums, kStrip, row, rows, n, kStrip);
  }

  // A product of depth 0: alpha and the tail alone, in place.
  void addTail(int n, int strip, float* sums) {
    TileArgs tile{};
    tile.alpha = args_.epilogue.alpha;
    PackedTail::Range range;
    if (args_.tailV) range = args_.tailV->range(args_.tailNBegin + n);
    tile.tailBegin = range.begin;
    tile.tailEnd = range.end;
    tile.tailLdb = kPanelColumns;
    if (range.begin < range.end) tile.tailB = args_.tailV->matrix().panel(0, args_.tailNBegin + n);
    forEachTile(strip, [&](int row, int height) {
      tile.tailA = tile.tailB ? tailU_ + row * roundUp(rank_, kPackGroup) : nullptr;
      tile.out = sums + (row - strip * kStrip) * kStrip;
      tile.partial = tile.out;
      kernels_.tile[height - 1](tile);
    });
  }

  const Kernels& kernels_;
  const SplitKernels& split_;
  const GemmArgs& args_;
  const PackedMatrix& packed_;
  const bool across_;
  const int rank_;
  int depth_ = 0;     // of a block of K, a multiple of kJobDepth
  int jobDepth_ = 0;  // no bit depends on it
  std::uint16_t* strips_;
  std::uint16_t* jobs_[2];
  float* packedRows_;
  float* tailU_;
  float* sums_;     // of one strip of B and one block of K
  float* partial_;  // of the blocks of K before, where there are several
  SplitJob job_{};
  int current_ = 0;

  // The columns of this share, and of the current block; the current block of rows.
  int nBegin_ = 0, nEnd_ = 0, columns_ = 0, n0_ = 0, n1_ = 0;
  std::int64_t row0_ = 0;
  int rows_ = 0;
  RowOperands operands_;
  alignas(64) float finished_[kStripFloats];
};

}  // namespace

bool isSplit(const Kernels& kernels, int k, int n) {
  return kernels.split != nullptr && k % kStrip == 0 && n % kStrip == 0 &&
         std::int64_t{k} * n >= kSmallestSplit;
}

void gemmSplit(const Kernels& kernels, const GemmArgs& args, float* scratch, std::int64_t rowBegin,
               std::int64_t rowEnd, int nBegin, int nEnd) {
  LOKO_CHECK(kernels.tileColumns == kStrip, "tiles of another width than a strip");
  if (rowBegin < rowEnd && nBegin < nEnd)
    SplitShare(kernels, args, scratch).run(rowBegin, rowEnd, nBegin, nEnd);
}

}  // namespace loko::cpu
