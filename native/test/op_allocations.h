#pragma once

#include <atomic>
#include <cstdint>

namespace loko::test {

/// Calls of operator new so far, by any thread; op_allocations_test.cc replaces it to count.
extern std::atomic<std::int64_t> allocationCount;

}  // namespace loko::test
