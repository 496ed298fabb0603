// The allocation functions of the test executable. They stand alone because a compiler that sees them
// beside their callers takes malloc and free for a mismatch. The array and nothrow forms of the
// standard library call these.

#include "op_allocations.h"

#include <cstdlib>
#include <new>

namespace loko::test {

std::atomic<std::int64_t> allocationCount{0};

}  // namespace loko::test

void* operator new(std::size_t size) {
  ++loko::test::allocationCount;
  if (void* memory = std::malloc(size > 0 ? size : 1)) return memory;
  throw std::bad_alloc();
}

void* operator new(std::size_t size, std::align_val_t alignment) {
  ++loko::test::allocationCount;
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
