// AMX: tiles of 16 rows of 64 bytes, which multiply pairs of bfloat16 and add in float32. One instruction
// does 16 x 16 x 32 multiply-adds in 16 cycles, sixteen times what AVX-512 does in float32; the six products
// that a float32 takes here leave 2.7 times.
//
// Arithmetic of the unit (Intel SDM, TDPBF16PS): the even and the odd k of a slab are summed apart from zero,
// then together, then added to the accumulator; round to nearest even, denormals are zero. So an
// element is a fixed sequence of operations, whatever else is computed with it.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/kernels_table.h"

#if defined(__linux__)

namespace loko::cpu {
namespace {

#define LOKO_INLINE static inline __attribute__((always_inline))

// The compiler does not know that tile loads read memory.
LOKO_INLINE void fence() {
  __asm__ volatile("" ::: "memory");
}

constexpr int kRowBytes = 64;

struct TileConfig {
  std::uint8_t palette, startRow, reserved[14];
  std::uint16_t rowBytes[16];
  std::uint8_t rows[16];
};

void beginTiles() {
  TileConfig config = {};
  config.palette = 1;
  for (int tile = 0; tile < 8; ++tile) {
    config.rowBytes[tile] = kRowBytes;
    config.rows[tile] = kHalfStrip;
  }
  fence();
  _tile_loadconfig(&config);
}

// Leaves nothing for the kernel to save when it switches threads.
void endTiles() {
  _tile_release();
}

// ---- splitting

using Lanes = std::uint32_t __attribute__((vector_size(64)));

// In the upper half of each lane; of the last, the lower half is zero but for denormals.
struct Parts {
  __m512i part[3];
};

// The first part is cut off, the second is rounded, the last is what is left: at most 8 bits of either sign, so
// that the products left out have no common one. Both differences are exact.
LOKO_INLINE Parts splitVector(const float* p) {
  const __m512i half = _mm512_set1_epi32(0x8000);
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  const __m512 x = _mm512_loadu_ps(p);
  Parts parts;
  parts.part[0] = _mm512_and_si512(_mm512_castps_si512(x), upper);
  const __m512 rest = _mm512_sub_ps(x, _mm512_castsi512_ps(parts.part[0]));
  parts.part[1] = _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(rest), half), upper);
  parts.part[2] = _mm512_castps_si512(_mm512_sub_ps(rest, _mm512_castsi512_ps(parts.part[1])));
  return parts;
}

LOKO_INLINE __m512i upperHalves(__m512i low, __m512i high) {
  const __m512i odd =
      _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27,
                       25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  return _mm512_permutex2var_epi16(low, odd, high);
}

LOKO_INLINE void storeRow(std::uint16_t* out, int part, int half, int row, __m512i value) {
  _mm512_store_si512(out + (part * 2 + half) * kTileHalfwords + row * kSlabDepth, value);
}

// One row of a left operand: 32 k.
LOKO_INLINE void splitRow(std::uint16_t* out, const float* low, const float* high, int row) {
  const Parts a = splitVector(low), b = splitVector(high);
#pragma GCC unroll 3
  for (int part = 0; part < 3; ++part)
    storeRow(out, part, row / kHalfStrip, row % kHalfStrip,
             upperHalves(a.part[part], b.part[part]));
}

// A pair of k of a right operand: 32 columns.
LOKO_INLINE void splitPair(std::uint16_t* out, const float* even, const float* odd, int pair) {
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    const Parts a = splitVector(even + half * kHalfStrip), b = splitVector(odd + half * kHalfStrip);
#pragma GCC unroll 3
    for (int part = 0; part < 3; ++part) {
      const __m512i low = (__m512i)((Lanes)a.part[part] >> 16);
      storeRow(out, part, half, pair, _mm512_mask_blend_epi16(0xaaaaaaaau, low, b.part[part]));
    }
  }
}

void splitRows(std::uint16_t* out, const float* const* src, std::ptrdiff_t groupStride, int begin,
               int end, int slabs) {
  for (int slab = 0; slab < slabs; ++slab, out += kSlabHalfwords) {
    const std::ptrdiff_t low = 2 * slab * groupStride;
    for (int i = begin; i < end; ++i)
      splitRow(out, src[i - begin] + low, src[i - begin] + low + groupStride, i);
  }
}

// 16 x 16 pairs of k, in four rounds of interleaving row i with row i + 8.
LOKO_INLINE void transposePairs(__m512i (&rows)[16]) {
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high =
      _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#pragma GCC unroll 4
  for (int round = 0; round < 4; ++round) {
    __m512i next[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      next[2 * i] = _mm512_permutex2var_epi32(rows[i], low, rows[i + 8]);
      next[2 * i + 1] = _mm512_permutex2var_epi32(rows[i], high, rows[i + 8]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) rows[i] = next[i];
  }
}

void transposeTiles(std::uint16_t* out, int slabs) {
  for (std::ptrdiff_t tile = 0; tile < std::ptrdiff_t{slabs} * 6; ++tile) {
    std::uint16_t* at = out + tile * kTileHalfwords;
    __m512i pairs[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) pairs[i] = _mm512_load_si512(at + i * kSlabDepth);
    transposePairs(pairs);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) _mm512_store_si512(at + i * kSlabDepth, pairs[i]);
  }
}

// Four rows of 32 floats, which are rows of a left strip, or two pairs of k of a right one.
template <bool across>
LOKO_INLINE void doPiece(SplitJob& job) {
  constexpr int kRows = kStrip / kJobPieces;
  const int slab = job.next / kJobPieces, piece = job.next % kJobPieces;
  const std::ptrdiff_t offset = slab * job.sourceStride + piece * kRows * kStrip;
  const float* source = job.source + offset;
  std::uint16_t* out = job.target + std::ptrdiff_t{slab} * kSlabHalfwords;
  if (job.fetchAhead)
    for (int line = 0; line < kRows * kStrip; line += kPackGroup)
      __builtin_prefetch(job.fetchAhead + offset + line, 0, 2);
#pragma GCC unroll 4
  for (int i = 0; i < kRows; i += across ? 1 : 2) {
    const float* row = source + i * kStrip;
    if constexpr (across)
      splitRow(out, row, row + kPackGroup, piece * kRows + i);
    else
      splitPair(out, row, row + kStrip, (piece * kRows + i) / 2);
  }
  ++job.next;
}

template <bool across>
void finishJob(SplitJob& job) {
  while (job.next < job.end) doPiece<across>(job);
}

// ---- multiplying

// Tiles 0 to 3: sums [left half][right half]; 4, 5: left; 6, 7: right.
#define LOKO_LOAD_LEFT(part)                                     \
  _tile_loadd(4, left + ((part)*2) * kTileHalfwords, kRowBytes); \
  if constexpr (leftHalves == 2) _tile_loadd(5, left + ((part)*2 + 1) * kTileHalfwords, kRowBytes)
#define LOKO_LOAD_RIGHT(part)                                     \
  _tile_loadd(6, right + ((part)*2) * kTileHalfwords, kRowBytes); \
  if constexpr (rightHalves == 2) _tile_loadd(7, right + ((part)*2 + 1) * kTileHalfwords, kRowBytes)
#define LOKO_MULTIPLY()                                    \
  _tile_dpbf16ps(0, 4, 6);                                 \
  if constexpr (rightHalves == 2) _tile_dpbf16ps(1, 4, 7); \
  if constexpr (leftHalves == 2) _tile_dpbf16ps(2, 5, 6);  \
  if constexpr (leftHalves == 2 && rightHalves == 2) _tile_dpbf16ps(3, 5, 7)

// Four independent sums hide the latency of the unit: an element's own six products lie four apart. The job
// is spread between them in thirds: what follows a load that waits for its register waits, too. The product of
// the first parts comes last: of the largest float32, the first two parts alone are 2^128.
template <bool across, int leftHalves, int rightHalves>
void multiplyHalves(const SplitProduct& product, SplitJob& job, int pieces) {
  constexpr int kSumRow = kStrip * static_cast<int>(sizeof(float));
  float* sums = product.sums;
  fence();
  if (product.first) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, sums, kSumRow);
    if constexpr (rightHalves == 2) _tile_loadd(1, sums + kHalfStrip, kSumRow);
    if constexpr (leftHalves == 2) _tile_loadd(2, sums + kHalfStrip * kStrip, kSumRow);
    if constexpr (leftHalves == 2 && rightHalves == 2)
      _tile_loadd(3, sums + kHalfStrip * kStrip + kHalfStrip, kSumRow);
  }
  const std::uint16_t* left = product.left;
  const std::uint16_t* right = product.right;
  for (int slab = 0; slab < product.slabs; ++slab) {
    int done = 0;
    const auto doThird = [&](int third) __attribute__((always_inline)) {
      for (; done < pieces * third / 3 && job.next < job.end; ++done) doPiece<across>(job);
    };
    LOKO_LOAD_RIGHT(0);
    LOKO_LOAD_LEFT(2);
    LOKO_MULTIPLY();
    LOKO_LOAD_LEFT(1);
    LOKO_MULTIPLY();
    doThird(1);
    LOKO_LOAD_RIGHT(1);
    LOKO_MULTIPLY();
    LOKO_LOAD_LEFT(0);
    LOKO_MULTIPLY();
    doThird(2);
    LOKO_LOAD_RIGHT(2);
    LOKO_MULTIPLY();
    LOKO_LOAD_RIGHT(0);
    LOKO_MULTIPLY();
    doThird(3);
    left += kSlabHalfwords;
    right += kSlabHalfwords;
  }
  _tile_stored(0, sums, kSumRow);
  if constexpr (rightHalves == 2) _tile_stored(1, sums + kHalfStrip, kSumRow);
  if constexpr (leftHalves == 2) _tile_stored(2, sums + kHalfStrip * kStrip, kSumRow);
  if constexpr (leftHalves == 2 && rightHalves == 2)
    _tile_stored(3, sums + kHalfStrip * kStrip + kHalfStrip, kSumRow);
  fence();
}

template <bool across>
void multiply(const SplitProduct& product, SplitJob& job, int pieces) {
  if (product.leftHalves == 2)
    return product.rightHalves == 2 ? multiplyHalves<across, 2, 2>(product, job, pieces)
                                    : multiplyHalves<across, 2, 1>(product, job, pieces);
  return product.rightHalves == 2 ? multiplyHalves<across, 1, 2>(product, job, pieces)
                                  : multiplyHalves<across, 1, 1>(product, job, pieces);
}

}  // namespace

const SplitKernels kAmxKernels = {beginTiles,       endTiles,        splitRows,
                                  transposeTiles,   multiply<false>, multiply<true>,
                                  finishJob<false>, finishJob<true>};

}  // namespace loko::cpu

#endif
