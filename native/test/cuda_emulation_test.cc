// The emulated device itself: what a kernel computes must be what CUDA defines, and what CUDA
// forbids must not pass. The kernels below are written as shipped ones are.

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <mma.h>

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "cuda_emulation/emulation.h"
#include "cuda_emulation/shared_memory.h"

namespace {

namespace emulation = loko::emulation;
using emulation::Order;

// Every test starts from a healthy device and leaves one.
struct Healthy {
  Healthy() { emulation::reset(); }
  ~Healthy() { emulation::reset(); }
};

template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t size) : size_(size) {
    REQUIRE(cudaMalloc(&data_, size * sizeof(T)) == cudaSuccess);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    REQUIRE(cudaMemcpy(data_, values.data(), bytes(), cudaMemcpyHostToDevice) == cudaSuccess);
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* get() const { return data_; }
  std::size_t bytes() const { return size_ * sizeof(T); }
  std::vector<T> values() const {
    std::vector<T> host(size_);
    REQUIRE(cudaMemcpy(host.data(), data_, bytes(), cudaMemcpyDeviceToHost) == cudaSuccess);
    return host;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_;
};

class Stream {
 public:
  explicit Stream(unsigned flags = cudaStreamNonBlocking) {
    REQUIRE(cudaStreamCreateWithFlags(&stream_, flags) == cudaSuccess);
  }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

template <typename... P, typename... A>
cudaError_t launch(cudaStream_t stream, dim3 grid, dim3 block, void (*kernel)(P...),
                   A&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, std::forward<A>(arguments)...);
}

template <typename Fn>
std::string faultOf(Fn&& fn) {
  try {
    fn();
  } catch (const emulation::Fault& fault) {
    return fault.what();
  }
  return "";
}

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

const std::array<Order, 3> kOrders{Order::kForward, Order::kReverse, Order::kShuffled};

// --- kernels ---

template <int threads>
__global__ void __launch_bounds__(threads)
    sumKernel(const float* __restrict__ x, float* sum, int n) {
  __shared__ float partial[threads / 32];
  float value = 0;
  for (int i = threadIdx.x; i < n; i += threads) value += x[i];
  for (int offset = 16; offset > 0; offset /= 2)
    value += __shfl_down_sync(0xffffffffu, value, offset);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x != 0) return;
  value = 0;
  for (float part : partial) value += part;
  *sum = value;
}

template <bool withBarrier>
__global__ void transposeKernel(const float* from, float* to) {
  __shared__ float tile[16][17];
  tile[threadIdx.y][threadIdx.x] = from[threadIdx.y * 16 + threadIdx.x];
  if (withBarrier) __syncthreads();
  to[threadIdx.y * 16 + threadIdx.x] = tile[threadIdx.x][threadIdx.y];
}

// Each block sums its part; the last to finish adds the parts in their order.
__global__ void splitSumKernel(const float* x, float* parts, unsigned* finished, float* sum) {
  __shared__ bool last;
  float value = x[blockIdx.x * 32 + threadIdx.x];
  for (int offset = 16; offset > 0; offset /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = value;
    __threadfence();
    last = atomicInc(finished, gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last || threadIdx.x != 0) return;
  value = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) value += __ldcg(&parts[i]);
  *sum = value;
}

__global__ void addKernel(float* x, float value) {
  x[blockIdx.x * blockDim.x + threadIdx.x] += value;
}

__global__ void unwrittenKernel(float* x) {
  __shared__ float never[32], always[32];
  x[threadIdx.x] = never[threadIdx.x];
  never[threadIdx.x] = always[threadIdx.x] = 1;
}

// Odd threads never reach the barrier, and do not end either.
__global__ void deadlockKernel(int* x) {
  if (threadIdx.x % 2 == 0) __syncthreads();
  x[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
}

__global__ void twoBarriersKernel() {
  if (threadIdx.x % 2 == 0)
    __syncthreads();
  else
    __syncthreads();
}

__global__ void earlyExitKernel(int* x) {
  if (threadIdx.x >= 40) return;
  const int count = __syncthreads_count(threadIdx.x % 4 == 0);
  const unsigned ballot = __ballot_sync(0xffffffffu, threadIdx.x % 2);
  if (threadIdx.x == 33) x[0] = count, x[1] = static_cast<int>(ballot);
}

// One row per function, one column per lane.
__global__ void shuffleKernel(int* x) {
  const int lane = threadIdx.x;
  x[lane] = __shfl_sync(0xffffffffu, lane, 3, 8);
  x[32 + lane] = __shfl_up_sync(0xffffffffu, lane, 2, 16);
  x[64 + lane] = __shfl_down_sync(0xffffffffu, lane, 3, 4);
  x[96 + lane] = __shfl_xor_sync(0xffffffffu, lane, 12, 8);
  x[128 + lane] = __all_sync(0xffffffffu, lane < 32) + 2 * __any_sync(0xffffffffu, lane > 31);
  if (lane < 4) x[160 + lane] = __shfl_sync(0xfu, lane, 7);  // lane 7 takes no part
}

template <typename Element, int depth, typename Layout, typename T>
__global__ void productKernel(const T* a, const T* b, float* d) {
  using namespace nvcuda;
  __shared__ __align__(32) float out[16 * 20];
  wmma::fragment<wmma::matrix_a, 16, 16, depth, Element, wmma::row_major> left;
  wmma::fragment<wmma::matrix_b, 16, 16, depth, Element, Layout> right;
  wmma::fragment<wmma::accumulator, 16, 16, depth, float> sum;
  wmma::fill_fragment(sum, 0.0f);
  for (int k = 0; k < 32; k += depth) {
    wmma::load_matrix_sync(left, a + k, 32);
    if constexpr (std::is_same_v<Layout, wmma::row_major>)
      wmma::load_matrix_sync(right, b + k * 16, 16);
    else
      wmma::load_matrix_sync(right, b + k, 32);
    if constexpr (std::is_same_v<T, float>) {
      for (int i = 0; i < left.num_elements; ++i) left.x[i] = wmma::__float_to_tf32(left.x[i]);
      for (int i = 0; i < right.num_elements; ++i) right.x[i] = wmma::__float_to_tf32(right.x[i]);
    }
    wmma::mma_sync(sum, left, right, sum);
  }
  for (int i = 0; i < sum.num_elements; ++i) sum.x[i] *= 2;
  wmma::store_matrix_sync(out, sum, 20, wmma::mem_row_major);
  __syncwarp();
  for (int i = threadIdx.x; i < 256; i += 32) d[i] = out[i / 16 * 20 + i % 16];
}

__global__ void misalignedTileKernel(const __nv_bfloat16* a) {
  using namespace nvcuda;
  wmma::fragment<wmma::matrix_a, 16, 16, 16, __nv_bfloat16, wmma::row_major> tile;
  wmma::load_matrix_sync(tile, a + 8, 16);
}

#if !defined(__SANITIZE_ADDRESS__)
__global__ void storeKernel(float* x, int at) {
  x[at] = 1;
}
#endif

}  // namespace

TEST_CASE("a sum over shuffles and shared memory is the sum") {
  const Healthy healthy;
  std::vector<float> x(1000);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);  // exact in any order
  const DeviceArray<float> input(x), sum(1);
  for (const Order order : kOrders) {
    emulation::setOrder(order, Order::kForward, 7);
    const Stream stream;
    REQUIRE(launch(stream, 1, 128, sumKernel<128>, input.get(), sum.get(), 1000) == cudaSuccess);
    REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
    CHECK(sum.values()[0] == 999 * 1000 / 2);
  }
}

TEST_CASE("a missing barrier makes a kernel differ between the orders of threads") {
  const Healthy healthy;
  std::vector<float> x(256), transposed(256);
  for (std::size_t i = 0; i < 256; ++i) {
    x[i] = static_cast<float>(i);
    transposed[i % 16 * 16 + i / 16] = x[i];
  }
  const DeviceArray<float> input(x), output(256);
  bool racyDiffers = false;
  for (const Order order : kOrders) {
    emulation::setOrder(order, Order::kForward, 7);
    const Stream stream;
    launch(stream, 1, dim3(16, 16), transposeKernel<true>, input.get(), output.get());
    REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
    CHECK(output.values() == transposed);
    launch(stream, 1, dim3(16, 16), transposeKernel<false>, input.get(), output.get());
    REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
    racyDiffers = racyDiffers || output.values() != transposed;
  }
  CHECK(racyDiffers);
}

TEST_CASE("a split reduction gives the same bits in every order of blocks") {
  const Healthy healthy;
  constexpr int blocks = 9;
  std::vector<float> x(blocks * 32);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));
  const DeviceArray<float> input(x), parts(blocks), sum(1);
  const DeviceArray<unsigned> finished(std::vector<unsigned>{0});
  std::vector<float> sums;
  for (const Order order : kOrders) {
    emulation::setOrder(order, order, 3);
    const Stream stream;
    launch(stream, blocks, 32, splitSumKernel, input.get(), parts.get(), finished.get(), sum.get());
    REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
    sums.push_back(sum.values()[0]);
    CHECK(finished.values()[0] == 0);
  }
  CHECK(sums[0] == sums[1]);
  CHECK(sums[0] == sums[2]);
  double exact = 0;
  for (const float value : x) exact += value;
  CHECK(std::abs(sums[0] - exact) < 288 * 0x1p-24 * 288);  // n u sum|x|, |x| <= 1
}

TEST_CASE("shared memory is garbage at the start of a block") {
  if (!emulation::spoilsSharedMemory()) return;
  const Healthy healthy;
  const DeviceArray<float> output(32);
  for (int run = 0; run < 2; ++run) {
    launch(nullptr, 3, 32, unwrittenKernel, output.get());
    for (const float value : output.values()) CHECK(std::isnan(value));
  }
}

TEST_CASE("shuffles and votes take the lane that CUDA takes") {
  const Healthy healthy;
  const DeviceArray<int> output(192);
  for (const Order order : kOrders) {
    emulation::setOrder(order);
    launch(nullptr, 1, 32, shuffleKernel, output.get());
    const std::vector<int> x = output.values();
    for (int lane = 0; lane < 32; ++lane) {
      CHECK(x[lane] == lane / 8 * 8 + 3);
      CHECK(x[32 + lane] == (lane % 16 < 2 ? lane : lane - 2));
      CHECK(x[64 + lane] == (lane % 4 == 0 ? lane + 3 : lane));
      // Across segments of 8 only downwards.
      CHECK(x[96 + lane] == ((lane ^ 12) / 8 > lane / 8 ? lane : lane ^ 12));
      CHECK(x[128 + lane] == 1);
    }
    for (int lane = 0; lane < 4; ++lane) CHECK(x[160 + lane] == -1);
  }
}

TEST_CASE("threads that have ended count as arrived, lanes that do not exist too") {
  const Healthy healthy;
  const DeviceArray<int> output(2);
  for (const Order order : kOrders) {
    emulation::setOrder(order);
    launch(nullptr, 1, 70, earlyExitKernel, output.get());
    const std::vector<int> x = output.values();
    CHECK(x[0] == 10);          // threads 0, 4, ..., 36
    CHECK(x[1] == 0b10101010);  // lanes 33, 35, 37, 39 of the second warp
  }
}

TEST_CASE("a barrier that not all threads reach is a deadlock that names kernel and lines") {
  const Healthy healthy;
  const DeviceArray<int> output(64);
  launch(nullptr, 1, 64, deadlockKernel, output.get());
  const std::string fault = faultOf([] { cudaDeviceSynchronize(); });
  CHECK(contains(fault, "deadlock"));
  CHECK(contains(fault, "__syncthreads at "));
  CHECK(contains(fault, "__shfl_sync at "));
  CHECK(contains(fault, "cuda_emulation_test.cc"));
  CHECK(contains(fault, "deadlockKernel"));
  CHECK(cudaDeviceSynchronize() == cudaErrorLaunchFailure);
  emulation::reset();

  launch(nullptr, 1, 64, twoBarriersKernel);
  CHECK(contains(faultOf([] { cudaDeviceSynchronize(); }), "different barriers"));
}

TEST_CASE("tensor core tiles multiply as double precision does") {
  const Healthy healthy;
  std::vector<float> a(16 * 32), b(32 * 16);
  for (std::size_t i = 0; i < a.size(); ++i) {
    a[i] = std::sin(static_cast<float>(i));
    b[i] = std::cos(static_cast<float>(3 * i));
  }
  const DeviceArray<float> output(256);
  // 2 a b, b[k][n] at k * 16 + n or n * 32 + k.
  const auto check = [&](const std::vector<float>& left, const std::vector<float>& right,
                         bool rows) {
    const std::vector<float> d = output.values();
    for (std::size_t i = 0; i < 16; ++i)
      for (std::size_t j = 0; j < 16; ++j) {
        double exact = 0, sum = 0;
        for (std::size_t k = 0; k < 32; ++k) {
          const double term = double{left[i * 32 + k]} * right[rows ? k * 16 + j : j * 32 + k];
          exact += term, sum += std::abs(term);
        }
        // 32 products and 32 additions in float32, then an exact doubling.
        CHECK(std::abs(d[i * 16 + j] - 2 * exact) <= 2 * 33 * 0x1p-24 * sum);
      }
  };
  std::vector<__nv_bfloat16> shortA(a.size()), shortB(b.size());
  std::vector<float> roundedA(a.size()), roundedB(b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    roundedA[i] = shortA[i] = __float2bfloat16_rn(a[i]);
    roundedB[i] = shortB[i] = __float2bfloat16_rn(b[i]);
  }
  const DeviceArray<__nv_bfloat16> leftShort(shortA), rightShort(shortB);
  using nvcuda::wmma::col_major;
  using nvcuda::wmma::row_major;
  launch(nullptr, 1, 32, productKernel<__nv_bfloat16, 16, row_major, __nv_bfloat16>,
         leftShort.get(), rightShort.get(), output.get());
  check(roundedA, roundedB, true);
  launch(nullptr, 1, 32, productKernel<__nv_bfloat16, 16, col_major, __nv_bfloat16>,
         leftShort.get(), rightShort.get(), output.get());
  check(roundedA, roundedB, false);

  for (std::size_t i = 0; i < a.size(); ++i) {
    roundedA[i] = nvcuda::wmma::__float_to_tf32(a[i]);
    roundedB[i] = nvcuda::wmma::__float_to_tf32(b[i]);
    CHECK(std::abs(roundedA[i] - a[i]) <= std::abs(a[i]) * 0x1p-11f);  // 10 bits of mantissa
  }
  const DeviceArray<float> left(a), right(b);
  using nvcuda::wmma::precision::tf32;
  launch(nullptr, 1, 32, productKernel<tf32, 8, row_major, float>, left.get(), right.get(),
         output.get());
  check(roundedA, roundedB, true);

  launch(nullptr, 1, 32, misalignedTileKernel, leftShort.get());
  CHECK(contains(faultOf([] { cudaDeviceSynchronize(); }), "not aligned to 32 bytes"));
}

TEST_CASE("bfloat16 rounds to nearest, ties to even; TF32 ties away from zero") {
  const auto rounded = [](std::uint32_t bits) {
    return __bfloat16_as_ushort(__float2bfloat16(__uint_as_float(bits)));
  };
  CHECK(rounded(0x3f808000) == 0x3f80);  // tie, even below
  CHECK(rounded(0x3f818000) == 0x3f82);  // tie, even above
  CHECK(rounded(0x3f808001) == 0x3f81);
  CHECK(rounded(0xbf807fff) == 0xbf80);
  CHECK(rounded(0x7f7fffff) == 0x7f80);  // overflows to infinity
  CHECK(rounded(0x7f800001) == 0x7fff);
  CHECK(__bfloat162float(__ushort_as_bfloat16(0x3fc0)) == 1.5f);
  const auto tf32 = [](std::uint32_t bits) {
    return __float_as_uint(nvcuda::wmma::__float_to_tf32(__uint_as_float(bits)));
  };
  CHECK(tf32(0x3f801000) == 0x3f802000);
  CHECK(tf32(0xbf801000) == 0xbf802000);
  CHECK(tf32(0x3f800fff) == 0x3f800000);
}

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
  CHECK(launch(nullptr, 1, 1025, twoBarriersKernel) == cudaErrorInvalidConfiguration);
  CHECK(launch(nullptr, 0, 32, twoBarriersKernel) == cudaErrorInvalidConfiguration);
  CHECK(launch(nullptr, dim3(1, 65536), 32, twoBarriersKernel) == cudaErrorInvalidConfiguration);
  CHECK(launch(nullptr, 1, dim3(1, 1, 65), twoBarriersKernel) == cudaErrorInvalidConfiguration);
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
