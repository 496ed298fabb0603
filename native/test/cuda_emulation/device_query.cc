// What the runtime API tells about the driver, the device and errors.

#include <cstring>

#include "device.h"

using loko::emulation::call;
using loko::emulation::Device;
using loko::emulation::InCapture;
using loko::emulation::Presence;
using loko::emulation::remember;

namespace {

constexpr int kSharedPerBlock = 48 << 10, kSharedOptin = 99 << 10, kSharedPerProcessor = 100 << 10;
constexpr int kL2Bytes = 4 << 20, kThreadsPerProcessor = 1536;

template <typename Body>
cudaError_t query(int ordinal, Body&& body) {
  return call(InCapture::kAllowed,
              [&](Device& d) { return ordinal == 0 ? body(d) : cudaErrorInvalidDevice; });
}

}  // namespace

cudaError_t cudaGetDeviceCount(int* count) {
  if (count == nullptr) return remember(cudaErrorInvalidValue);
  *count = 0;
  return call(InCapture::kAllowed, [&](Device&) {
    *count = 1;
    return cudaSuccess;
  });
}

cudaError_t cudaSetDevice(int ordinal) {
  return query(ordinal, [](Device&) { return cudaSuccess; });
}

cudaError_t cudaGetDevice(int* ordinal) {
  return query(0, [&](Device&) {
    *ordinal = 0;
    return cudaSuccess;
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int ordinal) {
  return query(ordinal, [&](Device& d) {
    *properties = cudaDeviceProp{};
    std::strncpy(properties->name, d.model.name.c_str(), sizeof properties->name - 1);
    properties->totalGlobalMem = d.model.memory;
    properties->sharedMemPerBlock = kSharedPerBlock;
    properties->sharedMemPerBlockOptin = kSharedOptin;
    properties->sharedMemPerMultiprocessor = kSharedPerProcessor;
    properties->warpSize = warpSize;
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsPerMultiProcessor = kThreadsPerProcessor;
    properties->multiProcessorCount = d.model.multiprocessors;
    properties->major = d.model.major;
    properties->minor = d.model.minor;
    properties->l2CacheSize = kL2Bytes;
    properties->memoryBusWidth = 384;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int ordinal) {
  return query(ordinal, [&](Device& d) {
    switch (attribute) {
      case cudaDevAttrMaxThreadsPerBlock:
        *value = 1024;
        return cudaSuccess;
      case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = kSharedPerBlock;
        return cudaSuccess;
      case cudaDevAttrWarpSize:
        *value = warpSize;
        return cudaSuccess;
      case cudaDevAttrMultiProcessorCount:
        *value = d.model.multiprocessors;
        return cudaSuccess;
      case cudaDevAttrL2CacheSize:
        *value = kL2Bytes;
        return cudaSuccess;
      case cudaDevAttrMaxThreadsPerMultiProcessor:
        *value = kThreadsPerProcessor;
        return cudaSuccess;
      case cudaDevAttrComputeCapabilityMajor:
        *value = d.model.major;
        return cudaSuccess;
      case cudaDevAttrComputeCapabilityMinor:
        *value = d.model.minor;
        return cudaSuccess;
      case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = kSharedPerProcessor;
        return cudaSuccess;
      case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = kSharedOptin;
        return cudaSuccess;
      case cudaDevAttrMemoryPoolsSupported:
        *value = 1;
        return cudaSuccess;
      case cudaDevAttrCooperativeLaunch:
        *value = 0;
        return cudaSuccess;
    }
    return cudaErrorInvalidValue;
  });
}

// Both answer without a driver, the first with 0.
cudaError_t cudaDriverGetVersion(int* version) {
  if (version == nullptr) return remember(cudaErrorInvalidValue);
  Device& d = loko::emulation::device();
  const std::lock_guard<std::recursive_mutex> lock(d.mutex);
  *version = d.model.presence == Presence::kNoDriver ? 0 : d.model.driverVersion;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  if (version == nullptr) return remember(cudaErrorInvalidValue);
  Device& d = loko::emulation::device();
  const std::lock_guard<std::recursive_mutex> lock(d.mutex);
  *version = d.model.runtimeVersion;
  return cudaSuccess;
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define LOKO_CUDA_ERROR(name, value, text) \
  case name:                               \
    return #name;
    LOKO_CUDA_ERRORS(LOKO_CUDA_ERROR)
#undef LOKO_CUDA_ERROR
  }
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
#define LOKO_CUDA_ERROR(name, value, text) \
  case name:                               \
    return text;
    LOKO_CUDA_ERRORS(LOKO_CUDA_ERROR)
#undef LOKO_CUDA_ERROR
  }
  return "unrecognized error code";
}
