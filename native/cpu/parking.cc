#include "cpu/parking.h"

#include <chrono>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace loko::cpu {

namespace {

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield" ::: "memory");
#endif
}

}  // namespace

void WaitableWord::publish(std::uint64_t value) {
  value_.store(value, std::memory_order_seq_cst);
  wakeSleepers();
}

std::uint64_t WaitableWord::decrement() {
  const std::uint64_t left = value_.fetch_sub(1, std::memory_order_seq_cst) - 1;
  if (left == 0) wakeSleepers();
  return left;
}

std::uint64_t WaitableWord::waitWhileEqual(std::uint64_t old, int spinMicroseconds) {
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + std::chrono::microseconds(spinMicroseconds);
  do {
    for (int i = 0; i < 16; ++i) {
      const std::uint64_t value = load();
      if (value != old) return value;
      pause();
    }
  } while (Clock::now() < deadline);
  while (load() == old) sleepWhileEqual(old);
  return load();
}

// Sleeping and waking cannot miss each other: the sleeper announces itself before it compares the
// value, the waker changes the value before it looks for sleepers, all sequentially consistent.
#if defined(__linux__)

namespace {

// The kernel compares 32 bits: the low half of the word, which changes with every publication.
std::uint32_t* lowHalf(std::atomic<std::uint64_t>* value) {
  auto* halves = reinterpret_cast<std::uint32_t*>(value);
  return halves + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 1 : 0);
}

}  // namespace

void WaitableWord::sleepWhileEqual(std::uint64_t old) {
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  syscall(SYS_futex, lowHalf(&value_), FUTEX_WAIT_PRIVATE, static_cast<std::uint32_t>(old), nullptr,
          nullptr, 0);
  sleepers_.fetch_sub(1, std::memory_order_seq_cst);
}

void WaitableWord::wakeSleepers() {
  if (sleepers_.load(std::memory_order_seq_cst) > 0)
    syscall(SYS_futex, lowHalf(&value_), FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
}

#else

void WaitableWord::sleepWhileEqual(std::uint64_t old) {
  std::unique_lock<std::mutex> lock(mutex_);
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  changed_.wait(lock, [&] { return value_.load(std::memory_order_seq_cst) != old; });
  sleepers_.fetch_sub(1, std::memory_order_seq_cst);
}

void WaitableWord::wakeSleepers() {
  if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
  // Taking the mutex orders this after the sleeper's check of the value.
  { const std::lock_guard<std::mutex> lock(mutex_); }
  changed_.notify_all();
}

#endif

}  // namespace loko::cpu
