// The function table that each instruction set fills in once (kernels_generic.cc, kernels_avx2.cc,
// kernels_avx512.cc). This header is compiled into those units with wider instruction sets than the
// machine may have, so it holds plain data only: an inline function here could be emitted with
// AVX-512 code and picked by the linker for everybody.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/activation.h"

namespace loko::cpu {

// Columns of a packed panel, equal for all instruction sets, so that packed data is portable between
// them. The last panel is 16 wide when 16 columns or fewer are left.
constexpr int kPanelColumns = 32;
constexpr int kNarrowPanelColumns = 16;

// k values of one row that lie together in a packed A tile: one cache line.
constexpr int kPackGroup = 16;

// One micro-kernel call: tile(rows x nr) = alpha * (sum_k A B [+ partial]) [+ tail], where the
// parts in brackets are optional.
struct TileArgs {
  const float* a;  // tile[]: packed, [ceil(depth / 16)][rows][16]; acrossTile[]: [rows][32 of k]
  // acrossTile[]: floats from one 16 of k to the next, alternately
  std::ptrdiff_t aAdvance[2];
  const float* b;  // first of nr columns; row k at b + k * ldb
  std::ptrdiff_t ldb;
  int depth;
  const float* partial;  // rows x nr sums of the earlier K blocks (stride nr), or null
  float alpha;           // scales the sum over all K blocks; 1 before the last block
  const float* tailA;    // a packed tile, or null; its columns [tailBegin, tailEnd) are used
  const float* tailB;    // row k at tailB + k * tailLdb
  std::ptrdiff_t tailLdb;
  int tailBegin;
  int tailEnd;
  const float* prefetch;        // what the next tiles will read, or null
  int prefetchLines;            // cache lines of it to fetch per 16 steps of k
  int prefetchLeft;             // lines until the first jump
  int prefetchRun;              // lines between jumps
  std::ptrdiff_t prefetchJump;  // floats from the end of a run to the next; 0: contiguous
  float* out;                   // rows x nr, stride nr; may be the same memory as partial
};

// What happens to a finished rows x columns tile. Row pointers address column 0 of the matrix; null
// arrays are unused operands. Per element, in this order:
//   z = tile; z *= multiplier; z += bias; z += residual; z += C (accumulate);
//   C = activation(z); derivative = activation'(z)
// multiplierOfRelu: the multiplier is 1 where the operand is positive and else 0. multiplySum: the
// multiplication comes behind the additions.
struct EpilogueArgs {
  const float* tile;
  int tileStride;
  int rows;
  int column;   // first column of the tile in the matrix
  int columns;  // valid columns, at most the tile's width
  const float* bias;
  float* const* c;
  const float* const* residual;
  const float* const* multiplier;
  float* const* derivative;
  bool accumulate;
  bool multiplierOfRelu;
  bool multiplySum;
  Activation activation;
};

constexpr int kMaxTileRows = 14;

// Products of float32 matrices on units that multiply bfloat16 (AMX). A float32 is the sum of three
// bfloat16, x = x1 + x2 + x3, exactly, unless the last is below 2^-126; |x2| < 2^-7 |x| and |x3| <= 2^-16 |x|. Of
// the nine products of parts six are kept. Left out are x2 w3, x3 w2 and x3 w3: together at most 2^-21.9 |x w|,
// of either sign, 2^-25 |x w| in the root mean square.
//
// Operands are strips of 32 rows (left) or 32 columns (right), cut into slabs of 32 k: a slab is
// [part][half][16][32], a half being the 16 rows, each with its 32 k, or the 16 columns, as 16 pairs of k.
constexpr int kStrip = 32;
constexpr int kSlabDepth = 32;
constexpr int kHalfStrip = 16;
constexpr int kTileHalfwords = kHalfStrip * kSlabDepth;
constexpr int kSlabHalfwords = 3 * 2 * kTileHalfwords;

// Weights that are split while others are multiplied: slabs whose 32 x 32 floats lie together in a packed
// matrix, done in `kJobPieces` pieces each.
constexpr int kJobPieces = 8;
struct SplitJob {
  const float* source;          // of the first slab
  std::ptrdiff_t sourceStride;  // floats from one slab to the next
  std::uint16_t* target;
  int next;                 // pieces done so far
  int end;                  // pieces in all
  const float* fetchAhead;  // what will be split after this, read alike; or null
};

// sums [32][32] (+)= left strip * right strip.
struct SplitProduct {
  const std::uint16_t* left;
  const std::uint16_t* right;
  int slabs;
  int leftHalves;  // 1: only the first 16 rows exist
  int rightHalves;
  bool first;  // sums are not read
  float* sums;
};

struct SplitKernels {
  // Around all others, on each thread.
  void (*begin)();
  void (*end)();
  // Rows [begin, end) of a left strip, from src[0 .. end - begin): a row's groups of kPackGroup k are
  // groupStride floats apart. The other rows are not touched.
  void (*splitRows)(std::uint16_t* out, const float* const* src, std::ptrdiff_t groupStride,
                    int begin, int end, int slabs);
  // Makes the rows of a left strip the columns of a right one, in place.
  void (*transposeStrip)(std::uint16_t* strip, int slabs);
  // x is left and the weight right, or the other way round; of the job `pieces` for each slab.
  void (*multiply)(const SplitProduct&, SplitJob&, int pieces);
  void (*multiplyAcross)(const SplitProduct&, SplitJob&, int pieces);
  // What is left of a job.
  void (*finishJob)(SplitJob&);
  void (*finishJobAcross)(SplitJob&);
};

struct Kernels {
  const char* name;
  int vectorWidth;  // floats per vector
  int tileRows;     // the tallest tile, at most kMaxTileRows
  int tileColumns;  // nr of tile[]; divides kPanelColumns
  // tile[h - 1] computes h rows. narrowTile is for 16-column panels; it equals tile where
  // tileColumns <= 16.
  void (*tile[kMaxTileRows])(const TileArgs&);
  void (*narrowTile[kMaxTileRows])(const TileArgs&);
  // The same with A read in place from a packed matrix whose panels of 32 columns are panels of k here.
  void (*acrossTile[kMaxTileRows])(const TileArgs&);
  void (*narrowAcrossTile[kMaxTileRows])(const TileArgs&);
  void (*epilogue)(const EpilogueArgs&);

  // Tile of A: dst[(k / 16) * rows * 16 + i * 16 + k % 16] = src[i][k] for i < rows, k < depth; zero
  // up to the next multiple of 16 in k.
  void (*packRows)(float* dst, const float* const* src, int rows, int depth);
  // dst[i * dstStride + j] = src[i * srcStride + j] for i < rows, j < columns; zero for
  // columns <= j < padded, a multiple of 16.
  void (*copyBlock)(float* dst, std::ptrdiff_t dstStride, const float* src,
                    std::ptrdiff_t srcStride, int rows, int columns, int padded);
  // dst[j * dstStride + i] = src[i][j] for i < rows, j < columns; zero for rows <= i < padded, a
  // multiple of 16.
  void (*transposeBlock)(float* dst, std::ptrdiff_t dstStride, const float* const* src, int rows,
                         int columns, int padded);

  // Register-only multiply-adds, for measuring the peak: returns the floating-point operations
  // done by `iterations` rounds; `sink` keeps the result alive.
  double (*fmaLoop)(std::int64_t iterations, float* sink);

  // Elementwise, dst == src allowed. Errors against the exact value, all finite inputs:
  // exp <= 2 ulp, erf <= 2 ulp, tanh <= 3 ulp (generic without FMA: one ulp more). NaN propagates.
  void (*exp)(float* dst, const float* src, std::int64_t n);
  void (*erf)(float* dst, const float* src, std::int64_t n);
  void (*tanh)(float* dst, const float* src, std::int64_t n);
  // y = activation(x), derivative = activation'(x); derivative may be null.
  void (*activate)(Activation activation, float* y, float* derivative, const float* x,
                   std::int64_t n);

  // Reductions have a fixed order that depends on n and the instruction set only.
  float (*dot)(const float* x, const float* y, std::int64_t n);
  float (*sum)(const float* x, std::int64_t n);
  float (*max)(const float* x, std::int64_t n);  // -inf for n = 0; NaN anywhere gives NaN
  // dst = exp(x - shift), returns the sum; dst == x allowed.
  float (*expSum)(float* dst, const float* x, float shift, std::int64_t n);
  void (*axpy)(float* y, float a, const float* x, std::int64_t n);   // y += a * x
  void (*scale)(float* y, float a, const float* x, std::int64_t n);  // y = a * x, y == x allowed

  const SplitKernels* split;  // null where the machine has no such unit
};

}  // namespace loko::cpu
