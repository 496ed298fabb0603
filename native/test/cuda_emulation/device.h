#pragma once

// The state behind the emulated runtime API, shared by the files that implement it. Everything here
// is guarded by Device::mutex, which every API function holds while it runs, kernels included.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "block.h"
#include "emulation.h"

namespace loko::emulation {

using Work = std::function<void()>;

/// A capture in progress. Streams that wait for an event of the capture join it.
struct Capture {
  CUstream_st* origin = nullptr;
  cudaStreamCaptureMode mode{};
  std::thread::id thread;
  bool invalid = false;
  std::vector<std::shared_ptr<Work>> nodes;
};

/// A range of memory given out by the API.
struct Allocation {
  std::size_t bytes = 0;
  bool device = false;  // else pinned host memory
  void* block = nullptr;
  std::size_t blockBytes = 0;  // of device memory: whole pages
  std::int64_t serial = 0;
};

}  // namespace loko::emulation

struct CUstream_st {
  unsigned flags = 0;
  std::deque<loko::emulation::Work> pending;
  std::uint64_t issued = 0, begun = 0;
  std::shared_ptr<loko::emulation::Capture> capture;
  // Nodes this stream added to its capture, and how many of them the origin waits for.
  std::uint64_t captured = 0, joined = 0;
};

namespace loko::emulation {

struct Device {
  std::recursive_mutex mutex;
  DeviceModel model;
  Schedule schedule;
  Counters counters;
  cudaError_t sticky = cudaSuccess;
  int failAllocationIn = 0, failKernelIn = 0, failCaptureIn = 0;
  bool checkAfterKernels = false;
  std::map<std::uintptr_t, Allocation> memory;  // by address
  CUstream_st legacy;                           // the default stream
  std::set<CUstream_st*> streams;
  std::set<CUevent_st*> events;
  std::set<CUgraph_st*> graphs;
  std::set<CUgraphExec_st*> graphExecs;
  std::vector<std::weak_ptr<Capture>> captures;
  std::map<const void*, int> overlappingLaunches;  // by kernel
};
Device& device();

/// What an API function does to captures of the calling thread.
enum class InCapture { kAllowed, kForbidden };

/// Runs the body of an API function under the lock, if there is a device that has not failed, and
/// remembers its error.
cudaError_t call(InCapture inCapture, const std::function<cudaError_t(Device&)>& body);
/// Keeps an error for cudaGetLastError, and returns it.
cudaError_t remember(cudaError_t error);

// memory.cc
/// The allocation that holds all of [pointer, pointer + bytes), or null.
const Allocation* findAllocation(const Device& device, const void* pointer, std::size_t bytes);
/// Throws Fault if anything was written outside an allocation; repairs the zones.
void checkGuards(Device& device, const std::string& when);
void releaseAllMemory(Device& device);

// stream.cc
/// The stream of a handle, null if there is none.
CUstream_st* findStream(Device& device, cudaStream_t stream);
/// Adds work to a stream, or a node to its capture.
cudaError_t submit(Device& device, CUstream_st& stream, Work work);
void runThrough(Device& device, CUstream_st& stream, std::uint64_t ticket);
void finishStream(Device& device, CUstream_st& stream);
void finishAllStreams(Device& device);
void dropPendingWork(Device& device);
void releaseStreamsAndEvents(Device& device);

// graph.cc
void releaseGraphs(Device& device);

}  // namespace loko::emulation
