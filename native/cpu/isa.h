// Which instruction sets this machine has, and their kernels.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace loko::cpu {

// kAmx: AVX-512, and products with frozen weights on the tiles of AMX.
enum class Isa { kGeneric, kAvx2, kAvx512, kAmx };

const char* isaName(Isa isa);

// Those that the processor and the operating system support and this build contains, narrowest
// first. Never empty.
std::vector<Isa> availableIsas();

// The widest available one, or the one that the environment variable LOKO_CPU_ISA (amx, avx512,
// avx2, generic) names. Throws Error(kOption) when that one is unknown or not available.
Isa chooseIsa();

// Throws Error(kUnsupported) when `isa` is not available.
const Kernels& kernels(Isa isa);

}  // namespace loko::cpu
