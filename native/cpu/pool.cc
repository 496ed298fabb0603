#include "cpu/pool.h"

#include <algorithm>
#include <system_error>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <signal.h>
#endif

#include "core/status.h"

namespace loko::cpu {

namespace {

constexpr std::uint32_t kStop = UINT32_MAX;

std::uint64_t regionWord(std::uint32_t number, std::uint32_t parts) {
  return std::uint64_t{parts} << 32 | number;
}

// Workers inherit the signal mask: while one of these lives, new threads leave all signals to the
// threads of the host program.
class SignalsBlocked {
 public:
#if defined(__unix__) || defined(__APPLE__)
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &previous_);
  }
  ~SignalsBlocked() {
    pthread_sigmask(SIG_SETMASK, &previous_, nullptr);
  }

 private:
  sigset_t previous_;
#endif
};

}  // namespace

ThreadPool::ThreadPool(int threads) : threads_(threads) {
  if (threads < 1 || threads > kMaxThreads)
    throw Error(ErrorCode::kOption, "threads must be an integer from 1 to " +
                                        std::to_string(kMaxThreads) + ", got " +
                                        std::to_string(threads));
  errors_.resize(static_cast<std::size_t>(threads));
  workers_.reserve(static_cast<std::size_t>(threads) - 1);
  const SignalsBlocked blocked;
  try {
    for (int part = 1; part < threads; ++part) workers_.emplace_back([this, part] { work(part); });
  } catch (const std::system_error& error) {
    const std::size_t started = workers_.size() + 1;
    stop();
    throw Error(ErrorCode::kOutOfMemory,
                "The system refused thread " + std::to_string(started + 1) + " of " +
                    std::to_string(threads) + " (" + error.what() + "); use fewer threads");
  }
}

ThreadPool::~ThreadPool() {
  stop();
}

void ThreadPool::stop() noexcept {
  const auto number = static_cast<std::uint32_t>(region_.load());
  region_.publish(regionWord(number + 1, kStop));
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

void ThreadPool::runParts(Call call, const void* object, int maxParts) {
  LOKO_CHECK(maxParts >= 1, "parts of a region");
  LOKO_CHECK(!running_.exchange(true, std::memory_order_relaxed),
             "regions of a thread pool do not nest");
  const int parts = std::min(threads_, maxParts);
  call_ = call;
  object_ = object;
  if (parts > 1) {
    pending_.setQuietly(static_cast<std::uint64_t>(parts) - 1);
    const auto number = static_cast<std::uint32_t>(region_.load());
    region_.publish(regionWord(number + 1, static_cast<std::uint32_t>(parts)));
  }
  execute(0, parts);
  if (parts > 1)
    for (std::uint64_t left = pending_.load(); left != 0;)
      left = pending_.waitWhileEqual(left, kSpinMicroseconds);
  running_.store(false, std::memory_order_relaxed);

  std::exception_ptr first;
  for (int part = parts - 1; part >= 0; --part) {
    std::exception_ptr& error = errors_[static_cast<std::size_t>(part)];
    if (error) first = std::exchange(error, nullptr);
  }
  if (first) std::rethrow_exception(first);
}

void ThreadPool::execute(int part, int parts) noexcept {
  try {
    call_(object_, part, parts);
  } catch (...) {
    errors_[static_cast<std::size_t>(part)] = std::current_exception();
  }
}

void ThreadPool::work(int part) {
  std::uint64_t seen = 0;
  for (;;) {
    seen = region_.waitWhileEqual(seen, kSpinMicroseconds);
    const auto parts = static_cast<std::uint32_t>(seen >> 32);
    if (parts == kStop) return;
    if (part >= static_cast<int>(parts)) continue;
    execute(part, static_cast<int>(parts));
    pending_.decrement();
  }
}

}  // namespace loko::cpu
