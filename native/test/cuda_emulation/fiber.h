#pragma once

// Stackful coroutines: the threads of an emulated block. A fiber runs on the host thread that
// resumes it until it suspends itself or its entry function returns.

#include <cstddef>

namespace loko::emulation {

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Prepares a call of `entry`, which must not throw. What the fiber was doing before is abandoned
  /// without running destructors.
  void start(void (*entry)());

  /// Runs the fiber; returns when it has suspended itself or ended.
  void resume();

  /// Called inside a fiber: back to the caller of resume().
  static void suspend();

 private:
  struct Context;
  static void enter();
  void leave(bool forGood);

  Context* context_;
};

}  // namespace loko::emulation
