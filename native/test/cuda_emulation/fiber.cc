#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#if !defined(__x86_64__) || defined(LOKO_EMULATION_UCONTEXT)
#define LOKO_PORTABLE_SWITCH 1
#include <ucontext.h>
#else
#define LOKO_PORTABLE_SWITCH 0
#endif

#if defined(__SANITIZE_ADDRESS__)
#define LOKO_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define LOKO_ASAN 0
#endif
#if defined(__SANITIZE_THREAD__)
#define LOKO_TSAN 1
#include <sanitizer/tsan_interface.h>
#else
#define LOKO_TSAN 0
#endif

namespace loko::emulation {
namespace {

constexpr std::size_t kStackBytes = std::size_t{256} << 10;

#if !LOKO_PORTABLE_SWITCH
// Saves the callee-saved registers on the running stack and its top in *from, then continues where
// `to` was saved. (The floating-point control words are never changed here.)
__attribute__((naked, noinline)) void switchStack(void** /*from: rdi*/, void* /*to: rsi*/) {
  asm volatile(
      "pushq %rbp\n\tpushq %rbx\n\tpushq %r12\n\tpushq %r13\n\tpushq %r14\n\tpushq %r15\n\t"
      "movq %rsp, (%rdi)\n\t"
      "movq %rsi, %rsp\n\t"
      "popq %r15\n\tpopq %r14\n\tpopq %r13\n\tpopq %r12\n\tpopq %rbx\n\tpopq %rbp\n\t"
      "ret");
}
#endif

}  // namespace

struct Fiber::Context {
  char* mapping = nullptr;
  std::size_t mapped = 0, page = 0, offset = 0;
  void (*entry)() = nullptr;
#if LOKO_PORTABLE_SWITCH
  ucontext_t inside, outside;
#else
  void *inside = nullptr, *outside = nullptr;
#endif
#if LOKO_ASAN
  void *fakeInside = nullptr, *fakeOutside = nullptr;
  const void* outerStack = nullptr;
  std::size_t outerBytes = 0;
#endif
#if LOKO_TSAN
  void *tsanInside = nullptr, *tsanOutside = nullptr;
#endif

  char* stack() const {
    return mapping + page;
  }
  // Stacks that all began at the same offset of a page would compete for the same cache sets.
  char* top() const {
    return mapping + mapped - offset;
  }
};

namespace {
thread_local Fiber* running = nullptr;
}  // namespace

Fiber::Fiber() : context_(new Context) {
  static std::size_t made = 0;
  Context& c = *context_;
  c.page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  c.mapped = kStackBytes + c.page;
  c.offset = (made++ % 61) * 64;
  void* mapping = mmap(nullptr, c.mapped, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  c.mapping = static_cast<char*>(mapping);
  mprotect(c.mapping, c.page, PROT_NONE);  // an overflow stops there
#if LOKO_TSAN
  c.tsanInside = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
#if LOKO_TSAN
  __tsan_destroy_fiber(context_->tsanInside);
#endif
  munmap(context_->mapping, context_->mapped);
  delete context_;
}

void Fiber::start(void (*entry)()) {
  Context& c = *context_;
  c.entry = entry;
#if LOKO_ASAN
  __asan_unpoison_memory_region(c.stack(), c.mapped - c.page);
  c.fakeInside = nullptr;
#endif
#if LOKO_PORTABLE_SWITCH
  getcontext(&c.inside);
  c.inside.uc_stack.ss_sp = c.stack();
  c.inside.uc_stack.ss_size = static_cast<std::size_t>(c.top() - c.stack());
  c.inside.uc_link = nullptr;
  makecontext(&c.inside, &Fiber::enter, 0);
#else
  // Six registers, the address that `ret` jumps to, and the return address of enter(): none. Its
  // stack pointer is then 8 below a multiple of 16, as the calling convention wants it.
  auto* top =
      reinterpret_cast<void**>(reinterpret_cast<std::uintptr_t>(c.top()) & ~std::uintptr_t{15});
  top[-1] = nullptr;
  top[-2] = reinterpret_cast<void*>(&Fiber::enter);
  for (int i = 3; i <= 8; ++i) top[-i] = nullptr;
  c.inside = top - 8;
#endif
}

void Fiber::resume() {
  Context& c = *context_;
  running = this;
#if LOKO_TSAN
  c.tsanOutside = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(c.tsanInside, 0);
#endif
#if LOKO_ASAN
  __sanitizer_start_switch_fiber(&c.fakeOutside, c.stack(), c.mapped - c.page);
#endif
#if LOKO_PORTABLE_SWITCH
  swapcontext(&c.outside, &c.inside);
#else
  switchStack(&c.outside, c.inside);
#endif
#if LOKO_ASAN
  __sanitizer_finish_switch_fiber(c.fakeOutside, nullptr, nullptr);
#endif
  running = nullptr;
}

void Fiber::leave(bool forGood) {
  Context& c = *context_;
#if LOKO_TSAN
  __tsan_switch_to_fiber(c.tsanOutside, 0);
#endif
#if LOKO_ASAN
  __sanitizer_start_switch_fiber(forGood ? nullptr : &c.fakeInside, c.outerStack, c.outerBytes);
#endif
  (void)forGood;
#if LOKO_PORTABLE_SWITCH
  swapcontext(&c.inside, &c.outside);
#else
  switchStack(&c.inside, c.outside);
#endif
#if LOKO_ASAN
  __sanitizer_finish_switch_fiber(c.fakeInside, &c.outerStack, &c.outerBytes);
#endif
}

void Fiber::enter() {
  Fiber* self = running;
#if LOKO_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &self->context_->outerStack,
                                  &self->context_->outerBytes);
#endif
  self->context_->entry();
  self->leave(true);
  __builtin_trap();  // an ended fiber is never resumed
}

void Fiber::suspend() {
  running->leave(false);
}

}  // namespace loko::emulation
