#include "closed_memory.h"

#include <sys/mman.h>

#include <csignal>
#include <vector>

namespace loko::emulation {
namespace {

struct Pages {
  void* begin;
  std::size_t bytes;
};

// What the signal handler reads and writes. The device's lock guards it.
std::vector<Pages> closed;
volatile std::sig_atomic_t isClosed = 0;
const void* volatile firstTouched = nullptr;
struct sigaction before {};

void protectAll(int protection) {
  for (const Pages& pages : closed) mprotect(pages.begin, pages.bytes, protection);
}

// An access that is none of ours finds the handler of before when it is tried again.
void onFault(int /*signal*/, siginfo_t* info, void* /*context*/) {
  if (isClosed == 0) {
    sigaction(SIGSEGV, &before, nullptr);
    return;
  }
  firstTouched = info->si_addr;
  openMemory();
}

}  // namespace

void openMemory() {
  if (isClosed == 0) return;
  protectAll(PROT_READ | PROT_WRITE);
  isClosed = 0;
}

ClosedMemory::ClosedMemory(const Device& device) : device_(device) {
  closed.clear();
  for (const auto& [address, allocation] : device.memory)
    if (allocation.device) closed.push_back({allocation.block, allocation.blockBytes});
  struct sigaction ours {};
  ours.sa_sigaction = onFault;
  ours.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &ours, &before);
  firstTouched = nullptr;
  isClosed = 1;
  protectAll(PROT_NONE);
}

ClosedMemory::~ClosedMemory() {
  openMemory();
  sigaction(SIGSEGV, &before, nullptr);
}

const Allocation* ClosedMemory::touched() const {
  return firstTouched != nullptr ? findAllocation(device_, firstTouched, 1) : nullptr;
}

}  // namespace loko::emulation
