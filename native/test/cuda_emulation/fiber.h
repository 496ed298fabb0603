#pragma once

// Stackful coroutines: the threads of an emulated block. A fiber runs on the host thread that resumes
// it until it suspends itself or its entry function returns. One fiber runs at a time in the process
// (the device's lock sees to that).
//
// Kernels meet at barriers millions of times in the tests. So on x86-64 the switch is inlined: it costs
// a few loads and stores, while a call would also return through frames that the processor predicts
// wrong after each change of stacks. Elsewhere, and under the sanitizers, which must be told, ucontext
// or a call does it.

#include <cstddef>

#if !defined(LOKO_PORTABLE_FIBERS) && !defined(__x86_64__)
#define LOKO_PORTABLE_FIBERS
#endif

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
  void resume() {
    running = this;
    enterStack();
  }

  /// Called inside a fiber: back to the caller of resume().
  static void suspend() { running->leaveStack(false); }

 private:
  struct Context;  // what the portable switch and the sanitizers need

  static void main();
  void enterStack();
  void leaveStack(bool forGood);

  static inline Fiber* running = nullptr;

  void *inside_ = nullptr, *outside_ = nullptr;  // saved stack pointers
  void (*entry_)() = nullptr;
  char *mapping_ = nullptr, *stack_ = nullptr, *top_ = nullptr;
  Context* context_ = nullptr;
};

#if !defined(LOKO_PORTABLE_FIBERS)
// Leaves the running stack, its top saved in *from, for the one saved in `to`. The compiler keeps what
// it needs of the registers; the frame pointer, which it may not give up, is pushed below the red zone.
// The floating-point control words are never changed here.
[[gnu::always_inline]] inline void switchStack(void** from, void* to) {
  asm volatile(
      "leaq -128(%%rsp), %%rsp\n\t"
      "leaq 1f(%%rip), %%rax\n\t"
      "pushq %%rbp\n\t"
      "pushq %%rax\n\t"
      "movq %%rsp, (%%rdi)\n\t"
      "movq %%rsi, %%rsp\n\t"
      "popq %%rax\n\t"
      "popq %%rbp\n\t"
      "leaq 128(%%rsp), %%rsp\n\t"
      "jmpq *%%rax\n"
      "1:\n\t"
      : "+D"(from), "+S"(to)
      :
      : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0",
        "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
        "xmm12", "xmm13", "xmm14", "xmm15", "cc", "memory");
}
#endif

#if defined(LOKO_PORTABLE_FIBERS) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LOKO_FIBER_CONTEXT
#else
inline void Fiber::enterStack() {
  switchStack(&outside_, inside_);
}
inline void Fiber::leaveStack(bool) {
  switchStack(&inside_, outside_);
}
#endif

}  // namespace loko::emulation
