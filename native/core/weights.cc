#include "core/weights.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <numeric>

#include "core/rng.h"
#include "core/status.h"

namespace loko {

namespace {

std::int64_t elements(const std::vector<std::int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1},
                         [](std::int64_t a, std::int64_t b) { return a * b; });
}

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

float fromBits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
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

/// The i-th element of raw checkpoint bytes (little-endian, as every supported machine is), exactly.
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

/// One NaN would make every step a skipped one, long after the checkpoint that holds it was loaded.
[[noreturn]] void failNotFinite(const WeightSpec& from, std::int64_t element, double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  throw Error(ErrorCode::kWeightNotFinite,
              "Expected numbers within the range of float32 but the weight " + from.name +
                  " holds " + text + " at element " + std::to_string(element) + " in " + from.file +
                  "; the checkpoint is broken or its training diverged");
}

}  // namespace

struct WeightStore::File {
  int descriptor = -1;
  ~File() {
    if (descriptor >= 0) ::close(descriptor);
  }
};

WeightStore::WeightStore(std::uint64_t seed) : seed_(seed) {}
WeightStore::~WeightStore() = default;

void WeightStore::add(WeightSpec spec) {
  const std::string name = spec.name;
  specs_.insert_or_assign(name, std::move(spec));
}

void WeightStore::open() {
  for (const auto& [name, spec] : specs_) {
    if (spec.file.empty() || files_.count(spec.file) != 0) continue;
    auto file = std::make_unique<File>();
    file->descriptor = ::open(spec.file.c_str(), O_RDONLY | O_CLOEXEC);
    if (file->descriptor < 0) {
      throw Error(ErrorCode::kFileRead, "Cannot open " + spec.file + " (" + std::strerror(errno) +
                                            "), which holds the weight " + name);
    }
    files_.emplace(spec.file, std::move(file));
  }
}

const WeightSpec& WeightStore::spec(const std::string& name) const {
  const auto found = specs_.find(name);
  if (found == specs_.end()) {
    throw Error(ErrorCode::kWeightMissing, "Expected the weight " + name + " but no file has it");
  }
  return found->second;
}

std::vector<float> WeightStore::read(const std::string& name) const {
  const WeightSpec& from = spec(name);
  const std::int64_t count = elements(from.shape);
  std::vector<float> values(static_cast<std::size_t>(count));
  if (from.file.empty()) {
    const RandomStream random(seed_, name);
    if (from.std != 0) {
      for (std::int64_t i = 0; i < count; ++i) {
        values[static_cast<std::size_t>(i)] =
            static_cast<float>(from.std) * random.normal(static_cast<std::uint64_t>(i));
      }
    }
    return values;
  }
  const auto file = files_.find(from.file);
  LOKO_CHECK(file != files_.end(), from.file + " was not opened");
  const int width = bytesPerElement(from.dtype);
  constexpr std::int64_t kChunkElements = 1 << 18;
  std::vector<unsigned char> chunk(static_cast<std::size_t>(kChunkElements * width));
  for (std::int64_t begin = 0; begin < count; begin += kChunkElements) {
    const std::int64_t size = std::min(kChunkElements, count - begin);
    std::int64_t done = 0;
    while (done < size * width) {
      const ssize_t got = ::pread(file->second->descriptor, chunk.data() + done,
                                  static_cast<std::size_t>(size * width - done),
                                  from.offset + begin * width + done);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) {
        throw Error(ErrorCode::kFileRead,
                    "Expected " + std::to_string(count * width) + " bytes of the weight " + name +
                        " at offset " + std::to_string(from.offset) + " of " + from.file +
                        " but the file ended or failed after " +
                        std::to_string(begin * width + done) +
                        (got < 0 ? std::string(" (") + std::strerror(errno) + ")" : std::string()) +
                        "; it was changed while it was being read");
      }
      done += got;
    }
    for (std::int64_t i = 0; i < size; ++i) {
      const double value = elementAt(chunk.data(), from.dtype, i);
      const bool finite = std::fabs(value) <= std::numeric_limits<float>::max();  // not so for NaN
      if (!finite) failNotFinite(from, begin + i, value);
      values[static_cast<std::size_t>(begin + i)] = static_cast<float>(value);
    }
  }
  return values;
}

WeightId WeightTable::matrix(const std::vector<std::string>& names, int in,
                             Orientation orientation) {
  std::string key = orientation == Orientation::kForward ? "forward" : "backward";
  for (const std::string& name : names) key += '\n' + name;
  if (const auto found = packed_.find(key); found != packed_.end()) return found->second;
  std::vector<float> stacked;
  for (const std::string& name : names) {
    const std::vector<float> part = store_.read(name);
    LOKO_CHECK(static_cast<std::int64_t>(part.size()) % in == 0, name + " is not [out, in]");
    stacked.insert(stacked.end(), part.begin(), part.end());
  }
  const int out = static_cast<int>(static_cast<std::int64_t>(stacked.size()) / in);
  const WeightId id = backend_.addMatrix(stacked.data(), out, in, orientation);
  packed_.emplace(std::move(key), id);
  return id;
}

WeightId WeightTable::vector(const std::vector<std::pair<std::string, std::int64_t>>& parts) {
  std::string key = "vector";
  bool any = false;
  for (const auto& [name, size] : parts) {
    key += '\n' + name + ':' + std::to_string(size);
    any = any || !name.empty();
  }
  if (!any) return kNoWeight;
  if (const auto found = packed_.find(key); found != packed_.end()) return found->second;
  std::vector<float> stacked;
  for (const auto& [name, size] : parts) {
    if (name.empty()) {
      stacked.insert(stacked.end(), static_cast<std::size_t>(size), 0.0F);
      continue;
    }
    const std::vector<float> part = store_.read(name);
    LOKO_CHECK(static_cast<std::int64_t>(part.size()) == size, name + " has an unexpected size");
    stacked.insert(stacked.end(), part.begin(), part.end());
  }
  const WeightId id = backend_.addVector(stacked.data(), static_cast<std::int64_t>(stacked.size()));
  packed_.emplace(std::move(key), id);
  return id;
}

}  // namespace loko
