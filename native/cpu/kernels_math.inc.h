// Elementwise functions, activations and reductions, written once for all vector widths.
//
// Included inside the anonymous namespace of each kernels_<isa>.cc, after that file has defined
// kWidth, Vec, IntVec, LOKO_INLINE and the primitives load, store, broadcast, fma, loadPartial,
// storePartial, select, zipLow, zipHigh. To add kernels of another operation: write them in a
// kernels_<name>.inc.h in this style, include it in the three units and give it its own table of
// function pointers beside kernels_table.h. Rules: nothing outside the anonymous namespace, no
// standard library templates or inline functions (the linker may merge them into generic code),
// reductions in an order that depends on n alone. The unit, not this file, decides the instruction
// set.
#pragma once

LOKO_INLINE IntVec bitsOf(Vec v) {
  return (IntVec)v;
}
LOKO_INLINE Vec fromBits(IntVec v) {
  return (Vec)v;
}
LOKO_INLINE Vec negate(Vec v) {
  return fromBits(bitsOf(v) ^ bitsOf(broadcast(-0.0f)));
}
LOKO_INLINE Vec absolute(Vec v) {
  return fromBits(bitsOf(v) & ~bitsOf(broadcast(-0.0f)));
}
LOKO_INLINE Vec copySign(Vec magnitude, Vec sign) {
  const IntVec signBit = bitsOf(broadcast(-0.0f));
  return fromBits((bitsOf(magnitude) & ~signBit) | (bitsOf(sign) & signBit));
}

// e^x: x = n ln 2 + r with |r| <= ln 2 / 2 (Cody and Waite; ln 2 in two parts, n times the first is
// exact), then the polynomial of Cephes' expf. 2^n is applied in two factors so that results near
// overflow and denormals are right.
LOKO_INLINE Vec expVec(Vec x) {
  x = select(x < broadcast(-104.0f), broadcast(-104.0f), x);
  x = select(x > broadcast(89.0f), broadcast(89.0f), x);
  const Vec shift = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vec t = fma(x, broadcast(1.44269504f), shift);
  const Vec n = t - shift;
  Vec r = fma(n, broadcast(-0.693359375f), x);
  r = fma(n, broadcast(2.12194440e-4f), r);
  Vec p = broadcast(1.9875691500e-4f);
  p = fma(p, r, broadcast(1.3981999507e-3f));
  p = fma(p, r, broadcast(8.3334519073e-3f));
  p = fma(p, r, broadcast(4.1665795894e-2f));
  p = fma(p, r, broadcast(1.6666665459e-1f));
  p = fma(p, r, broadcast(5.0000001201e-1f));
  p = fma(p * r, r, r) + broadcast(1.0f);
  const IntVec exponent = bitsOf(t) - bitsOf(shift);
  const IntVec half = exponent >> 1;
  const Vec scale1 = fromBits((half + 127) << 23);
  const Vec scale2 = fromBits((exponent - half + 127) << 23);
  return p * scale1 * scale2;
}

// erf: an odd polynomial below 0.9277, 1 - exp(polynomial) above (coefficients of N. Juffa, below
// 1 ulp with correctly rounded fused operations).
LOKO_INLINE Vec erfVec(Vec x) {
  const Vec t = absolute(x);
  const Vec s = x * x;
  Vec p = broadcast(-5.96761703e-4f);
  p = fma(p, s, broadcast(4.99119423e-3f));
  p = fma(p, s, broadcast(-2.67681349e-2f));
  p = fma(p, s, broadcast(1.12819925e-1f));
  p = fma(p, s, broadcast(-3.76125336e-1f));
  p = fma(p, s, broadcast(1.28379166e-1f));
  const Vec small = fma(p, x, x);

  const Vec clamped = select(t > broadcast(4.0f), broadcast(4.0f), t);  // erf(4) rounds to 1
  const Vec s2 = clamped * clamped;
  Vec q = fma(broadcast(-1.72853470e-5f), clamped, broadcast(3.83197126e-4f));
  const Vec u = fma(broadcast(-3.88396438e-3f), clamped, broadcast(2.42546219e-2f));
  q = fma(q, s2, u);
  q = fma(q, clamped, broadcast(-1.06777877e-1f));
  q = fma(q, clamped, broadcast(-6.34846687e-1f));
  q = fma(q, clamped, broadcast(-1.28717512e-1f));
  q = fma(q, clamped, negate(clamped));
  const Vec large = copySign(broadcast(1.0f) - expVec(q), x);
  return select(t > broadcast(0.927734375f), large, small);
}

// tanh: Cephes' odd polynomial below 0.625, 1 - 2 / (e^2|x| + 1) above.
LOKO_INLINE Vec tanhVec(Vec x) {
  const Vec t = absolute(x);
  const Vec s = x * x;
  Vec p = broadcast(-5.70498872745e-3f);
  p = fma(p, s, broadcast(2.06390887954e-2f));
  p = fma(p, s, broadcast(-5.37397155531e-2f));
  p = fma(p, s, broadcast(1.33314422036e-1f));
  p = fma(p, s, broadcast(-3.33332819422e-1f));
  const Vec small = fma(p * s, x, x);
  const Vec large = broadcast(1.0f) - broadcast(2.0f) / (expVec(t + t) + broadcast(1.0f));
  return copySign(select(t > broadcast(0.625f), large, small), x);
}

struct Activated {
  Vec y;
  Vec derivative;
};

// gelu(z) = z Phi(z), gelu'(z) = Phi(z) + z phi(z). Phi(-x) = e^(-x^2/2) Q(x) for x >= 0, where Q(x)
// = t P(2t - 1), t = 1 / (1 + 0.265 x), P a minimax polynomial of degree 8 (relative error 1.2e-8 on
// [0, 14], fitted to erfc in 40 digits). One exponential serves value and derivative, and the
// negative tail keeps its relative accuracy, which z/2 (1 + erf) loses.
LOKO_INLINE Activated gelu(Vec z) {
  const Vec one = broadcast(1.0f);
  const Vec x = absolute(z);
  const Vec t = one / fma(broadcast(0.265f), x, one);
  const Vec u = fma(broadcast(2.0f), t, broadcast(-1.0f));
  Vec p = broadcast(1.2039368448313326e-4f);
  p = fma(p, u, broadcast(-1.6363398754037917e-4f));
  p = fma(p, u, broadcast(-1.1131127830594778e-3f));
  p = fma(p, u, broadcast(-1.3662588025908917e-4f));
  p = fma(p, u, broadcast(1.0480855591595173e-2f));
  p = fma(p, u, broadcast(4.103581979870796e-2f));
  p = fma(p, u, broadcast(9.44206640124321e-2f));
  p = fma(p, u, broadcast(1.5639366209506989e-1f));
  p = fma(p, u, broadcast(1.989619880914688e-1f));
  const Vec e = expVec(broadcast(-0.5f) * z * z);
  const Vec tail = e * (t * p);
  const Vec phi = select(z < broadcast(0.0f), tail, one - tail);
  return {z * phi, fma(z * broadcast(0.398942280f), e, phi)};
}

// z sigmoid(w) for w = w(z) with slope dw. With e = e^-|w| nothing cancels: sigmoid' = e / (1 + e)^2.
LOKO_INLINE Activated gated(Vec z, Vec w, Vec dw) {
  const Vec one = broadcast(1.0f);
  const Vec e = expVec(negate(absolute(w)));
  const Vec inverse = one / (one + e);
  const Vec sigmoid = select(w < broadcast(0.0f), e * inverse, inverse);
  return {z * sigmoid, fma(z * (e * inverse * inverse), dw, sigmoid)};
}

LOKO_INLINE Activated geluTanh(Vec z) {
  const Vec one = broadcast(1.0f);
  const Vec square = z * z;
  const Vec c = broadcast(1.59576912f);  // 2 sqrt(2 / pi): (1 + tanh s) / 2 = sigmoid(2 s)
  const Vec w = c * z * fma(broadcast(0.044715f), square, one);
  const Vec dw = c * fma(broadcast(0.134145f), square, one);
  return gated(z, w, dw);
}

LOKO_INLINE Activated quickGelu(Vec z) {
  const Vec c = broadcast(1.702f);
  return gated(z, c * z, c);
}

LOKO_INLINE Activated relu(Vec z) {
  const Vec zero = broadcast(0.0f);
  return {select(z <= zero, zero, z), select(z > zero, broadcast(1.0f), zero)};
}

LOKO_INLINE Activated tanhActivation(Vec z) {
  const Vec y = tanhVec(z);
  return {y, fma(negate(y), y, broadcast(1.0f))};
}

template <Activation kind>
LOKO_INLINE Activated activated(Vec z) {
  if constexpr (kind == Activation::kGelu) return gelu(z);
  if constexpr (kind == Activation::kGeluTanh) return geluTanh(z);
  if constexpr (kind == Activation::kRelu) return relu(z);
  if constexpr (kind == Activation::kQuickGelu) return quickGelu(z);
  if constexpr (kind == Activation::kTanh) return tanhActivation(z);
  return {z, broadcast(1.0f)};
}

template <Vec (*function)(Vec)>
void mapArray(float* dst, const float* src, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) store(dst + i, function(load(src + i)));
  const int rest = static_cast<int>(n - i);
  if (rest > 0) storePartial(dst + i, function(loadPartial(src + i, rest)), rest);
}

template <Activation kind>
void activateArray(float* y, float* derivative, const float* x, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i += kWidth) {
    const int count = n - i < kWidth ? static_cast<int>(n - i) : kWidth;
    const Activated a = activated<kind>(loadPartial(x + i, count));
    storePartial(y + i, a.y, count);
    if (derivative) storePartial(derivative + i, a.derivative, count);
  }
}

void activateDispatch(Activation activation, float* y, float* derivative, const float* x,
                      std::int64_t n) {
  switch (activation) {
    case Activation::kNone:
      return activateArray<Activation::kNone>(y, derivative, x, n);
    case Activation::kGelu:
      return activateArray<Activation::kGelu>(y, derivative, x, n);
    case Activation::kGeluTanh:
      return activateArray<Activation::kGeluTanh>(y, derivative, x, n);
    case Activation::kRelu:
      return activateArray<Activation::kRelu>(y, derivative, x, n);
    case Activation::kQuickGelu:
      return activateArray<Activation::kQuickGelu>(y, derivative, x, n);
    case Activation::kTanh:
      return activateArray<Activation::kTanh>(y, derivative, x, n);
  }
}

LOKO_INLINE float horizontalSum(Vec v) {
  float lanes[kWidth];
  store(lanes, v);
  for (int half = kWidth / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

float dotArray(const float* x, const float* y, std::int64_t n) {
  Vec sums[4] = {broadcast(0), broadcast(0), broadcast(0), broadcast(0)};
  std::int64_t i = 0;
  for (; i + 4 * kWidth <= n; i += 4 * kWidth)
    for (int j = 0; j < 4; ++j)
      sums[j] = fma(load(x + i + j * kWidth), load(y + i + j * kWidth), sums[j]);
  for (; i + kWidth <= n; i += kWidth) sums[0] = fma(load(x + i), load(y + i), sums[0]);
  const int rest = static_cast<int>(n - i);
  if (rest > 0) sums[1] = fma(loadPartial(x + i, rest), loadPartial(y + i, rest), sums[1]);
  return horizontalSum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

float sumArray(const float* x, std::int64_t n) {
  Vec sums[4] = {broadcast(0), broadcast(0), broadcast(0), broadcast(0)};
  std::int64_t i = 0;
  for (; i + 4 * kWidth <= n; i += 4 * kWidth)
    for (int j = 0; j < 4; ++j) sums[j] += load(x + i + j * kWidth);
  for (; i + kWidth <= n; i += kWidth) sums[0] += load(x + i);
  const int rest = static_cast<int>(n - i);
  if (rest > 0) sums[1] += loadPartial(x + i, rest);
  return horizontalSum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// The larger one; NaN from either side stays.
LOKO_INLINE Vec maximum(Vec m, Vec x) {
  return select((x > m) | (x != x), x, m);
}

float maxArray(const float* x, std::int64_t n) {
  Vec m = broadcast(-__builtin_inff());
  std::int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) m = maximum(m, load(x + i));
  float lanes[kWidth];
  store(lanes, m);
  float result = lanes[0];
  for (int j = 1; j < kWidth; ++j)
    if (lanes[j] > result || lanes[j] != lanes[j]) result = lanes[j];
  for (; i < n; ++i)
    if (x[i] > result || x[i] != x[i]) result = x[i];
  return result;
}

float expSumArray(float* dst, const float* x, float shift, std::int64_t n) {
  Vec sums = broadcast(0.0f);
  std::int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    const Vec e = expVec(load(x + i) - broadcast(shift));
    store(dst + i, e);
    sums += e;
  }
  const int rest = static_cast<int>(n - i);
  if (rest > 0) {
    const Vec e = expVec(loadPartial(x + i, rest) - broadcast(shift));
    storePartial(dst + i, e, rest);
    sums += loadPartial(dst + i, rest);
  }
  return horizontalSum(sums);
}

void axpyArray(float* y, float a, const float* x, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) store(y + i, fma(broadcast(a), load(x + i), load(y + i)));
  const int rest = static_cast<int>(n - i);
  if (rest > 0)
    storePartial(y + i, fma(broadcast(a), loadPartial(x + i, rest), loadPartial(y + i, rest)),
                 rest);
}

void scaleArray(float* y, float a, const float* x, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) store(y + i, broadcast(a) * load(x + i));
  const int rest = static_cast<int>(n - i);
  if (rest > 0) storePartial(y + i, broadcast(a) * loadPartial(x + i, rest), rest);
}
