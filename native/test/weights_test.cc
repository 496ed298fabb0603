#include "core/weights.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <limits>

#include "core/status.h"
#include "cpu/cpu_backend.h"
#include "doctest/doctest.h"

namespace loko {

namespace {

/// A file that goes away with the test.
class ScratchFile {
 public:
  explicit ScratchFile(const std::vector<unsigned char>& bytes) {
    char pattern[] = "/tmp/loko-weights-XXXXXX";
    const int descriptor = mkstemp(pattern);
    REQUIRE(descriptor >= 0);
    close(descriptor);
    path = pattern;
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }
  ~ScratchFile() { std::remove(path.c_str()); }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  std::string path;
};

WeightSpec fileSpec(const ScratchFile& file, DType dtype, std::int64_t count,
                    std::int64_t offset = 0) {
  WeightSpec spec;
  spec.name = "w";
  spec.shape = {count};
  spec.file = file.path;
  spec.offset = offset;
  spec.dtype = dtype;
  return spec;
}

std::vector<float> readOnly(const WeightSpec& spec) {
  WeightStore store(0);
  store.add(spec);
  store.open();
  return store.read("w");
}

}  // namespace

TEST_CASE("float16 bits become the float32 values of IEEE 754") {
  // one, smallest subnormal, largest subnormal, largest normal, -2, largest normal negated, -0
  const std::vector<unsigned char> bytes{0x00, 0x3C, 0x01, 0x00, 0xFF, 0x03, 0xFF,
                                         0x7B, 0x00, 0xC0, 0xFF, 0xFB, 0x00, 0x80};
  const ScratchFile file(bytes);
  const std::vector<float> values = readOnly(fileSpec(file, DType::kFloat16, 7));
  CHECK(values[0] == 1.0F);
  CHECK(values[1] == 0x1p-24F);
  CHECK(values[2] == 1023 * 0x1p-24F);
  CHECK(values[3] == 65504.0F);
  CHECK(values[4] == -2.0F);
  CHECK(values[5] == -65504.0F);
  CHECK(values[6] == 0.0F);
  CHECK(std::signbit(values[6]));
}

TEST_CASE("bfloat16 bits are the upper half of float32") {
  const ScratchFile file({0x80, 0x3F, 0x49, 0xC0});
  const std::vector<float> values = readOnly(fileSpec(file, DType::kBFloat16, 2));
  CHECK(values[0] == 1.0F);
  CHECK(values[1] == -3.140625F);
}

TEST_CASE("float64 rounds to float32, and an offset is respected") {
  std::vector<unsigned char> bytes(8 + 16);
  const double numbers[] = {0.1, -1e10};
  std::memcpy(bytes.data() + 8, numbers, 16);
  const ScratchFile file(bytes);
  const std::vector<float> values = readOnly(fileSpec(file, DType::kFloat64, 2, 8));
  CHECK(values[0] == 0.1F);
  CHECK(values[1] == -1e10F);
}

TEST_CASE("a weight that is not finite is refused with its name, file, element and value") {
  const double infinity = std::numeric_limits<double>::infinity();
  struct Case {
    DType dtype;
    std::vector<unsigned char> element;
    const char* value;
  };
  const auto bytesOf = [](auto value) {
    std::vector<unsigned char> bytes(sizeof value);
    std::memcpy(bytes.data(), &value, sizeof value);
    return bytes;
  };
  const Case cases[] = {
      {DType::kFloat32, bytesOf(std::numeric_limits<float>::quiet_NaN()), "nan"},
      {DType::kFloat32, bytesOf(static_cast<float>(-infinity)), "-inf"},
      {DType::kFloat16, {0x00, 0x7C}, "inf"},
      {DType::kFloat16, {0x01, 0xFC}, "nan"},
      {DType::kBFloat16, {0x80, 0x7F}, "inf"},
      {DType::kFloat64, bytesOf(infinity), "inf"},
      {DType::kFloat64, bytesOf(1e39), "1e+39"},  // finite, and infinite once it is a float32
  };
  // Beyond one chunk of the reader, so that the index is that of the weight.
  constexpr std::int64_t kBefore = (1 << 18) + 3;
  for (const Case& broken : cases) {
    const std::size_t width = broken.element.size();
    std::vector<unsigned char> bytes((kBefore + 2) * width, 0);
    std::copy(broken.element.begin(), broken.element.end(),
              bytes.begin() + static_cast<std::ptrdiff_t>(kBefore * width));
    const ScratchFile file(bytes);
    try {
      readOnly(fileSpec(file, broken.dtype, kBefore + 2));
      FAIL_CHECK("expected an error for " << std::string(broken.value));
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kWeightNotFinite);
      const std::string message = error.what();
      CHECK(message.find("weight w ") != std::string::npos);
      CHECK(message.find(file.path) != std::string::npos);
      CHECK(message.find("element " + std::to_string(kBefore)) != std::string::npos);
      const std::string value = std::string(" ") + broken.value + " ";
      const std::string negated = std::string(" -") + broken.value + " ";
      CHECK(
          (message.find(value) != std::string::npos || message.find(negated) != std::string::npos));
    }
  }
}

TEST_CASE("a file cut short after it was opened is a coded error, not a crash") {
  const ScratchFile file(std::vector<unsigned char>(4000, 0));
  WeightStore store(0);
  store.add(fileSpec(file, DType::kFloat32, 1000));
  store.open();
  CHECK(store.read("w").size() == 1000);
  REQUIRE(truncate(file.path.c_str(), 1000) == 0);
  try {
    store.read("w");
    FAIL("expected an error");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kFileRead);
    CHECK(std::string(error.what()).find(file.path) != std::string::npos);
  }
}

TEST_CASE("a part of a weight is what the whole has there, drawn, stored or replaced") {
  std::vector<unsigned char> bytes(4 * 24);
  for (int i = 0; i < 24; ++i) {
    const float value = 0.5F * static_cast<float>(i);
    std::memcpy(bytes.data() + 4 * i, &value, 4);
  }
  const ScratchFile file(bytes);
  WeightSpec drawn;
  drawn.name = "drawn";
  drawn.shape = {6, 4};
  drawn.std = 0.02;
  WeightStore store(5);
  store.add(fileSpec(file, DType::kFloat32, 24));
  store.add(drawn);
  store.open();
  const auto check = [&](const std::string& name) {
    const std::vector<float> whole = store.read(name);
    std::vector<float> row(4);
    store.read(name, 8, 4, row.data());
    CHECK(std::equal(row.begin(), row.end(), whole.begin() + 8));
    CHECK(row[0] != row[1]);
    CHECK_THROWS_AS(store.read(name, 22, 4, row.data()), Error);
  };
  check("w");
  check("drawn");
  std::vector<float> other(24);
  for (std::size_t i = 0; i < 24; ++i) other[i] = static_cast<float>(i * i);
  store.replace("w", other);
  check("w");
}

TEST_CASE("a table is checked when it is added and read by rows when they are used") {
  std::vector<unsigned char> bytes(4 * 12, 0);
  const float one = 1;
  std::memcpy(bytes.data() + 4 * 4, &one, 4);  // row 1, column 0 of [3, 4]
  const ScratchFile file(bytes);
  WeightStore store(0);
  WeightSpec spec = fileSpec(file, DType::kFloat32, 12);
  spec.shape = {3, 4};
  store.add(spec);
  store.open();
  const auto backend = cpu::makeCpuBackend(1);
  WeightTable table(store, *backend);
  EmbedTokens step;
  step.words = step.positions = step.types = table.table("w", 3, 4);
  CHECK(table.table("w", 3, 4) == step.words);
  CHECK_THROWS_AS(table.table("absent", 3, 4), Error);

  step.vocabulary = step.positionCount = step.typeCount = 3;
  step.ids = {Space::kInput, 0, 1, 1, 1, 1};
  step.positionIds = step.typeIds = step.ids;
  step.out = {Space::kScratch, 0, 1, 4, 4, 4};
  backend->reserve(Space::kInput, 1);
  backend->reserve(Space::kScratch, 4);
  const auto embed = [&](float id) {
    backend->write(Space::kInput, 0, &id, 1);
    backend->run(step, Frame{});
    float first = 0;
    backend->read(Space::kScratch, 0, &first, 1);
    return first;
  };
  CHECK(embed(1) == 3);  // the same row three times
  REQUIRE(truncate(file.path.c_str(), 16) == 0);
  CHECK(embed(1) == 3);  // it is there already
  for (int attempt = 0; attempt < 2; ++attempt) {
    try {
      embed(2);
      FAIL("expected an error");
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kFileRead);
    }
  }
  CHECK(embed(0) == 0);  // what is left of the file can be used
}

TEST_CASE("a file deleted after it was opened can still be read") {
  const ScratchFile file(std::vector<unsigned char>(8, 0));
  WeightStore store(0);
  store.add(fileSpec(file, DType::kFloat32, 2));
  store.open();
  std::remove(file.path.c_str());
  CHECK(store.read("w") == std::vector<float>{0, 0});
}

TEST_CASE("missing files and missing weights are named") {
  WeightStore store(0);
  WeightSpec spec;
  spec.name = "w";
  spec.shape = {1};
  spec.file = "/nowhere/model.safetensors";
  store.add(spec);
  CHECK_THROWS_WITH_AS(store.open(), doctest::Contains("/nowhere/model.safetensors"), Error);
  CHECK_THROWS_WITH_AS(store.read("other"), doctest::Contains("other"), Error);
}

TEST_CASE("a new head is drawn by its name and seed alone") {
  const auto draw = [](std::uint64_t seed, bool withOther) {
    WeightStore store(seed);
    WeightSpec spec;
    spec.name = "classifier.weight";
    spec.shape = {3, 4};
    spec.std = 0.02;
    if (withOther) {
      WeightSpec other = spec;
      other.name = "a";
      store.add(other);
    }
    store.add(spec);
    store.open();
    return store.read("classifier.weight");
  };
  CHECK(draw(1, false) == draw(1, true));
  CHECK(draw(1, false) != draw(2, false));
}

TEST_CASE("values that the caller has computed are the weight, with no file") {
  WeightStore store(0);
  WeightSpec spec;
  spec.name = "positions";
  spec.shape = {1, 2, 2};
  spec.values = {1, -2, 3, 0.5F};
  store.add(spec);
  store.open();
  CHECK(store.read("positions") == std::vector<float>{1, -2, 3, 0.5F});
}

}  // namespace loko
