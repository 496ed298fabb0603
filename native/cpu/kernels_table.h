// The tables that the units kernels_*.cc define; only isa.cc, which knows what the machine has, may
// hand them out.
#pragma once

#include "cpu/kernels.h"

namespace loko::cpu {

extern const Kernels kGenericKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif
#if defined(__linux__) && defined(__x86_64__)
extern const SplitKernels kAmxKernels;
#endif

}  // namespace loko::cpu
