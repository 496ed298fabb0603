// Copies and fills. Every device range must lie in one live allocation, at the call and when the
// work is executed. Pinned memory is read and written when the stream gets there, so that reusing a
// buffer too early shows; pageable memory at the call, as CUDA's staging does. While a stream is
// captured, pageable memory too is read and written at each launch of the graph.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include "device.h"

using loko::emulation::call;
using loko::emulation::Device;
using loko::emulation::Fault;
using loko::emulation::findAllocation;
using loko::emulation::InCapture;

namespace {

// `height` rows of `width` bytes at a distance of `pitch`.
struct Area {
  unsigned char* start;
  std::size_t pitch, width, height;

  std::size_t span() const { return height == 0 ? 0 : (height - 1) * pitch + width; }
};

enum class Place { kDevice, kPinned, kPageable };

Place placeOf(const Device& d, const Area& area) {
  const auto* allocation = findAllocation(d, area.start, 0);
  if (allocation == nullptr) return Place::kPageable;
  return allocation->device ? Place::kDevice : Place::kPinned;
}

bool reachable(const Device& d, const Area& area, Place place) {
  return place == Place::kPageable ? area.start != nullptr
                                   : findAllocation(d, area.start, area.span()) != nullptr;
}

bool directionFits(cudaMemcpyKind kind, Place to, Place from) {
  const bool toDevice = to == Place::kDevice, fromDevice = from == Place::kDevice;
  switch (kind) {
    case cudaMemcpyHostToHost:
      return !toDevice && !fromDevice;
    case cudaMemcpyHostToDevice:
      return toDevice && !fromDevice;
    case cudaMemcpyDeviceToHost:
      return !toDevice && fromDevice;
    case cudaMemcpyDeviceToDevice:
      return toDevice && fromDevice;
    case cudaMemcpyDefault:
      return true;
  }
  return false;
}

void copyRows(const Area& to, const Area& from) {
  for (std::size_t row = 0; row < to.height; ++row)
    std::memmove(to.start + row * to.pitch, from.start + row * from.pitch, to.width);
}

// `mustWait`: the call itself is synchronous.
cudaError_t copy(Device& d, const Area& to, const Area& from, cudaMemcpyKind kind,
                 cudaStream_t handle, bool mustWait) {
  CUstream_st* stream = loko::emulation::findStream(d, handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (to.width == 0 || to.height == 0) return cudaSuccess;
  if (to.pitch < to.width || from.pitch < to.width) return cudaErrorInvalidPitchValue;
  const Place toPlace = placeOf(d, to), fromPlace = placeOf(d, from);
  if (!reachable(d, to, toPlace) || !reachable(d, from, fromPlace) ||
      !directionFits(kind, toPlace, fromPlace))
    return cudaErrorInvalidValue;
  const cudaError_t error = submit(d, *stream, [&d, to, from, toPlace, fromPlace] {
    if (!reachable(d, to, toPlace) || !reachable(d, from, fromPlace))
      throw Fault("a copy of " + std::to_string(to.span()) + " bytes touches memory freed before");
    copyRows(to, from);
  });
  const bool staged = toPlace == Place::kPageable || fromPlace == Place::kPageable;
  if (error == cudaSuccess && stream->capture == nullptr && (mustWait || staged))
    loko::emulation::finishStream(d, *stream);
  return error != cudaSuccess ? error : d.sticky;
}

cudaError_t fill(Device& d, void* start, int value, std::size_t bytes, cudaStream_t handle) {
  CUstream_st* stream = loko::emulation::findStream(d, handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (bytes == 0) return cudaSuccess;
  const auto* allocation = findAllocation(d, start, bytes);
  if (allocation == nullptr || !allocation->device) return cudaErrorInvalidValue;
  return submit(d, *stream, [&d, start, value, bytes] {
    if (findAllocation(d, start, bytes) == nullptr)
      throw Fault("a fill of " + std::to_string(bytes) + " bytes touches memory freed before");
    std::memset(start, value, bytes);
  });
}

Area line(const void* start, std::size_t bytes) {
  return Area{static_cast<unsigned char*>(const_cast<void*>(start)), bytes, bytes, 1};
}

}  // namespace

// Stricter than CUDA: copies between device addresses wait too.
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  return call(InCapture::kForbidden, [&](Device& d) {
    return copy(d, line(to, bytes), line(from, bytes), kind, nullptr, true);
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return call(InCapture::kAllowed, [&](Device& d) {
    return copy(d, line(to, bytes), line(from, bytes), kind, stream, false);
  });
}

cudaError_t cudaMemcpy2DAsync(void* to, std::size_t toPitch, const void* from,
                              std::size_t fromPitch, std::size_t width, std::size_t height,
                              cudaMemcpyKind kind, cudaStream_t stream) {
  const Area target{static_cast<unsigned char*>(to), toPitch, width, height};
  const Area source{static_cast<unsigned char*>(const_cast<void*>(from)), fromPitch, width, height};
  return call(InCapture::kAllowed,
              [&](Device& d) { return copy(d, target, source, kind, stream, false); });
}

cudaError_t cudaMemset(void* to, int value, std::size_t bytes) {
  return call(InCapture::kForbidden, [&](Device& d) { return fill(d, to, value, bytes, nullptr); });
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  return call(InCapture::kAllowed, [&](Device& d) { return fill(d, to, value, bytes, stream); });
}
