#pragma once

// The number formats of checkpoints, little-endian as every supported machine is.

#include <cstdint>

namespace loko {

enum class DType : std::uint8_t { kFloat32, kFloat16, kBFloat16, kFloat64 };

int bytesPerElement(DType dtype);

/// The i-th element of raw bytes, exactly.
double elementAt(const unsigned char* bytes, DType dtype, std::int64_t i);

/// Writes `count` values, rounded to nearest (ties to even); what a format cannot hold becomes an
/// infinity.
void encode(const float* values, std::int64_t count, DType dtype, unsigned char* bytes);

}  // namespace loko
