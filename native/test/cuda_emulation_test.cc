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
#include <vector>

#include "cuda_emulation/emulation.h"

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
