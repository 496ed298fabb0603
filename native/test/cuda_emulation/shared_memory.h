#pragma once

// Shared memory holds garbage when a block begins: in CUDA, the remains of any other block. Here it is
// filled with NaNs (all bits set), so that a kernel which reads what it did not write is found.
//
// __shared__ variables are the thread_local variables inside functions of namespace loko::cuda, and
// those inside a launched kernel of any namespace. Rule: nothing else may be one.

namespace loko::emulation {

/// Fills all shared memory of namespace loko::cuda, that of device functions included.
void spoilSharedMemory();

/// Fills what is declared in the kernel itself: cheap enough to be done for each block.
void spoilSharedMemoryOf(const void* kernel);

/// Whether the variables can be found (symbols.h); never under the address sanitizer.
bool spoilsSharedMemory();

}  // namespace loko::emulation
