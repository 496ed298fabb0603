#include "core/dtype.h"

#include <cstring>

namespace loko {

namespace {

float fromBits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

std::uint32_t bitsOf(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

float halfToFloat(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1Fu;
  const std::uint32_t mantissa = half & 0x3FFu;
  if (exponent == 0x1F) return fromBits(sign | 0x7F800000u | (mantissa << 13));
  if (exponent != 0) return fromBits(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float subnormal = static_cast<float>(mantissa) * 0x1p-24f;
  return sign != 0 ? -subnormal : subnormal;
}

/// Drops the lowest `shift` bits, rounding to nearest, ties to even. A carry out of the mantissa is the
/// next exponent, as it should be.
std::uint32_t roundBits(std::uint32_t bits, int shift) {
  const std::uint32_t half = (1u << (shift - 1)) - 1;
  return (bits + half + ((bits >> shift) & 1u)) >> shift;
}

std::uint16_t floatToHalf(float value) {
  const std::uint32_t bits = bitsOf(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<std::uint16_t>(sign | 0x7E00u);  // NaN
  if (magnitude < 0x38800000u) {
    // Below 2^-14: the sum with 1/2 has the subnormal's mantissa in its lowest bits, rounded.
    const std::uint32_t subnormal = bitsOf(fromBits(magnitude) + 0.5f) - bitsOf(0.5f);
    return static_cast<std::uint16_t>(sign | subnormal);
  }
  const std::uint32_t rounded = roundBits(magnitude - (112u << 23), 13);
  return static_cast<std::uint16_t>(sign | (rounded < 0x7C00u ? rounded : 0x7C00u));
}

std::uint16_t floatToBFloat16(float value) {
  const std::uint32_t bits = bitsOf(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>(roundBits(bits, 16));
}

}  // namespace

int bytesPerElement(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return 8;
    case DType::kFloat32:
      return 4;
    case DType::kFloat16:
    case DType::kBFloat16:
      return 2;
  }
  return 0;
}

double elementAt(const unsigned char* bytes, DType dtype, std::int64_t i) {
  switch (dtype) {
    case DType::kFloat32: {
      float value;
      std::memcpy(&value, bytes + 4 * i, 4);
      return value;
    }
    case DType::kFloat64: {
      double value;
      std::memcpy(&value, bytes + 8 * i, 8);
      return value;
    }
    case DType::kFloat16:
    case DType::kBFloat16: {
      std::uint16_t value;
      std::memcpy(&value, bytes + 2 * i, 2);
      return dtype == DType::kFloat16 ? halfToFloat(value)
                                      : fromBits(static_cast<std::uint32_t>(value) << 16);
    }
  }
  return 0;
}

void encode(const float* values, std::int64_t count, DType dtype, unsigned char* bytes) {
  switch (dtype) {
    case DType::kFloat32:
      std::memcpy(bytes, values, static_cast<std::size_t>(count) * sizeof(float));
      return;
    case DType::kFloat64:
      for (std::int64_t i = 0; i < count; ++i) {
        const double value = values[i];
        std::memcpy(bytes + 8 * i, &value, 8);
      }
      return;
    case DType::kFloat16:
    case DType::kBFloat16:
      for (std::int64_t i = 0; i < count; ++i) {
        const std::uint16_t value =
            dtype == DType::kFloat16 ? floatToHalf(values[i]) : floatToBFloat16(values[i]);
        std::memcpy(bytes + 2 * i, &value, 2);
      }
      return;
  }
}

}  // namespace loko
