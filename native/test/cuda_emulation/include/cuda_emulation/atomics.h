#pragma once

// Integer atomics. Plain operations, since one thread runs at a time. None for floating point: the
// project's results must not depend on the order in which threads run.

#include "math.h"

#define LOKO_ATOMIC(name, type, result)         \
  inline type name(type* address, type value) { \
    const type old = *address;                  \
    *address = result;                          \
    return old;                                 \
  }
#define LOKO_ATOMICS(type)                                         \
  LOKO_ATOMIC(atomicOr, type, old | value)                         \
  LOKO_ATOMIC(atomicAnd, type, old& value)                         \
  LOKO_ATOMIC(atomicMax, type, max(old, value))                    \
  LOKO_ATOMIC(atomicMin, type, min(old, value))                    \
  LOKO_ATOMIC(atomicExch, type, value)                             \
  inline type atomicCAS(type* address, type compare, type value) { \
    const type old = *address;                                     \
    if (old == compare) *address = value;                          \
    return old;                                                    \
  }
LOKO_ATOMICS(int)
LOKO_ATOMICS(unsigned)
LOKO_ATOMICS(unsigned long long)
// Wraps around where a signed addition would overflow.
LOKO_ATOMIC(atomicAdd, int,
            static_cast<int>(static_cast<unsigned>(old) + static_cast<unsigned>(value)))
LOKO_ATOMIC(atomicAdd, unsigned, old + value)
LOKO_ATOMIC(atomicAdd, unsigned long long, old + value)
/// Counts up to `value`, then starts again at 0.
LOKO_ATOMIC(atomicInc, unsigned, old >= value ? 0u : old + 1u)
#undef LOKO_ATOMICS
#undef LOKO_ATOMIC
