#pragma once

// The built-in variables of a kernel, and what a thread may read without meeting another one. The
// scheduler (block.cc) sets the variables each time it lets a thread run.

#include <cassert>
#include <cstdio>
#include <cstring>

#include "vector_types.h"

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

long long clock64();

// Only one thread runs at a time, and none is interrupted between two collectives.
inline void __threadfence() {}
inline void __threadfence_block() {}

// Caching hints. The address is evaluated once and read or written once.
template <typename T>
T __ldg(const T* address) {
  return *address;
}
template <typename T>
T __ldcg(const T* address) {
  return *address;
}
template <typename T>
T __ldcs(const T* address) {
  return *address;
}
template <typename T>
void __stcg(T* address, T value) {
  *address = value;
}
template <typename T>
void __stcs(T* address, T value) {
  *address = value;
}

// Programmatic dependent launch. Kernels of a stream never overlap here; but one that may must wait in every
// thread, and touch no device memory before.
void cudaGridDependencySynchronize();
inline void cudaTriggerProgrammaticLaunchCompletion() {}
