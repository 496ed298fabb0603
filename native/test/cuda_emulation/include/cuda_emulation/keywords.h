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
// Blocks run one after another, so that one copy per kernel is enough. A static array keeps what
// the block before it left: garbage, as in CUDA.
#define __shared__ static

#ifndef __restrict__
#define __restrict__ __restrict
#endif
