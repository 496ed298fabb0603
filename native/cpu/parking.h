// A 64-bit atomic word on which threads wait, first spinning for a bounded time, then asleep.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace loko::cpu {

class alignas(64) WaitableWord {
 public:
  std::uint64_t load() const { return value_.load(std::memory_order_acquire); }

  // Sets or adds, then wakes every sleeper.
  void publish(std::uint64_t value);
  // Returns the new value; wakes sleepers when it is zero.
  std::uint64_t decrement();
  void setQuietly(std::uint64_t value) { value_.store(value, std::memory_order_relaxed); }

  // Returns the value as soon as it differs from `old`.
  std::uint64_t waitWhileEqual(std::uint64_t old, int spinMicroseconds);

 private:
  void sleepWhileEqual(std::uint64_t old);
  void wakeSleepers();

  std::atomic<std::uint64_t> value_{0};
  std::atomic<int> sleepers_{0};
#if !defined(__linux__)
  std::mutex mutex_;
  std::condition_variable changed_;
#endif
};

}  // namespace loko::cpu
