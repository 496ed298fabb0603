// Fork-join pool for one session: the caller and N - 1 workers run the parts of a region.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <type_traits>
#include <vector>

namespace loko::cpu {

// Physical cores in the affinity mask of this process, limited by the cgroup's CPU quota; at
// least 1.
int defaultThreads();

// Work is split statically: part i of a region always runs on thread i, so what a part writes does
// not depend on timing. Between regions workers spin for at most kSpinMicroseconds, then sleep.
//
// One thread at a time may call run(); regions do not nest. The pool belongs to one session.
class ThreadPool {
 public:
  static constexpr int kSpinMicroseconds = 40;

  // Throws Error(kOption) for threads < 1 or > 1024.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // Calls fn(part, parts) once for each part in [0, parts), parts = min(threads(), maxParts), and
  // returns when all have finished. Does not allocate. When parts throw, the exception of the
  // lowest part is rethrown here after all parts have ended.
  template <typename Fn>
  void run(Fn&& fn, int maxParts = 1 << 30) {
    auto call = [](void* object, int part, int parts) {
      (*static_cast<std::remove_reference_t<Fn>*>(object))(part, parts);
    };
    runParts(call, const_cast<void*>(static_cast<const void*>(&fn)), maxParts);
  }

 private:
  using Call = void (*)(void* object, int part, int parts);
  struct Worker;

  void runParts(Call call, void* object, int maxParts);
  void work(int part);
  void execute(int part) noexcept;
  void stop() noexcept;

  int threads_;
  bool running_ = false;  // caller side only: catches nested regions

  // The region being run; written by the caller before `generation_` changes.
  Call call_ = nullptr;
  void* object_ = nullptr;
  int parts_ = 0;
  std::vector<std::exception_ptr> errors_;

  // Bit 31..1: number of the region; bit 0: shutting down.
  alignas(64) std::atomic<std::uint32_t> generation_{0};
  std::atomic<std::int32_t> sleepers_{0};
  alignas(64) std::atomic<std::int32_t> pending_{0};
  std::atomic<bool> callerSleeps_{false};
  struct Parking;
  std::unique_ptr<Parking> parking_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace loko::cpu
