// Products on units that multiply bfloat16 (Isa::kAmx), where the machine has them: cases in which every part
// and every sum is exact, so that a part that is lost, doubled or misplaced shows as a wrong number; the same bits
// from scalar arithmetic; and the error beside float64.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "cpu/gemm.h"
#include "cpu/isa.h"
#include "gemm_testing.h"

namespace {

using namespace loko::cpu;
using namespace loko::test;

bool hasSplitUnits() {
  const std::vector<Isa> isas = availableIsas();
  if (std::find(isas.begin(), isas.end(), Isa::kAmx) != isas.end()) return true;
  MESSAGE("not run: this machine has no AMX");
  return false;
}

using Matrix = std::vector<float>;

// What the arguments say, into a C of their own.
Matrix result(Isa isa, GemmArgs args) {
  Matrix c(static_cast<std::size_t>(args.m * args.n), NAN);
  args.c = {c.data(), args.n};
  const int rank = args.tailV ? args.tailV->rank() : 0;
  const AlignedFloats scratch =
      allocateAligned(gemmScratchBytes(kernels(isa), args.m, args.n, args.k, rank) / sizeof(float));
  gemm(kernels(isa), args, scratch.get());
  return c;
}

// C = A [m, k] * B [k, n], with B packed as it is or, `across`, as its transpose.
Matrix product(Isa isa, const Matrix& a, const Matrix& b, int m, int n, int k, bool across) {
  PackedMatrix packed = across ? PackedMatrix(n, k) : PackedMatrix(k, n);
  packed.pack(b.data(), n, across ? WeightLayout::kNK : WeightLayout::kKN);
  GemmArgs args;
  args.m = m;
  args.n = n;
  args.k = k;
  args.a.rows = {a.data(), k};
  args.b.packed = &packed;
  args.b.transposed = across;
  return result(isa, args);
}

Matrix normalMatrix(int rows, int columns) {
  std::normal_distribution<float> normal;
  Matrix values(static_cast<std::size_t>(rows * columns));
  for (float& value : values) value = normal(generator());
  return values;
}

using Parts = std::array<float, 3>;

float upperHalf(float value, std::uint32_t rounding) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  bits = (bits + rounding) & 0xffff0000u;
  std::memcpy(&value, &bits, sizeof(bits));
  return value;
}

Parts partsOf(float value) {
  const float first = upperHalf(value, 0), second = upperHalf(value - first, 0x8000u);
  return {first, second, value - first - second};
}

}  // namespace

TEST_CASE("products of integers that fit two parts are exact on bfloat16 units") {
  if (!hasSplitUnits()) return;
  // 12 bits each: 8 in the first part, the others in the second. All partial sums are below 2^24.
  const int m = 45, n = 416, k = 160;
  std::uniform_int_distribution<int> large(-4095, 4095), small(-25, 25);
  for (const bool across : {false, true})
    for (const bool largeA : {false, true}) {
      Matrix a(m * k), b(k * n);
      for (float& value : a) value = static_cast<float>((largeA ? large : small)(generator()));
      for (float& value : b) value = static_cast<float>((largeA ? small : large)(generator()));
      const Matrix c = product(Isa::kAmx, a, b, m, n, k, across);
      int wrong = 0;
      for (int i = 0; i < m; ++i)
        for (int j = 0; j < n; ++j) {
          double exact = 0;
          for (int t = 0; t < k; ++t) exact += double{a[i * k + t]} * double{b[t * n + j]};
          wrong += c[i * n + j] != exact;
        }
      CHECK(wrong == 0);
    }
}

TEST_CASE("a matrix that picks columns brings all 24 bits of a float32 through bfloat16 units") {
  if (!hasSplitUnits()) return;
  const int extent = 256;
  Matrix pick(extent * extent, 0.0f);
  for (int i = 0; i < extent; ++i) pick[i * extent + (i * 37 + 5) % extent] = 1.0f;
  const Matrix values = normalMatrix(extent, extent);
  for (const bool across : {false, true}) {
    const Matrix fromB = product(Isa::kAmx, pick, values, extent, extent, extent, across);
    const Matrix fromA = product(Isa::kAmx, values, pick, extent, extent, extent, across);
    int wrong = 0;
    for (int i = 0; i < extent; ++i)
      for (int j = 0; j < extent; ++j) {
        const int at = (i * 37 + 5) % extent;
        wrong += fromB[i * extent + j] != values[at * extent + j];
        wrong += fromA[j * extent + at] != values[j * extent + i];
      }
    CHECK(wrong == 0);
  }
}

TEST_CASE(
    "every bit of a product on bfloat16 units follows from the arithmetic that is documented") {
  if (!hasSplitUnits()) return;
  // kernels_amx.cc: the parts, their order, the sums of the unit; gemm_split.cc: blocks of K. No number here
  // is small enough to be taken for zero.
  const int m = 33, n = 288;
  const int leftPart[] = {2, 1, 1, 0, 0, 0}, rightPart[] = {0, 0, 1, 1, 2, 0};
  for (const auto& [k, blockDepth] : {std::pair(256, 256), {1600, 768}})
    for (const bool across : {false, true}) {
      const Matrix a = normalMatrix(m, k), b = normalMatrix(k, n);
      std::vector<Parts> partsOfA, partsOfB;
      for (const float value : a) partsOfA.push_back(partsOf(value));
      for (const float value : b) partsOfB.push_back(partsOf(value));
      const Matrix c = product(Isa::kAmx, a, b, m, n, k, across);
      int wrong = 0;
      for (int i = 0; i < m; ++i)
        for (int j = 0; j < n; ++j) {
          float total = 0, sum = 0;
          for (int slab = 0; slab < k; slab += kSlabDepth) {
            for (int step = 0; step < 6; ++step) {
              float halves[2] = {};  // even and odd k
              for (int t = slab; t < slab + kSlabDepth; ++t) {
                const Parts& x = partsOfA[i * k + t];
                const Parts& w = partsOfB[t * n + j];
                const float left = (across ? w : x)[leftPart[step]];
                const float right = (across ? x : w)[rightPart[step]];
                halves[t % 2] = std::fma(left, right, halves[t % 2]);
              }
              sum += halves[0] + halves[1];
            }
            const int end = slab + kSlabDepth;
            if (end % blockDepth != 0 && end != k) continue;
            total += sum;
            sum = 0;
          }
          wrong += total != c[i * n + j];
        }
      CHECK(wrong == 0);
    }
}

TEST_CASE("products on bfloat16 units are not less accurate than those in float32") {
  if (!hasSplitUnits()) return;
  const int m = 40, n = 256;
  // Products of one sign are the hard case of a long sum: all roundings are those of a large number.
  for (const auto& kind :
       {std::pair(256, false), {768, false}, {3072, false}, {768, true}, {3072, true}}) {
    const int k = kind.first;
    const bool positive = kind.second;
    for (const bool across : {false, true}) {
      Matrix a = normalMatrix(m, k), b = normalMatrix(k, n);
      for (Matrix* values : {&a, &b})
        for (float& value : *values)
          if (positive) value = std::abs(value);
      const Matrix split = product(Isa::kAmx, a, b, m, n, k, across);
      const Matrix plain = product(Isa::kAvx512, a, b, m, n, k, across);
      double splitError = 0, plainError = 0;
      for (int i = 0; i < m; ++i)
        for (int j = 0; j < n; ++j) {
          double exact = 0;
          for (int t = 0; t < k; ++t) exact += double{a[i * k + t]} * double{b[t * n + j]};
          splitError += std::pow(split[i * n + j] - exact, 2);
          plainError += std::pow(plain[i * n + j] - exact, 2);
        }
      CAPTURE(k);
      CAPTURE(positive);
      CAPTURE(std::sqrt(splitError / (m * n)));
      CAPTURE(std::sqrt(plainError / (m * n)));
      CHECK(splitError <= plainError);
    }
  }
}

TEST_CASE("what is not finite stays so on bfloat16 units, in its own row or column alone") {
  if (!hasSplitUnits()) return;
  const int extent = 256;
  for (const bool across : {false, true})
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      Matrix a = normalMatrix(extent, extent), b = normalMatrix(extent, extent);
      a[3 * extent + 17] = bad;
      b[40 * extent + 9] = bad;
      const Matrix c = product(Isa::kAmx, a, b, extent, extent, extent, across);
      int wrong = 0;
      for (int i = 0; i < extent; ++i)
        for (int j = 0; j < extent; ++j)
          wrong += std::isfinite(c[i * extent + j]) == (i == 3 || j == 9);
      CHECK(wrong == 0);
    }
}

TEST_CASE("a part of a weight and its low-rank tail give what the whole gives on bfloat16 units") {
  if (!hasSplitUnits()) return;
  // Small integers: all sums are exact. The parts end in whole strips and in narrow and wide panels of the tail.
  const int m = 37, n = 352, k = 256, rank = 3;
  std::uniform_int_distribution<int> digit(-9, 9);
  Matrix a(m * k), b(k * n), u(m * rank), v(rank * n);
  for (Matrix* values : {&a, &b, &u, &v})
    for (float& value : *values) value = static_cast<float>(digit(generator()));
  PackedMatrix packed(k, n);
  packed.pack(b.data(), n, WeightLayout::kKN);
  for (const int columns : {64, 70, 80, 95})
    for (const int kBegin : {0, 5, 64}) {
      const int nBegin = 96, depth = 160;
      PackedTail tail(rank, columns);
      TailSite site;
      site.source = v.data();
      site.ld = n;
      site.layout = WeightLayout::kKN;
      site.rowEnd = rank;
      site.columnEnd = columns;
      tail.pack(&site, 1);
      GemmArgs args;
      args.m = m;
      args.n = columns;
      args.k = depth;
      args.a.rows = {a.data(), k};
      args.b.packed = &packed;
      args.b.kBegin = kBegin;
      args.b.nBegin = nBegin;
      args.tailU = {u.data(), rank};
      args.tailV = &tail;
      const Matrix c = result(Isa::kAmx, args);
      int wrong = 0;
      for (int i = 0; i < m; ++i)
        for (int j = 0; j < columns; ++j) {
          double exact = 0;
          for (int t = 0; t < depth; ++t)
            exact += double{a[i * k + t]} * double{b[(kBegin + t) * n + nBegin + j]};
          for (int r = 0; r < rank; ++r) exact += double{u[i * rank + r]} * double{v[r * n + j]};
          wrong += c[i * columns + j] != exact;
        }
      CAPTURE(columns);
      CAPTURE(kBegin);
      CHECK(wrong == 0);
    }
}

TEST_CASE("the largest float32 is no infinity on bfloat16 units") {
  if (!hasSplitUnits()) return;
  // Its first two parts alone are 2^128: the third has to be added before the first is.
  const int extent = 256;
  Matrix one(extent * extent, 0.0f), large(extent * extent, 0.0f);
  one[17 * extent + 9] = 1.0f;
  large[17 * extent + 9] = std::numeric_limits<float>::max();
  Matrix pick(extent * extent, 0.0f);
  pick[3 * extent + 17] = 1.0f;
  Matrix pickLarge(extent * extent, 0.0f);
  pickLarge[3 * extent + 17] = -std::numeric_limits<float>::max();
  for (const bool across : {false, true}) {
    const Matrix fromB = product(Isa::kAmx, pick, large, extent, extent, extent, across);
    const Matrix fromA = product(Isa::kAmx, pickLarge, one, extent, extent, extent, across);
    CHECK(fromB[3 * extent + 9] == std::numeric_limits<float>::max());
    CHECK(fromA[3 * extent + 9] == -std::numeric_limits<float>::max());
  }
}
