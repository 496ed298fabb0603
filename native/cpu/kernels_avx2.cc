// AVX2 and FMA: 6 x 16 tiles (12 accumulators, 2 columns of B, 1 broadcast of 16 registers).
#include <immintrin.h>

#include "cpu/kernels.h"
#include "cpu/kernels_table.h"
#include "cpu/op_kernels.h"

namespace loko::cpu {
namespace {

constexpr int kWidth = 8;
constexpr int kTileRows = 6;
constexpr int kTileVectors = 2;
using Vec = __m256;
using IntVec = int __attribute__((vector_size(32)));

#define LOKO_INLINE static inline __attribute__((always_inline))

LOKO_INLINE Vec load(const float* p) {
  return _mm256_loadu_ps(p);
}
LOKO_INLINE void store(float* p, Vec v) {
  _mm256_storeu_ps(p, v);
}
LOKO_INLINE Vec broadcast(float x) {
  return _mm256_set1_ps(x);
}
LOKO_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return _mm256_fmadd_ps(a, b, c);
}
LOKO_INLINE __m256i firstLanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
LOKO_INLINE Vec loadPartial(const float* p, int n) {
  return _mm256_maskload_ps(p, firstLanes(n));
}
LOKO_INLINE void storePartial(float* p, Vec v, int n) {
  _mm256_maskstore_ps(p, firstLanes(n), v);
}
LOKO_INLINE Vec select(IntVec mask, Vec a, Vec b) {
  return _mm256_blendv_ps(b, a, (Vec)mask);
}
// Interleave the low (high) halves: {a0, b0, a1, b1, ...}.
LOKO_INLINE Vec zipLow(Vec a, Vec b) {
  return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x20);
}
LOKO_INLINE Vec zipHigh(Vec a, Vec b) {
  return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x31);
}

// Each builds on the one before.
#include "cpu/kernels_math.inc.h"

#include "cpu/kernels_gemm.inc.h"

#include "cpu/kernels_ops.inc.h"

}  // namespace

const Kernels kAvx2Kernels = makeKernels("avx2");
const OpKernels kAvx2OpKernels = makeOpKernels();

}  // namespace loko::cpu
