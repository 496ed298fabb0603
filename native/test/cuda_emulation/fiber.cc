#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <memory>
#include <new>

#if defined(LOKO_PORTABLE_FIBERS)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace loko::emulation {
namespace {

// The sanitizer keeps a call stack of its own for each fiber, of at most 65,536 calls. A function that is left
// for good never returns, so it must not be on that stack: a fiber is started anew for every thread of a block.
#if defined(__SANITIZE_THREAD__)
#define LOKO_NOT_ON_SHADOW_STACK __attribute__((no_sanitize("thread")))
#else
#define LOKO_NOT_ON_SHADOW_STACK
#endif

constexpr std::size_t kStackBytes = std::size_t{256} << 10;

std::size_t pageBytes() {
  return static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

struct Fiber::Context {
#if defined(LOKO_PORTABLE_FIBERS)
  ucontext_t inside, outside;
#endif
#if defined(__SANITIZE_ADDRESS__)
  void *fakeInside = nullptr, *fakeOutside = nullptr;
  const void* outerStack = nullptr;
  std::size_t outerBytes = 0;
#endif
#if defined(__SANITIZE_THREAD__)
  void *fiberInside = __tsan_create_fiber(0), *fiberOutside = nullptr;
  ~Context() {
    __tsan_destroy_fiber(fiberInside);
  }
#endif
};

// The lowest page is a guard: an overflow stops there.
Fiber::Fiber() {
  static std::size_t made = 0;
  const std::size_t page = pageBytes();
  void* mapping = mmap(nullptr, page + kStackBytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  mapping_ = static_cast<char*>(mapping);
  mprotect(mapping_, page, PROT_NONE);
  stack_ = mapping_ + page;
  // Stacks that all began at the same offset in a page would compete for the same cache sets.
  top_ = stack_ + kStackBytes - (made++ % 61) * 64;
  context_ = new Context;
}

Fiber::~Fiber() {
  delete context_;
  munmap(mapping_, pageBytes() + kStackBytes);
}

void Fiber::start(void (*entry)()) {
  entry_ = entry;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(stack_, kStackBytes);
  context_->fakeInside = nullptr;
#endif
#if defined(LOKO_PORTABLE_FIBERS)
  ucontext_t& context = context_->inside;
  getcontext(&context);
  context.uc_stack.ss_sp = stack_;
  context.uc_stack.ss_size = static_cast<std::size_t>(top_ - stack_);
  context.uc_link = nullptr;
  makecontext(&context, &Fiber::main, 0);
#else
  // What switchStack() pops, then the red zone that it skips, then main()'s return address: none. The
  // stack pointer is then 8 below a multiple of 16, as the calling convention wants it.
  auto* words = reinterpret_cast<void**>(reinterpret_cast<std::uintptr_t>(top_) - 152);
  words[0] = reinterpret_cast<void*>(&Fiber::main);
  words[1] = nullptr;
  words[18] = nullptr;
  inside_ = words;
#endif
}

LOKO_NOT_ON_SHADOW_STACK void Fiber::main() {
  Fiber* self = running;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &self->context_->outerStack,
                                  &self->context_->outerBytes);
#endif
  self->entry_();
  self->leaveStack(true);
  __builtin_trap();  // an ended fiber is never resumed
}

#if defined(LOKO_FIBER_CONTEXT)
void Fiber::enterStack() {
#if defined(__SANITIZE_THREAD__)
  context_->fiberOutside = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(context_->fiberInside, 0);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&context_->fakeOutside, stack_, kStackBytes);
#endif
#if defined(LOKO_PORTABLE_FIBERS)
  swapcontext(&context_->outside, &context_->inside);
#else
  switchStack(&outside_, inside_);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(context_->fakeOutside, nullptr, nullptr);
#endif
}

LOKO_NOT_ON_SHADOW_STACK void Fiber::leaveStack([[maybe_unused]] bool forGood) {
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(context_->fiberOutside, 0);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(forGood ? nullptr : &context_->fakeInside, context_->outerStack,
                                 context_->outerBytes);
#endif
#if defined(LOKO_PORTABLE_FIBERS)
  swapcontext(&context_->inside, &context_->outside);
#else
  switchStack(&inside_, outside_);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(context_->fakeInside, &context_->outerStack,
                                  &context_->outerBytes);
#endif
}
#endif

}  // namespace loko::emulation
