// Fork-join pool of one session: the caller and N - 1 workers run the parts of a region.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "cpu/parking.h"

namespace loko::cpu {

// Physical cores in the affinity mask of this process, limited by the cgroup's CPU quota; at least
// 1. `root` is prepended to the /proc and /sys paths that are read, so that tests can bring their
// own.
int defaultThreads(const std::string& root = "");

// Work is split statically: part i of a region always runs on thread i, so what a part writes never
// depends on timing. Between regions workers spin for at most kSpinMicroseconds, then sleep: a pool
// that spins without bound takes the cores that other processes need.
//
// One thread at a time may call run(), and regions do not nest.
class ThreadPool {
 public:
  static constexpr int kSpinMicroseconds = 40;
  static constexpr int kMaxThreads = 1024;

  // Throws Error(kOption) for threads outside [1, kMaxThreads], Error(kOutOfMemory) when the system
  // refuses a thread.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // Calls fn(part, parts) once for each part of min(threads(), maxParts) parts, and returns when all
  // have ended. Does not allocate. When parts throw, the exception of the lowest part is rethrown
  // after all parts have ended.
  template <typename Fn>
  void run(Fn&& fn, int maxParts = kMaxThreads) {
    using Object = std::remove_reference_t<Fn>;
    runParts([](const void* object, int part,
                int parts) { (*static_cast<Object*>(const_cast<void*>(object)))(part, parts); },
             &fn, maxParts);
  }

 private:
  using Call = void (*)(const void* object, int part, int parts);

  void runParts(Call call, const void* object, int maxParts);
  void work(int part);
  void execute(int part, int parts) noexcept;
  void stop() noexcept;

  const int threads_;
  std::atomic<bool> running_{false};  // a region is open; catches nested ones

  // The open region. Read only by threads that take part in it, and those the caller waits for.
  Call call_ = nullptr;
  const void* object_ = nullptr;
  std::vector<std::exception_ptr> errors_;

  // Low 32 bits: number of the region; high 32 bits: its parts, or kStop. Workers decide from one
  // load of this word whether they take part, so a late one can never see a half-written region.
  WaitableWord region_;
  WaitableWord pending_;  // low 32 bits: parts of the region that workers have not finished
  std::vector<std::thread> workers_;
};

}  // namespace loko::cpu
