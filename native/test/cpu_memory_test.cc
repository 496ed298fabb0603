#include <doctest/doctest.h>

#include <cstdint>
#include <fstream>
#include <string>

#include "core/status.h"
#include "cpu/cpu_backend.h"
#include "cpu/memory.h"

namespace loko::cpu {
namespace {

constexpr std::int64_t kImpossible = std::int64_t{1} << 60;  // floats: beyond any address space

std::int64_t residentPages() {
  std::int64_t total = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident;
}

template <typename Fn>
std::string outOfMemoryMessage(Fn&& fn) {
  try {
    fn();
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kOutOfMemory);
    return error.what();
  }
  FAIL("no error");
  return {};
}

TEST_CASE("Memory that cannot be had is an error that names the bytes, and leaves what was there") {
  MappedFloats memory("a test");
  memory.grow(3);
  memory.data()[2] = 7;
  const std::string message = outOfMemoryMessage([&] { memory.grow(kImpossible); });
  CHECK(message.find(std::to_string(kImpossible) + " floats") != std::string::npos);
  CHECK(message.find("a test") != std::string::npos);
  CHECK(memory.size() == 3);
  CHECK(memory.data()[2] == 7);
}

TEST_CASE("A Jacobian that cannot be had is an error, and the backend keeps the one it has") {
  const auto backend = makeCpuBackend(1);
  backend->reserveJacobian(1, 2);
  const float row[2] = {1, 2};
  backend->write(Space::kJacobian, 0, row, 2);
  outOfMemoryMessage([&] { backend->reserveJacobian(kImpossible, 1); });
  // The product of the extents does not fit 64 bits.
  outOfMemoryMessage([&] { backend->reserveJacobian(kImpossible, kImpossible); });
  float kept[2] = {};
  backend->read(Space::kJacobian, 0, kept, 2);
  CHECK(kept[0] == 1);
  CHECK(kept[1] == 2);
}

TEST_CASE("Gram workspace for more rows than any memory holds is an error that says so") {
  WorkspaceHint hint;
  hint.maxGramRows = 2'000'000'000;
  // Half of rows^2 products in float64, 1.6e19 bytes: the number that overflowing ints gave was not.
  const std::string message = outOfMemoryMessage([&] { makeCpuBackend(1)->prepare({}, hint); });
  CHECK(message.find("2000000000 rows") != std::string::npos);
}

TEST_CASE("Reserved memory is zero and costs nothing until it is touched") {
  if (residentPages() == 0) {
    MESSAGE("not tested: no /proc/self/statm");
    return;
  }
  const std::int64_t before = residentPages();
  MappedFloats memory("a test");
  memory.grow(std::int64_t{1} << 30);  // 4 GiB
  CHECK(memory.data()[memory.size() - 1] == 0);
  memory.data()[0] = 1;
  // Two pages (512 of 4 KiB each where they are huge ones) and what else the process did meanwhile.
  CHECK(residentPages() - before < 4096);
}

TEST_CASE("Weights lie side by side, zero, at cache lines, and give their pages back") {
  WeightArena arena;
  const std::size_t floats = (std::size_t{1} << 20) + 3;
  float* first = arena.allocate(floats);
  float* second = arena.allocate(floats);
  CHECK(second == first + (floats + 15) / 16 * 16);
  CHECK(reinterpret_cast<std::uintptr_t>(second) % 64 == 0);
  CHECK(first[floats - 1] == 0);
  first[floats - 1] = 2;
  first[5000] = 3;
  second[0] = 4;
  const std::size_t large = std::size_t{1} << 25;  // longer than a chunk
  CHECK(arena.allocate(large)[large - 1] == 0);
  WeightArena::release(first, floats);
  CHECK(first[5000] == 0);  // its pages were given back: they would be zero again
  CHECK(second[0] == 4);
  CHECK_THROWS_AS(arena.allocate(static_cast<std::size_t>(kImpossible)), Error);
}

TEST_CASE("Rows of a table are read once, when they are first used") {
  int reads = 0;
  bool fails = false;
  RowTable table(1000, 3, [&](int row, float* target) {
    if (fails) throw Error(ErrorCode::kFileRead, "gone");
    ++reads;
    for (int c = 0; c < 3; ++c) target[c] = static_cast<float>(10 * row + c);
  });
  CHECK(table.row(7) == nullptr);
  for (const int row : {7, 999, 7, 0, 999}) table.load(row);
  CHECK(reads == 3);
  CHECK(table.row(999)[2] == 9992);
  CHECK(table.row(7)[0] == 70);
  fails = true;
  CHECK_THROWS_AS(table.load(8), Error);
  CHECK(table.row(8) == nullptr);
  fails = false;
  table.load(8);
  CHECK(table.row(8)[1] == 81);
}

TEST_CASE("Memory keeps its contents when asked to, and never shrinks") {
  MappedFloats memory("a test");
  memory.grow(2);
  memory.data()[1] = 5;
  memory.grow(100000, true);
  CHECK(memory.data()[1] == 5);
  CHECK(memory.data()[99999] == 0);
  memory.grow(1);
  CHECK(memory.size() == 100000);
}

}  // namespace
}  // namespace loko::cpu
