// Device and pinned memory. A device allocation is filled with NaNs (all bits set) and lies between
// two guard zones: a pattern that is compared at every synchronisation, or memory that the address
// sanitizer watches, where it is on.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "device.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define LOKO_ASAN 1
#else
#define LOKO_ASAN 0
#endif

namespace loko::emulation {
namespace {

constexpr std::size_t kGuardBytes = 1024;  // a multiple of the alignment of cudaMalloc
constexpr std::size_t kPageBytes = 4096;   // whole ones, which can be closed (closed_memory.h)
constexpr unsigned char kGuardByte = 0xa5, kNewByte = 0xff;

void setGuard(unsigned char* zone, std::size_t bytes) {
#if LOKO_ASAN
  __asan_poison_memory_region(zone, bytes);
#else
  std::memset(zone, kGuardByte, bytes);
#endif
}

// The first byte of the zone that was written, or `bytes`.
std::size_t damage(const unsigned char* zone, std::size_t bytes) {
#if LOKO_ASAN
  (void)zone;  // the sanitizer has stopped the program at the write
  return bytes;
#else
  std::size_t i = 0;
  while (i < bytes && zone[i] == kGuardByte) ++i;
  return i;
#endif
}

// Bytes behind an allocation up to the end of its block.
std::size_t tailBytes(const Allocation& allocation) {
  return allocation.blockBytes - kGuardBytes - allocation.bytes;
}

unsigned char* frontOf(std::uintptr_t address) {
  return reinterpret_cast<unsigned char*>(address) - kGuardBytes;
}

void checkAllocation(std::uintptr_t address, const Allocation& allocation,
                     const std::string& when) {
  unsigned char* front = frontOf(address);
  unsigned char* tail = reinterpret_cast<unsigned char*>(address) + allocation.bytes;
  const std::size_t tailSize = tailBytes(allocation);
  const std::size_t before = damage(front, kGuardBytes), after = damage(tail, tailSize);
  if (before == kGuardBytes && after == tailSize) return;
  setGuard(front, kGuardBytes);
  setGuard(tail, tailSize);
  const std::string where = before != kGuardBytes
                                ? std::to_string(kGuardBytes - before) + " bytes before the start"
                                : std::to_string(after) + " bytes behind the end";
  throw Fault(when + ": memory was written " + where + " of device allocation " +
              std::to_string(allocation.serial) + " (" + std::to_string(allocation.bytes) +
              " bytes)");
}

cudaError_t allocateDevice(Device& d, void** pointer, std::size_t bytes) {
  if (pointer == nullptr) return cudaErrorInvalidValue;
  *pointer = nullptr;
  if (d.failAllocationIn > 0 && --d.failAllocationIn == 0) return cudaErrorMemoryAllocation;
  if (bytes == 0) return cudaSuccess;
  if (bytes > d.model.memory ||
      static_cast<std::size_t>(d.counters.liveDeviceBytes) > d.model.memory - bytes)
    return cudaErrorMemoryAllocation;
  Allocation allocation;
  allocation.bytes = bytes;
  allocation.device = true;
  allocation.serial = d.counters.deviceAllocations;
  allocation.blockBytes = (bytes + 2 * kGuardBytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  const std::size_t tail = tailBytes(allocation);
  allocation.block = std::aligned_alloc(kPageBytes, allocation.blockBytes);
  if (allocation.block == nullptr) return cudaErrorMemoryAllocation;
  auto* start = static_cast<unsigned char*>(allocation.block) + kGuardBytes;
  std::memset(start, kNewByte, bytes);
  setGuard(start - kGuardBytes, kGuardBytes);
  setGuard(start + bytes, tail);
  d.memory[reinterpret_cast<std::uintptr_t>(start)] = allocation;
  ++d.counters.deviceAllocations;
  ++d.counters.liveDeviceAllocations;
  d.counters.liveDeviceBytes += static_cast<std::int64_t>(bytes);
  *pointer = start;
  return cudaSuccess;
}

void giveBack(Device& d, std::uintptr_t address, const Allocation& allocation) {
  if (allocation.device) {
#if LOKO_ASAN
    __asan_unpoison_memory_region(allocation.block, allocation.blockBytes);
#endif
    std::memset(reinterpret_cast<void*>(address), kNewByte, allocation.bytes);
    --d.counters.liveDeviceAllocations;
    d.counters.liveDeviceBytes -= static_cast<std::int64_t>(allocation.bytes);
  } else {
    --d.counters.livePinnedAllocations;
  }
  std::free(allocation.block);
}

cudaError_t release(Device& d, void* pointer, bool fromDevice) {
  const auto found = d.memory.find(reinterpret_cast<std::uintptr_t>(pointer));
  if (found == d.memory.end() || found->second.device != fromDevice) return cudaErrorInvalidValue;
  if (fromDevice) checkAllocation(found->first, found->second, "found when memory was freed");
  giveBack(d, found->first, found->second);
  d.memory.erase(found);
  return cudaSuccess;
}

}  // namespace

const Allocation* findAllocation(const Device& d, const void* pointer, std::size_t bytes) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  auto found = d.memory.upper_bound(address);
  if (found == d.memory.begin()) return nullptr;
  --found;
  const std::size_t offset = address - found->first;
  const bool inside = offset <= found->second.bytes && bytes <= found->second.bytes - offset;
  return inside ? &found->second : nullptr;
}

void checkGuards(Device& d, const std::string& when) {
  for (const auto& [address, allocation] : d.memory)
    if (allocation.device) checkAllocation(address, allocation, when);
}

void releaseAllMemory(Device& d) {
  for (const auto& [address, allocation] : d.memory) giveBack(d, address, allocation);
  d.memory.clear();
}

}  // namespace loko::emulation

using loko::emulation::call;
using loko::emulation::Device;
using loko::emulation::InCapture;

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  return call(InCapture::kForbidden,
              [&](Device& d) { return loko::emulation::allocateDevice(d, pointer, bytes); });
}

cudaError_t cudaFree(void* pointer) {
  return call(InCapture::kForbidden, [&](Device& d) {
    if (pointer == nullptr) return cudaSuccess;
    loko::emulation::finishAllStreams(d);
    return d.sticky != cudaSuccess ? d.sticky : loko::emulation::release(d, pointer, true);
  });
}

// Stricter than CUDA: memory nodes of a graph are not emulated.
cudaError_t cudaMallocAsync(void** pointer, std::size_t bytes, cudaStream_t stream) {
  return call(InCapture::kForbidden, [&](Device& d) {
    if (loko::emulation::findStream(d, stream) == nullptr) return cudaErrorInvalidResourceHandle;
    return loko::emulation::allocateDevice(d, pointer, bytes);
  });
}

cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  return call(InCapture::kForbidden, [&](Device& d) {
    CUstream_st* target = loko::emulation::findStream(d, stream);
    if (target == nullptr) return cudaErrorInvalidResourceHandle;
    if (pointer == nullptr) return cudaSuccess;
    if (d.memory.count(reinterpret_cast<std::uintptr_t>(pointer)) == 0)
      return cudaErrorInvalidValue;
    return loko::emulation::submit(d, *target,
                                   [&d, pointer] { loko::emulation::release(d, pointer, true); });
  });
}

cudaError_t cudaHostAlloc(void** pointer, std::size_t bytes, unsigned /*flags*/) {
  return call(InCapture::kForbidden, [&](Device& d) {
    if (pointer == nullptr) return cudaErrorInvalidValue;
    *pointer = nullptr;
    if (bytes == 0) return cudaSuccess;
    loko::emulation::Allocation allocation;
    allocation.bytes = bytes;
    allocation.block = std::malloc(bytes);
    if (allocation.block == nullptr) return cudaErrorMemoryAllocation;
    std::memset(allocation.block, loko::emulation::kNewByte, bytes);
    d.memory[reinterpret_cast<std::uintptr_t>(allocation.block)] = allocation;
    ++d.counters.livePinnedAllocations;
    *pointer = allocation.block;
    return cudaSuccess;
  });
}

cudaError_t cudaMallocHost(void** pointer, std::size_t bytes, unsigned flags) {
  return cudaHostAlloc(pointer, bytes, flags);
}

cudaError_t cudaFreeHost(void* pointer) {
  return call(InCapture::kForbidden, [&](Device& d) {
    if (pointer == nullptr) return cudaSuccess;
    loko::emulation::finishAllStreams(d);
    return d.sticky != cudaSuccess ? d.sticky : loko::emulation::release(d, pointer, false);
  });
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  return call(InCapture::kAllowed, [&](Device& d) {
    if (free == nullptr || total == nullptr) return cudaErrorInvalidValue;
    *total = d.model.memory;
    *free = d.model.memory - static_cast<std::size_t>(d.counters.liveDeviceBytes);
    return cudaSuccess;
  });
}
