#pragma once

// The CPU backend: float32, packed products, one fork-join pool. Results depend on the instruction
// set, never on the number of threads.

#include <memory>

#include "core/backend.h"
#include "cpu/isa.h"

namespace loko::cpu {

/// threads >= 1; see defaultThreads() in cpu/pool.h. Uses the widest instruction set of the machine,
/// or the one that LOKO_CPU_ISA names.
std::unique_ptr<Backend> makeCpuBackend(int threads);

/// With a given instruction set; throws Error(kUnsupported) where the machine does not have it.
std::unique_ptr<Backend> makeCpuBackend(int threads, Isa isa);

}  // namespace loko::cpu
