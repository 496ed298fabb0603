// AVX-512 F/BW/DQ/VL: 14 x 32 tiles (28 accumulators, 2 columns of B, 1 broadcast of 32 registers).
#include <immintrin.h>

#include "cpu/kernels.h"
#include "cpu/kernels_table.h"
#include "cpu/op_kernels.h"

namespace loko::cpu {
namespace {

constexpr int kWidth = 16;
constexpr int kTileRows = 14;
constexpr int kTileVectors = 2;
using Vec = __m512;
using IntVec = int __attribute__((vector_size(64)));

#define LOKO_INLINE static inline __attribute__((always_inline))

LOKO_INLINE Vec load(const float* p) {
  return _mm512_loadu_ps(p);
}
LOKO_INLINE void store(float* p, Vec v) {
  _mm512_storeu_ps(p, v);
}
LOKO_INLINE Vec broadcast(float x) {
  return _mm512_set1_ps(x);
}
LOKO_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return _mm512_fmadd_ps(a, b, c);
}
LOKO_INLINE __mmask16 firstLanes(int n) {
  return (__mmask16)((1u << n) - 1u);
}
LOKO_INLINE Vec loadPartial(const float* p, int n) {
  return _mm512_maskz_loadu_ps(firstLanes(n), p);
}
LOKO_INLINE void storePartial(float* p, Vec v, int n) {
  _mm512_mask_storeu_ps(p, firstLanes(n), v);
}
LOKO_INLINE Vec select(IntVec mask, Vec a, Vec b) {
  return _mm512_mask_blend_ps(_mm512_movepi32_mask((__m512i)mask), b, a);
}
// Interleave the low (high) halves: {a0, b0, a1, b1, ...}.
LOKO_INLINE Vec zipLow(Vec a, Vec b) {
  const __m512i lanes = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  return _mm512_permutex2var_ps(a, lanes, b);
}
LOKO_INLINE Vec zipHigh(Vec a, Vec b) {
  const __m512i lanes =
      _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  return _mm512_permutex2var_ps(a, lanes, b);
}

// Each builds on the one before.
#include "cpu/kernels_math.inc.h"

#include "cpu/kernels_gemm.inc.h"

#include "cpu/kernels_ops.inc.h"

}  // namespace

const Kernels kAvx512Kernels = makeKernels("avx512");
const OpKernels kAvx512OpKernels = makeOpKernels();

}  // namespace loko::cpu
