#pragma once

// CUDA's function and variable qualifiers, as plain C++.

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
// Empty, because the standard library also writes __attribute__((__noinline__)).
#define __noinline__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// Blocks run one after another, so that one copy per kernel is enough. Thread-local, because such
// variables can be told from others, which lets the scheduler fill them with garbage before each block
// (shared_memory.h); the address sanitizer watches the ends of plain static arrays instead.
// An alignas must stand before __shared__, or be written __align__.
#if defined(__SANITIZE_ADDRESS__)
#define __shared__ static
#else
#define __shared__ static thread_local
#endif

#ifndef __restrict__
#define __restrict__ __restrict
#endif
