// Streams and events. Work waits in its stream until something synchronises with it; then it runs in
// order, after the work of other streams that it was made to wait for.

#include <algorithm>
#include <utility>

#include "device.h"
#include "event.h"

namespace loko::emulation {
namespace {

struct Place {
  CUstream_st* stream;
  std::uint64_t ticket;
};

bool isBlocking(const CUstream_st& stream) {
  return (stream.flags & cudaStreamNonBlocking) == 0;
}

bool isAlive(const Device& d, const CUstream_st* stream) {
  return stream == &d.legacy || d.streams.count(const_cast<CUstream_st*>(stream)) != 0;
}

// The legacy stream waits for blocking streams, and they for it.
std::vector<Place> implicitOrder(Device& d, const CUstream_st& stream) {
  std::vector<Place> before;
  if (&stream == &d.legacy) {
    for (CUstream_st* other : d.streams)
      if (isBlocking(*other) && !other->pending.empty()) before.push_back({other, other->issued});
  } else if (isBlocking(stream) && !d.legacy.pending.empty()) {
    before.push_back({&d.legacy, d.legacy.issued});
  }
  return before;
}

bool blockingCaptureExists(const Device& d) {
  return std::any_of(d.streams.begin(), d.streams.end(), [](const CUstream_st* stream) {
    return stream->capture != nullptr && isBlocking(*stream);
  });
}

void invalidate(CUstream_st& stream) {
  stream.capture->invalid = true;
}

cudaError_t synchronize(Device& d, const std::function<void()>& run) {
  ++d.counters.synchronizations;
  run();
  if (d.sticky != cudaSuccess) return d.sticky;
  checkGuards(d, "found at a synchronisation");
  return cudaSuccess;
}

}  // namespace

CUstream_st* findStream(Device& d, cudaStream_t stream) {
  if (stream == nullptr) return &d.legacy;
  return isAlive(d, stream) ? stream : nullptr;
}

cudaError_t submit(Device& d, CUstream_st& stream, Work work) {
  if (stream.capture != nullptr) {
    if (stream.capture->invalid) return cudaErrorStreamCaptureInvalidated;
    stream.capture->nodes.push_back(std::make_shared<Work>(std::move(work)));
    ++stream.captured;
    return cudaSuccess;
  }
  if (&stream == &d.legacy && blockingCaptureExists(d)) return cudaErrorStreamCaptureImplicit;
  const std::vector<Place> before = implicitOrder(d, stream);
  stream.pending.push_back([&d, before, work = std::move(work)] {
    for (const Place& place : before)
      if (isAlive(d, place.stream)) runThrough(d, *place.stream, place.ticket);
    if (d.sticky == cudaSuccess) work();
  });
  ++stream.issued;
  return cudaSuccess;
}

void runThrough(Device& d, CUstream_st& stream, std::uint64_t ticket) {
  while (stream.begun < ticket && !stream.pending.empty()) {
    const Work work = std::move(stream.pending.front());
    stream.pending.pop_front();
    ++stream.begun;
    if (d.sticky == cudaSuccess) work();
  }
}

void finishStream(Device& d, CUstream_st& stream) {
  runThrough(d, stream, stream.issued);
}

void finishAllStreams(Device& d) {
  finishStream(d, d.legacy);
  for (CUstream_st* stream : d.streams)
    if (stream->capture == nullptr) finishStream(d, *stream);
}

void dropPendingWork(Device& d) {
  const auto drop = [](CUstream_st& stream) {
    stream.pending.clear();
    stream.begun = stream.issued;
    stream.capture = nullptr;
  };
  drop(d.legacy);
  for (CUstream_st* stream : d.streams) drop(*stream);
}

void releaseStreamsAndEvents(Device& d) {
  for (CUstream_st* stream : d.streams) delete stream;
  for (CUevent_st* event : d.events) delete event;
  d.streams.clear();
  d.events.clear();
  d.counters.liveStreams = d.counters.liveEvents = 0;
}

}  // namespace loko::emulation

using namespace loko::emulation;  // NOLINT: the API's functions are global

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return call(InCapture::kAllowed, [&](Device& d) {
    if (stream == nullptr || flags > cudaStreamNonBlocking) return cudaErrorInvalidValue;
    *stream = new CUstream_st;
    (*stream)->flags = flags;
    d.streams.insert(*stream);
    ++d.counters.liveStreams;
    return cudaSuccess;
  });
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return call(InCapture::kAllowed, [&](Device& d) {
    if (d.streams.count(stream) == 0) return cudaErrorInvalidResourceHandle;
    if (stream->capture != nullptr) invalidate(*stream);
    finishStream(d, *stream);
    d.streams.erase(stream);
    delete stream;
    --d.counters.liveStreams;
    return cudaSuccess;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return call(InCapture::kAllowed, [&](Device& d) {
    CUstream_st* target = findStream(d, stream);
    if (target == nullptr) return cudaErrorInvalidResourceHandle;
    if (target->capture != nullptr) {
      invalidate(*target);
      return cudaErrorStreamCaptureUnsupported;
    }
    return synchronize(d, [&] { finishStream(d, *target); });
  });
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return call(InCapture::kAllowed, [&](Device& d) {
    CUstream_st* target = findStream(d, stream);
    if (target == nullptr) return cudaErrorInvalidResourceHandle;
    if (target->capture != nullptr) {
      invalidate(*target);
      return cudaErrorStreamCaptureUnsupported;
    }
    // Time passes between queries: a loop around this call ends.
    runThrough(d, *target, target->begun + 1);
    return target->pending.empty() ? cudaSuccess : cudaErrorNotReady;
  });
}

cudaError_t cudaDeviceSynchronize() {
  return call(InCapture::kForbidden,
              [](Device& d) { return synchronize(d, [&] { finishAllStreams(d); }); });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  return call(InCapture::kAllowed, [&](Device& d) {
    CUstream_st* target = findStream(d, stream);
    if (target == nullptr || d.events.count(event) == 0) return cudaErrorInvalidResourceHandle;
    if (flags != 0) return cudaErrorInvalidValue;
    if (event->captured) {
      const auto capture = event->capture.lock();
      if (capture == nullptr) return cudaErrorInvalidValue;
      if (target == &d.legacy) return cudaErrorStreamCaptureImplicit;
      if (target->capture != nullptr && target->capture != capture) {
        invalidate(*target);
        capture->invalid = true;
        return cudaErrorStreamCaptureMerge;
      }
      if (target->capture == nullptr) target->captured = target->joined = 0;
      target->capture = capture;
      if (isAlive(d, event->stream) && event->stream->capture == capture)
        event->stream->joined = std::max(event->stream->joined, event->capturedBefore);
      return cudaSuccess;
    }
    if (target->capture != nullptr) {
      invalidate(*target);
      return cudaErrorStreamCaptureIsolation;
    }
    if (event->stream == nullptr) return cudaSuccess;
    const Place place{event->stream, event->ticket};
    return submit(d, *target, [&d, place] {
      if (isAlive(d, place.stream)) runThrough(d, *place.stream, place.ticket);
    });
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return call(InCapture::kAllowed, [&](Device& d) {
    if (event == nullptr) return cudaErrorInvalidValue;
    *event = new CUevent_st;
    (*event)->flags = flags;
    d.events.insert(*event);
    ++d.counters.liveEvents;
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return call(InCapture::kAllowed, [&](Device& d) {
    CUstream_st* target = findStream(d, stream);
    if (target == nullptr || d.events.count(event) == 0) return cudaErrorInvalidResourceHandle;
    if (target->capture != nullptr) {
      if (target->capture->invalid) return cudaErrorStreamCaptureInvalidated;
      event->captured = true;
      event->capture = target->capture;
      event->stream = target;
      event->capturedBefore = target->captured;
      return cudaSuccess;
    }
    auto time = std::make_shared<std::chrono::steady_clock::time_point>();
    const cudaError_t error =
        submit(d, *target, [time] { *time = std::chrono::steady_clock::now(); });
    if (error != cudaSuccess) return error;
    event->captured = false;
    event->stream = target;
    event->ticket = target->issued;
    event->time = std::move(time);
    return cudaSuccess;
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return call(InCapture::kAllowed, [&](Device& d) {
    if (d.events.count(event) == 0) return cudaErrorInvalidResourceHandle;
    if (event->captured) return cudaErrorCapturedEvent;
    if (event->stream == nullptr || !isAlive(d, event->stream)) return cudaSuccess;
    runThrough(d, *event->stream, std::min(event->stream->begun + 1, event->ticket));
    return event->stream->begun >= event->ticket ? cudaSuccess : cudaErrorNotReady;
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return call(InCapture::kAllowed, [&](Device& d) {
    if (d.events.count(event) == 0) return cudaErrorInvalidResourceHandle;
    if (event->captured) return cudaErrorCapturedEvent;
    if (event->stream == nullptr || !isAlive(d, event->stream)) return cudaSuccess;
    return synchronize(d, [&] { runThrough(d, *event->stream, event->ticket); });
  });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return call(InCapture::kAllowed, [&](Device& d) {
    if (milliseconds == nullptr) return cudaErrorInvalidValue;
    for (const CUevent_st* event : {start, end}) {
      if (d.events.count(const_cast<CUevent_st*>(event)) == 0 || event->time == nullptr ||
          (event->flags & cudaEventDisableTiming) != 0)
        return cudaErrorInvalidResourceHandle;
      if (event->captured) return cudaErrorCapturedEvent;
      if (event->time->time_since_epoch().count() == 0) return cudaErrorNotReady;
    }
    *milliseconds = std::chrono::duration<float, std::milli>(*end->time - *start->time).count();
    return cudaSuccess;
  });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return call(InCapture::kAllowed, [&](Device& d) {
    if (d.events.erase(event) == 0) return cudaErrorInvalidResourceHandle;
    delete event;
    --d.counters.liveEvents;
    return cudaSuccess;
  });
}
