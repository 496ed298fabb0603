#pragma once

#include <atomic>
#include <cstdint>

// The sanitizers bring allocation functions of their own, all or none of which must be theirs.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define LOKO_TEST_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LOKO_TEST_SANITIZED 1
#endif

namespace loko::test {

#ifdef LOKO_TEST_SANITIZED
constexpr bool kCountsAllocations = false;
#else
constexpr bool kCountsAllocations = true;
#endif

/// Calls of operator new so far, by any thread, where they are counted (op_allocations_test.cc).
extern std::atomic<std::int64_t> allocationCount;

/// How many calls of operator new may still succeed, counted in all threads, because those of the pool would
/// have to survive a failure too; negative: all. Without effect where allocations are not counted.
extern std::atomic<std::int64_t> allocationsAllowed;

}  // namespace loko::test
