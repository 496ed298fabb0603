#include "device.h"

#include "closed_memory.h"
#include "symbols.h"

#include <utility>

namespace loko::emulation {
namespace {

thread_local cudaError_t lastError = cudaSuccess;

cudaError_t presenceError(const DeviceModel& model) {
  switch (model.presence) {
    case Presence::kPresent:
      return cudaSuccess;
    case Presence::kNoDevice:
      return cudaErrorNoDevice;
    case Presence::kNoDriver:
    case Presence::kOldDriver:
      break;
  }
  return cudaErrorInsufficientDriver;
}

// Invalidates the captures that a call which might synchronise would break.
bool breakCaptures(Device& device) {
  bool broken = false;
  for (const auto& weak : device.captures) {
    const auto capture = weak.lock();
    if (capture == nullptr || capture->mode == cudaStreamCaptureModeRelaxed) continue;
    if (capture->mode == cudaStreamCaptureModeThreadLocal &&
        capture->thread != std::this_thread::get_id())
      continue;
    capture->invalid = broken = true;
  }
  return broken;
}

template <typename Change>
void change(Change&& apply) {
  Device& d = device();
  const std::lock_guard<std::recursive_mutex> lock(d.mutex);
  apply(d);
}

}  // namespace

Device& device() {
  static auto* instance = new Device;  // outlives every static that may free memory
  return *instance;
}

cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) lastError = error;
  return error;
}

cudaError_t call(InCapture inCapture, const std::function<cudaError_t(Device&)>& body) {
  Device& d = device();
  const std::lock_guard<std::recursive_mutex> lock(d.mutex);
  if (const cudaError_t error = presenceError(d.model)) return remember(error);
  if (d.sticky != cudaSuccess) return remember(d.sticky);
  if (inCapture == InCapture::kForbidden && breakCaptures(d))
    return remember(cudaErrorStreamCaptureUnsupported);
  try {
    return remember(body(d));
  } catch (const Fault&) {
    d.sticky = cudaErrorLaunchFailure;
    throw;
  }
}

void setOrder(Order threads, Order blocks, std::uint64_t seed) {
  change([&](Device& d) { d.schedule = Schedule{threads, blocks, seed}; });
}
void setDeviceModel(const DeviceModel& model) {
  change([&](Device& d) { d.model = model; });
}
void failAllocation(int nth) {
  change([&](Device& d) { d.failAllocationIn = nth; });
}
void failKernel(int nth) {
  change([&](Device& d) { d.failKernelIn = nth; });
}
void failCapture(int nth) {
  change([&](Device& d) { d.failCaptureIn = nth; });
}
void checkGuardsAfterEachKernel(bool check) {
  change([&](Device& d) { d.checkAfterKernels = check; });
}

Counters counters() {
  Counters copy;
  change([&](Device& d) { copy = d.counters; });
  return copy;
}

void reset() {
  change([](Device& d) {
    dropPendingWork(d);
    if (d.sticky != cudaSuccess) {  // its owners could give nothing back
      releaseGraphs(d);
      releaseStreamsAndEvents(d);
      releaseAllMemory(d);
    }
    d.model = DeviceModel{};
    d.schedule = Schedule{};
    d.sticky = cudaSuccess;
    d.failAllocationIn = d.failKernelIn = d.failCaptureIn = 0;
    d.checkAfterKernels = false;
  });
  lastError = cudaSuccess;
}

cudaError_t enqueue(cudaStream_t stream, std::function<void()> work) {
  return call(InCapture::kAllowed, [&](Device& d) {
    CUstream_st* target = findStream(d, stream);
    return target == nullptr ? cudaErrorInvalidResourceHandle : submit(d, *target, std::move(work));
  });
}

namespace {

bool mayOverlap(const cudaLaunchConfig_t& config) {
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    const cudaLaunchAttribute& attribute = config.attrs[i];
    if (attribute.id == cudaLaunchAttributeProgrammaticStreamSerialization &&
        attribute.val.programmaticStreamSerializationAllowed != 0)
      return true;
  }
  return false;
}

// What a kernel touches before it waits depends on few of its launches: the first ones are watched.
constexpr int kWatchedLaunches = 3;

void runKernel(Device& d, const Grid& launched) {
  ++d.counters.kernels;
  d.counters.overlapping += launched.overlapping ? 1 : 0;
  if (!launched.overlapping || d.overlappingLaunches[launched.kernel]++ >= kWatchedLaunches) {
    runGrid(launched, d.schedule);
    return;
  }
  const ClosedMemory closed(d);
  runGrid(launched, d.schedule);
  if (const Allocation* touched = closed.touched())
    throw Fault("kernel " + functionName(launched.kernel) + " touches device allocation " +
                std::to_string(touched->serial) + " before cudaGridDependencySynchronize");
}

}  // namespace

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, Work thread) {
  return call(InCapture::kAllowed, [&](Device& d) {
    const dim3 grid = config.gridDim, block = config.blockDim;
    const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
    if (threads == 0 || threads > 1024 || block.x > 1024 || block.y > 1024 || block.z > 64 ||
        grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 ||
        grid.z > 65535)
      return cudaErrorInvalidConfiguration;
    if (config.dynamicSmemBytes != 0)
      throw Fault("kernel " + functionName(kernel) + ": dynamic shared memory is not emulated");
    CUstream_st* stream = findStream(d, config.stream);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    const Grid launched{grid, block, std::move(thread), kernel, mayOverlap(config)};
    const cudaError_t error = submit(d, *stream, [&d, launched] {
      if (d.failKernelIn > 0 && --d.failKernelIn == 0) {
        d.sticky = cudaErrorIllegalAddress;
        return;
      }
      runKernel(d, launched);
      if (d.checkAfterKernels) checkGuards(d, "kernel " + functionName(launched.kernel));
    });
    if (error == cudaSuccess) ++d.counters.launches;
    return error;
  });
}

}  // namespace loko::emulation

cudaError_t cudaGetLastError() {
  return std::exchange(loko::emulation::lastError, loko::emulation::device().sticky);
}

cudaError_t cudaPeekAtLastError() {
  return loko::emulation::lastError;
}
