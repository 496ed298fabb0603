// The portable kernels: 128-bit vectors in the compiler's own notation (SSE2 on x86-64, NEON on
// ARM64), no instruction beyond the target's baseline.
#include "cpu/kernels.h"
#include "cpu/kernels_table.h"
#include "cpu/op_kernels.h"

namespace loko::cpu {
namespace {

constexpr int kWidth = 4;
constexpr int kTileRows = 4;
constexpr int kTileVectors = 2;
using Vec = float __attribute__((vector_size(16)));
using IntVec = int __attribute__((vector_size(16)));

#define LOKO_INLINE static inline __attribute__((always_inline))

LOKO_INLINE Vec load(const float* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
LOKO_INLINE void store(float* p, Vec v) {
  __builtin_memcpy(p, &v, sizeof v);
}
LOKO_INLINE Vec broadcast(float x) {
  return Vec{x, x, x, x};
}
// Fused where the baseline has it (ARM64, through -ffp-contract=fast), rounded twice on SSE2.
LOKO_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return a * b + c;
}
LOKO_INLINE Vec loadPartial(const float* p, int n) {
  Vec v = broadcast(0.0f);
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
LOKO_INLINE void storePartial(float* p, Vec v, int n) {
  for (int i = 0; i < n; ++i) p[i] = v[i];
}
LOKO_INLINE Vec select(IntVec mask, Vec a, Vec b) {
  return mask ? a : b;
}
// Interleave the low (high) halves: {a0, b0, a1, b1}.
#if defined(__clang__)
LOKO_INLINE Vec zipLow(Vec a, Vec b) {
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
}
LOKO_INLINE Vec zipHigh(Vec a, Vec b) {
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
}
#else
LOKO_INLINE Vec zipLow(Vec a, Vec b) {
  return __builtin_shuffle(a, b, IntVec{0, 4, 1, 5});
}
LOKO_INLINE Vec zipHigh(Vec a, Vec b) {
  return __builtin_shuffle(a, b, IntVec{2, 6, 3, 7});
}
#endif

// Each builds on the one before.
#include "cpu/kernels_math.inc.h"

#include "cpu/kernels_gemm.inc.h"

#include "cpu/kernels_ops.inc.h"

}  // namespace

const Kernels kGenericKernels = makeKernels("generic");
const OpKernels kGenericOpKernels = makeOpKernels();

}  // namespace loko::cpu
