// The emulated runtime: when the work of streams and graphs is done, what memory is checked for, and
// which errors calls give.

#include <cuda_runtime.h>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "cuda_emulation/emulation.h"
#include "cuda_emulation/testing.h"

namespace {

namespace emulation = loko::emulation;
using namespace loko::emulation::testing;  // NOLINT

__global__ void addKernel(float* x, float value) {
  x[blockIdx.x * blockDim.x + threadIdx.x] += value;
}

#if !defined(__SANITIZE_ADDRESS__)
__global__ void storeKernel(float* x, int at) {
  x[at] = 1;
}
#endif

__global__ void emptyKernel() {}

}  // namespace

TEST_CASE("work of a stream is done at its synchronisation, not before") {
  const Healthy healthy;
  const DeviceArray<float> x(std::vector<float>(4, 1));
  float* pinned = nullptr;
  REQUIRE(cudaMallocHost(&pinned, x.bytes()) == cudaSuccess);
  const Stream stream;
  launch(stream, 2, 2, addKernel, x.get(), 1.0f);
  cudaMemcpyAsync(pinned, x.get(), x.bytes(), cudaMemcpyDeviceToHost, stream);
  CHECK(std::isnan(pinned[0]));
  REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
  CHECK(pinned[3] == 2);
  // A copy into pageable memory is complete when it returns, with all before it.
  launch(stream, 2, 2, addKernel, x.get(), 1.0f);
  float pageable[4];
  cudaMemcpyAsync(pageable, x.get(), x.bytes(), cudaMemcpyDeviceToHost, stream);
  CHECK(pageable[3] == 3);
  CHECK(cudaFreeHost(pinned) == cudaSuccess);
}

TEST_CASE("an event orders two streams and measures time") {
  const Healthy healthy;
  const DeviceArray<float> x(std::vector<float>(1, 1));
  const Stream first, second;
  cudaEvent_t start, end;
  REQUIRE(cudaEventCreate(&start) == cudaSuccess);
  REQUIRE(cudaEventCreate(&end) == cudaSuccess);
  cudaEventRecord(start, first);
  launch(first, 1, 1, addKernel, x.get(), 4.0f);
  cudaEventRecord(end, first);
  CHECK(cudaStreamWaitEvent(second, end) == cudaSuccess);
  float host = 0, milliseconds = -1;
  CHECK(cudaEventElapsedTime(&milliseconds, start, end) == cudaErrorNotReady);
  cudaMemcpyAsync(&host, x.get(), sizeof host, cudaMemcpyDeviceToHost, second);
  CHECK(host == 5);
  CHECK(cudaEventElapsedTime(&milliseconds, start, end) == cudaSuccess);
  CHECK(milliseconds >= 0);
  cudaEventDestroy(start);
  cudaEventDestroy(end);
}

TEST_CASE("captured work runs at each launch of the graph, and not at the capture") {
  const Healthy healthy;
  const DeviceArray<float> x(std::vector<float>(1, 1));
  const Stream stream, side;
  cudaEvent_t fork, join;
  cudaEventCreateWithFlags(&fork, cudaEventDisableTiming);
  cudaEventCreateWithFlags(&join, cudaEventDisableTiming);
  const emulation::Counters before = emulation::counters();
  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  launch(stream, 1, 1, addKernel, x.get(), 1.0f);
  cudaEventRecord(fork, stream);
  cudaStreamWaitEvent(side, fork);
  int calls = 0;
  emulation::enqueue(side, [&] { ++calls; });
  cudaEventRecord(join, side);
  cudaStreamWaitEvent(stream, join);
  cudaMemsetAsync(x.get(), 0, 0, stream);  // nothing to do: no node
  cudaGraph_t graph;
  REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  cudaGraphExec_t exec;
  REQUIRE(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
  std::size_t nodes = 0;
  CHECK(cudaGraphGetNodes(graph, nullptr, &nodes) == cudaSuccess);
  CHECK(nodes == 2);
  CHECK(cudaGraphDestroy(graph) == cudaSuccess);
  cudaStreamSynchronize(stream);
  CHECK(x.values()[0] == 1);
  CHECK(calls == 0);
  for (int i = 0; i < 3; ++i) CHECK(cudaGraphLaunch(exec, stream) == cudaSuccess);
  cudaStreamSynchronize(stream);
  CHECK(x.values()[0] == 4);
  CHECK(calls == 3);
  const emulation::Counters after = emulation::counters();
  CHECK(after.launches - before.launches == 1);
  CHECK(after.kernels - before.kernels == 3);
  CHECK(after.graphLaunches - before.graphLaunches == 3);
  CHECK(after.graphNodes - before.graphNodes == 6);
  CHECK(cudaGraphExecDestroy(exec) == cudaSuccess);
  cudaEventDestroy(fork);
  cudaEventDestroy(join);
}

TEST_CASE("what would synchronise or allocate breaks a capture") {
  const Healthy healthy;
  const Stream stream, side;
  cudaGraph_t graph = nullptr;
  float* memory = nullptr;
  cudaStreamCaptureStatus status;
  cudaEvent_t event;
  cudaEventCreateWithFlags(&event, cudaEventDisableTiming);

  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  CHECK(cudaMalloc(&memory, 4) == cudaErrorStreamCaptureUnsupported);
  CHECK(cudaGetLastError() == cudaErrorStreamCaptureUnsupported);
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(cudaStreamIsCapturing(stream, &status) == cudaSuccess);
  CHECK(status == cudaStreamCaptureStatusInvalidated);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated);
  CHECK(graph == nullptr);

  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  CHECK(cudaStreamSynchronize(stream) == cudaErrorStreamCaptureUnsupported);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated);

  // Another thread may allocate meanwhile.
  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  std::thread([&] { CHECK(cudaMalloc(&memory, 4) == cudaSuccess); }).join();
  // Work of a stream that joined must be joined again.
  cudaEventRecord(event, stream);
  CHECK(cudaEventSynchronize(event) == cudaErrorCapturedEvent);
  cudaStreamWaitEvent(side, event);
  cudaMemsetAsync(memory, 0, 4, side);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureUnjoined);
  CHECK(cudaFree(memory) == cudaSuccess);
  cudaEventDestroy(event);
}

#if !defined(__SANITIZE_ADDRESS__)  // which stops the program at such a write
TEST_CASE("a write outside an allocation is found at the next synchronisation") {
  const Healthy healthy;
  for (const int at : {-1, 10, 63 + 10}) {
    const DeviceArray<float> x(10);
    launch(nullptr, 1, 1, storeKernel, x.get(), at);
    const std::string fault = faultOf([] { cudaDeviceSynchronize(); });
    CHECK(contains(fault, "(40 bytes)"));
    CHECK(contains(fault, at < 0 ? "bytes before the start" : "bytes behind the end"));
    emulation::reset();
  }
  const DeviceArray<float> x(10);
  emulation::checkGuardsAfterEachKernel(true);
  launch(nullptr, 1, 1, storeKernel, x.get(), 10);
  CHECK(contains(faultOf([] { cudaDeviceSynchronize(); }), "storeKernel"));
}
#endif

TEST_CASE("memory is new, counted, bounded, and checked by copies") {
  const Healthy healthy;
  const emulation::Counters before = emulation::counters();
  {
    const DeviceArray<float> x(3);
    CHECK(reinterpret_cast<std::uintptr_t>(x.get()) % 256 == 0);
    for (const float value : x.values()) CHECK(std::isnan(value));
    CHECK(emulation::counters().liveDeviceAllocations == before.liveDeviceAllocations + 1);
    float host[4] = {};
    CHECK(cudaMemcpy(x.get(), host, 16, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
    CHECK(cudaMemcpy(x.get(), host, 12, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
    CHECK(cudaMemset(x.get() + 1, 0, 12) == cudaErrorInvalidValue);
    CHECK(cudaFree(x.get() + 1) == cudaErrorInvalidValue);
    // Rows of one float out of rows of two.
    const float rows[4] = {1, 2, 3, 4};
    CHECK(cudaMemcpy2DAsync(x.get(), 4, rows, 8, 4, 2, cudaMemcpyHostToDevice) == cudaSuccess);
    CHECK(x.values()[0] == 1);
    CHECK(x.values()[1] == 3);
    CHECK(cudaMemcpy2DAsync(x.get(), 4, rows, 2, 4, 2, cudaMemcpyHostToDevice) ==
          cudaErrorInvalidPitchValue);
  }
  CHECK(emulation::counters().liveDeviceAllocations == before.liveDeviceAllocations);
  CHECK(emulation::counters().liveDeviceBytes == before.liveDeviceBytes);

  emulation::DeviceModel small;
  small.memory = 1000;
  emulation::setDeviceModel(small);
  float *first = nullptr, *second = nullptr;
  CHECK(cudaMalloc(&first, 600) == cudaSuccess);
  CHECK(cudaMalloc(&second, 600) == cudaErrorMemoryAllocation);
  CHECK(second == nullptr);
  CHECK(cudaFree(first) == cudaSuccess);
}

TEST_CASE("failures happen where they were planned") {
  const Healthy healthy;
  float* memory = nullptr;
  emulation::failAllocation(2);
  CHECK(cudaMalloc(&memory, 16) == cudaSuccess);
  float* second = nullptr;
  CHECK(cudaMalloc(&second, 16) == cudaErrorMemoryAllocation);
  CHECK(std::string(cudaGetErrorName(cudaGetLastError())) == "cudaErrorMemoryAllocation");

  emulation::failKernel(2);
  cudaMemset(memory, 0, 16);
  launch(nullptr, 1, 4, addKernel, memory, 1.0f);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  CHECK(launch(nullptr, 1, 4, addKernel, memory, 1.0f) == cudaSuccess);
  CHECK(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
  CHECK(launch(nullptr, 1, 4, addKernel, memory, 1.0f) == cudaErrorIllegalAddress);
  CHECK(cudaFree(memory) == cudaErrorIllegalAddress);
  CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
  emulation::reset();
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  CHECK(emulation::counters().liveDeviceAllocations == 0);
}

TEST_CASE("launches that CUDA refuses are refused") {
  const Healthy healthy;
  CHECK(launch(nullptr, 1, 1025, emptyKernel) == cudaErrorInvalidConfiguration);
  CHECK(launch(nullptr, 0, 32, emptyKernel) == cudaErrorInvalidConfiguration);
  CHECK(launch(nullptr, dim3(1, 65536), 32, emptyKernel) == cudaErrorInvalidConfiguration);
  CHECK(launch(nullptr, 1, dim3(1, 1, 65), emptyKernel) == cudaErrorInvalidConfiguration);
}

TEST_CASE("without a device every reason has its answer") {
  const Healthy healthy;
  const auto answer = [](emulation::Presence presence, int driver) {
    emulation::DeviceModel model;
    model.presence = presence;
    model.driverVersion = driver;
    emulation::setDeviceModel(model);
    int count = -1;
    const cudaError_t error = cudaGetDeviceCount(&count);
    CHECK(count == 0);
    return error;
  };
  int version = -1;
  CHECK(answer(emulation::Presence::kNoDriver, 13000) == cudaErrorInsufficientDriver);
  CHECK(cudaDriverGetVersion(&version) == cudaSuccess);
  CHECK(version == 0);
  CHECK(answer(emulation::Presence::kOldDriver, 11040) == cudaErrorInsufficientDriver);
  CHECK(cudaDriverGetVersion(&version) == cudaSuccess);
  CHECK(version == 11040);
  CHECK(answer(emulation::Presence::kNoDevice, 13000) == cudaErrorNoDevice);
}
