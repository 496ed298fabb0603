#pragma once

// Scalar functions of device code. Those with a rounding mode in their name are exact to the bit;
// the fast approximations (__expf, __fdividef, rsqrtf) are the correctly rounded functions here, so
// that only their documented error may be relied on.

#include <math.h>

#include <cmath>
#include <cstdint>
#include <cstring>

namespace loko::emulation {

template <typename To, typename From>
To bitsOf(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float inverseSquareRoot(float x) {
  return static_cast<float>(1.0 / std::sqrt(double{x}));
}

}  // namespace loko::emulation

// Macros, since some versions of glibc declare functions of these names.
#define rsqrtf(x) ::loko::emulation::inverseSquareRoot(x)
#define __expf(x) ::expf(x)
#define __logf(x) ::logf(x)

using std::isfinite;
using std::isinf;
using std::isnan;

inline unsigned __float_as_uint(float x) {
  return loko::emulation::bitsOf<unsigned>(x);
}
inline int __float_as_int(float x) {
  return loko::emulation::bitsOf<int>(x);
}
inline float __uint_as_float(unsigned x) {
  return loko::emulation::bitsOf<float>(x);
}
inline float __int_as_float(int x) {
  return loko::emulation::bitsOf<float>(x);
}

// With two roundings instead of one where the compiler has no instruction for it: libm's function would
// take most of the time of a test, and no test may depend on how a sum is rounded.
namespace loko::cuda {
inline float fmaf(float a, float b, float c) {
  return a * b + c;
}
}  // namespace loko::cuda

inline float __fmaf_rn(float a, float b, float c) {
  return ::fmaf(a, b, c);
}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline float __fadd_rn(float a, float b) {
  return a + b;
}
inline float __fsub_rn(float a, float b) {
  return a - b;
}
inline float __fdiv_rn(float a, float b) {
  return a / b;
}
inline float __frcp_rn(float a) {
  return 1.0f / a;
}
inline float __fsqrt_rn(float a) {
  return ::sqrtf(a);
}
inline float __fdividef(float a, float b) {
  return a / b;
}
inline double __fma_rn(double a, double b, double c) {
  return ::fma(a, b, c);
}
inline double __dmul_rn(double a, double b) {
  return a * b;
}
inline double __dadd_rn(double a, double b) {
  return a + b;
}
inline double __dsub_rn(double a, double b) {
  return a - b;
}
inline double __ddiv_rn(double a, double b) {
  return a / b;
}
inline double __drcp_rn(double a) {
  return 1.0 / a;
}
inline double __dsqrt_rn(double a) {
  return ::sqrt(a);
}

inline int __popc(unsigned x) {
  return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x) {
  return __builtin_popcountll(x);
}
inline int __clz(int x) {
  return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x));
}
inline int __ffs(int x) {
  return __builtin_ffs(x);
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((std::uint64_t{a} * b) >> 32);
}

// CUDA's overloads, integer ones included: a mixed pair is compared as unsigned.
#define LOKO_MIN_MAX(type)                    \
  inline constexpr type min(type a, type b) { \
    return b < a ? b : a;                     \
  }                                           \
  inline constexpr type max(type a, type b) { \
    return a < b ? b : a;                     \
  }
LOKO_MIN_MAX(int)
LOKO_MIN_MAX(unsigned)
LOKO_MIN_MAX(long)
LOKO_MIN_MAX(unsigned long)
LOKO_MIN_MAX(long long)
LOKO_MIN_MAX(unsigned long long)
#undef LOKO_MIN_MAX
inline constexpr unsigned min(int a, unsigned b) {
  return min(static_cast<unsigned>(a), b);
}
inline constexpr unsigned min(unsigned a, int b) {
  return min(a, static_cast<unsigned>(b));
}
inline constexpr unsigned max(int a, unsigned b) {
  return max(static_cast<unsigned>(a), b);
}
inline constexpr unsigned max(unsigned a, int b) {
  return max(a, static_cast<unsigned>(b));
}
// A NaN loses against a number.
inline float min(float a, float b) {
  return ::fminf(a, b);
}
inline float max(float a, float b) {
  return ::fmaxf(a, b);
}
inline double min(double a, double b) {
  return ::fmin(a, b);
}
inline double max(double a, double b) {
  return ::fmax(a, b);
}
