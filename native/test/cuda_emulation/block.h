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

/// Runs `thread` for every thread of the grid. `kernel` names it in faults.
void runGrid(dim3 grid, dim3 block, const std::function<void()>& thread, const Schedule& schedule,
             const void* kernel);

}  // namespace loko::emulation
