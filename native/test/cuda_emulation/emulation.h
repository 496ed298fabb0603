#pragma once

// What a test may ask of the emulated device: which device there is, in which order threads and
// blocks run, what fails next, and what has happened so far. The shipped code never includes this.
//
// There is one device per process, behind one lock. Kernels run on the host thread that makes the
// stream's work complete (a synchronising call), never earlier: results read without a
// synchronisation are the ones that an unlucky GPU would have left there.
//
// Not emulated: dynamic shared memory, floating-point atomics, blocks that wait for each other,
// the 48 KB limit on static shared memory (ptxas checks it) and launch bounds.

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>

namespace loko::emulation {

/// A bug that real hardware would show as a hang, a corruption, an error without a place or nothing at
/// all: a deadlock, a write outside an allocation, a misaligned vector, a collective used against its
/// rules, memory touched by a kernel that may overlap the one ahead of it and has not yet waited. Thrown by the API call that executed the kernel; until reset() every further call returns
/// cudaErrorLaunchFailure.
class Fault : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Order { kForward, kReverse, kShuffled };

/// Threads of a block are scheduled warp by warp, and lane by lane in a warp, in the order of
/// `threads`; blocks of a grid one after another in the order of `blocks`. A kernel that is free of
/// races computes the same under all of them.
void setOrder(Order threads, Order blocks = Order::kForward, std::uint64_t seed = 0);

enum class Presence { kPresent, kNoDriver, kOldDriver, kNoDevice };

struct DeviceModel {
  Presence presence = Presence::kPresent;
  std::string name = "Emulated device";
  int major = 8, minor = 0;
  int multiprocessors = 4;
  int driverVersion = 13000, runtimeVersion = 13000;
  std::size_t memory = std::size_t{8} << 30;
};
void setDeviceModel(const DeviceModel& model);

/// The nth device allocation from now (1: the next) fails with cudaErrorMemoryAllocation; 0: none.
void failAllocation(int nth);
/// The nth kernel executed from now on, in a graph or not, ends with cudaErrorIllegalAddress, which
/// every further call returns, as on a real device; 0: none.
void failKernel(int nth);
/// The nth capture from now on turns out to be invalid when it ends, as by a synchronisation somewhere else in
/// the process; 0: none.
void failCapture(int nth);

/// Guard zones are always checked at synchronisations and when memory is freed. Checking after each
/// kernel as well names the kernel that wrote outside its memory.
void checkGuardsAfterEachKernel(bool check);

struct Counters {
  std::int64_t liveDeviceAllocations = 0, liveDeviceBytes = 0, livePinnedAllocations = 0;
  std::int64_t liveStreams = 0, liveEvents = 0, liveGraphs = 0, liveGraphExecs = 0;
  std::int64_t deviceAllocations = 0;  // ever made
  std::int64_t launches = 0;           // accepted, in a capture or not
  std::int64_t kernels = 0;            // executed, in a graph or not
  std::int64_t overlapping = 0;        // of these, such as may start before the one ahead has ended
  std::int64_t graphLaunches = 0;
  std::int64_t graphNodes = 0;  // executed
  std::int64_t synchronizations = 0;
};
Counters counters();

/// Back to a healthy default device: no error, no planned failure, forward order; pending work is
/// dropped. Memory, streams, events and graphs stay, unless the device had failed: then all of them
/// are released, as by cudaDeviceReset.
void reset();

/// Puts a closure in the place of a kernel: executed in the order of the stream, recorded while the
/// stream is captured. For libraries that launch kernels of their own, such as cuBLASLt.
cudaError_t enqueue(cudaStream_t stream, std::function<void()> work);

}  // namespace loko::emulation
