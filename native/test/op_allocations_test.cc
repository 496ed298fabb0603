// The allocation functions of the test executable. They stand alone because a compiler that sees
// them beside their callers takes malloc and free for a mismatch. The array and nothrow forms of the
// standard library call these.

#include "op_allocations.h"

#include <cstdlib>
#include <new>

#include <doctest/doctest.h>

namespace loko::test {

std::atomic<std::int64_t> allocationCount{0};
std::atomic<std::int64_t> allocationsAllowed{-1};

}  // namespace loko::test

#ifndef LOKO_TEST_SANITIZED

namespace {

void countAllocation() {
  ++loko::test::allocationCount;
  std::atomic<std::int64_t>& allowed = loko::test::allocationsAllowed;
  if (allowed >= 0 && allowed.fetch_sub(1) == 0) throw std::bad_alloc();
}

}  // namespace

void* operator new(std::size_t size) {
  countAllocation();
  if (void* memory = std::malloc(size > 0 ? size : 1)) return memory;
  throw std::bad_alloc();
}

void* operator new(std::size_t size, std::align_val_t alignment) {
  countAllocation();
  const auto unit = static_cast<std::size_t>(alignment);
  if (void* memory = std::aligned_alloc(unit, (size + unit) / unit * unit)) return memory;
  throw std::bad_alloc();
}

void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}

TEST_CASE("Allocations are counted, or the checks that there are none would say nothing") {
  const std::int64_t before = loko::test::allocationCount;
  // Called by name: a compiler may leave out new-expressions.
  ::operator delete(::operator new(3));
  ::operator delete[](::operator new[](3));
  ::operator delete[](::operator new[](3, std::align_val_t(64)), std::align_val_t(64));
  ::operator delete[](::operator new[](3, std::align_val_t(64), std::nothrow),
                      std::align_val_t(64));
  const std::int64_t counted = loko::test::allocationCount - before;
  CHECK(counted == 4);
}

#endif
