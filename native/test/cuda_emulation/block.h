#pragma once

// Executes the blocks of a kernel: each thread is a fiber that runs until it meets a barrier or a
// warp collective, or ends. Throws Fault on a deadlock or a broken rule of a collective.

#include <cstdint>
#include <functional>

#include "emulation.h"

namespace loko::emulation {

struct Schedule {
  Order threads = Order::kForward, blocks = Order::kForward;
  std::uint64_t seed = 0;
};

/// What a launch asks for: `thread` is run for every thread of the grid, `kernel` names it in faults.
struct Grid {
  dim3 grid, block;
  std::function<void()> thread;
  const void* kernel = nullptr;
  /// It may start before the one ahead of it on the stream has ended, so every thread must await that.
  bool overlapping = false;
};

void runGrid(const Grid& launched, const Schedule& schedule);

}  // namespace loko::emulation
