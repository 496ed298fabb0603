#include "core/dtype.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "doctest/doctest.h"

namespace loko {

namespace {

std::uint16_t encoded(float value, DType dtype) {
  std::uint16_t bits = 0;
  encode(&value, 1, dtype, reinterpret_cast<unsigned char*>(&bits));
  return bits;
}

double decoded(std::uint16_t bits, DType dtype) {
  return elementAt(reinterpret_cast<const unsigned char*>(&bits), dtype, 0);
}

/// Of two neighbours of a format, both >= 0, the one that `value` between them rounds to: the nearer, or
/// of two equally near the one whose last bit is 0.
std::uint16_t nearer(std::uint16_t below, double value, DType dtype) {
  const double low = decoded(below, dtype);
  const auto above = static_cast<std::uint16_t>(below + 1);
  // Beyond the largest finite number the next one would be a power of two, were there an exponent left.
  const double high = std::isinf(decoded(above, dtype))
                          ? low + (low - decoded(static_cast<std::uint16_t>(below - 1), dtype))
                          : decoded(above, dtype);
  const double toLow = value - low, toHigh = high - value;
  if (toLow != toHigh) return toLow < toHigh ? below : above;
  return below % 2 == 0 ? below : above;
}

}  // namespace

TEST_CASE("every 16-bit number survives being read and written, to the bit") {
  for (const DType dtype : {DType::kFloat16, DType::kBFloat16}) {
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
      const double value = decoded(static_cast<std::uint16_t>(bits), dtype);
      if (std::isnan(value)) {
        CHECK(std::isnan(decoded(encoded(static_cast<float>(value), dtype), dtype)));
      } else {
        CHECK(encoded(static_cast<float>(value), dtype) == bits);
      }
    }
  }
}

TEST_CASE("what lies between two 16-bit numbers is rounded to the nearer one, ties to even") {
  for (const auto& [dtype, infinity] :
       {std::pair{DType::kFloat16, 0x7C00}, std::pair{DType::kBFloat16, 0x7F80}}) {
    for (int bits = 0; bits < infinity; ++bits) {
      const auto below = static_cast<std::uint16_t>(bits);
      const double low = decoded(below, dtype);
      const auto above = static_cast<std::uint16_t>(below + 1);
      const double high = bits + 1 < infinity
                              ? decoded(above, dtype)
                              : low + (low - decoded(static_cast<std::uint16_t>(below - 1), dtype));
      for (const double share : {0.25, 0.5, 0.75}) {
        const auto value = static_cast<float>(low + share * (high - low));
        if (!std::isfinite(value)) continue;
        const std::uint16_t expected = nearer(below, value, dtype);
        CHECK(encoded(value, dtype) == expected);
        CHECK(encoded(-value, dtype) == (expected | 0x8000));
      }
    }
  }
}

TEST_CASE("wider formats hold a float exactly, and overflow is an infinity") {
  const float values[] = {0.1f, -1e-40f, 3e38f};
  double doubles[3];
  encode(values, 3, DType::kFloat64, reinterpret_cast<unsigned char*>(doubles));
  float floats[3];
  encode(values, 3, DType::kFloat32, reinterpret_cast<unsigned char*>(floats));
  for (int i = 0; i < 3; ++i) {
    CHECK(doubles[i] == values[i]);
    CHECK(floats[i] == values[i]);
  }
  CHECK(encoded(3e38f, DType::kFloat16) == 0x7C00);
  CHECK(encoded(-65520.0f, DType::kFloat16) == 0xFC00);
  CHECK(encoded(65519.0f, DType::kFloat16) == 0x7BFF);
}

}  // namespace loko
