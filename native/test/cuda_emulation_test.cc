// Kernels on the emulated device: what they compute must be what CUDA defines, and what CUDA forbids
// must not pass. They are written as shipped ones are.

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <mma.h>

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "cuda_emulation/emulation.h"
#include "cuda_emulation/shared_memory.h"
#include "cuda_emulation/testing.h"

namespace {

namespace emulation = loko::emulation;
using namespace loko::emulation::testing;  // NOLINT
using emulation::Order;

const std::array<Order, 3> kOrders{Order::kForward, Order::kReverse, Order::kShuffled};

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

// y[to ... to + 4) = x[from ... from + 4)
__global__ void vectorKernel(const float* x, float* y, int from, int to) {
  const float4 v = *reinterpret_cast<const float4*>(x + from);
  *reinterpret_cast<float4*>(y + to) = v;
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

// When each thread of the grid came.
__global__ void rankKernel(int* ranks, int* counter) {
  ranks[blockIdx.x * blockDim.x + threadIdx.x] = atomicAdd(counter, 1);
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

enum class Waits { kFirst, kAfterReading, kAfterWriting, kInSomeThreads };

template <Waits waits>
__global__ void waitingKernel(const float* x, float* y) {
  float value = 0;
  if (waits == Waits::kAfterReading) value = x[threadIdx.x];
  if (waits == Waits::kAfterWriting) y[threadIdx.x] = 1;
  if (waits == Waits::kInSomeThreads && threadIdx.x == 5) return;
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  if (waits != Waits::kAfterReading) value = x[threadIdx.x];
  y[threadIdx.x] = value;
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

TEST_CASE("threads and blocks come in the order that was set") {
  const Healthy healthy;
  constexpr int threads = 48, blocks = 3;
  const auto ranks = [](Order threadOrder, Order blockOrder, std::uint64_t seed) {
    emulation::setOrder(threadOrder, blockOrder, seed);
    const DeviceArray<int> output(threads * blocks), counter(std::vector<int>{0});
    launch(nullptr, blocks, threads, rankKernel, output.get(), counter.get());
    return output.values();
  };
  const std::vector<int> forward = ranks(Order::kForward, Order::kForward, 0);
  const std::vector<int> reverse = ranks(Order::kReverse, Order::kForward, 0);
  const std::vector<int> reverseBlocks = ranks(Order::kForward, Order::kReverse, 0);
  for (int i = 0; i < threads * blocks; ++i) {
    const int block = i / threads, thread = i % threads;
    CHECK(forward[i] == i);
    CHECK(reverse[i] == block * threads + threads - 1 - thread);
    CHECK(reverseBlocks[i] == (blocks - 1 - block) * threads + thread);
  }
  const std::vector<int> shuffled = ranks(Order::kShuffled, Order::kForward, 5);
  CHECK(shuffled == ranks(Order::kShuffled, Order::kForward, 5));
  CHECK(shuffled != ranks(Order::kShuffled, Order::kForward, 6));
  CHECK(shuffled != forward);
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

#if !defined(__SANITIZE_ADDRESS__)  // which stops the program at such a read
TEST_CASE("a vector that is read or written at an address that is no multiple of its is a fault") {
  const auto faultOfCopy = [](int from, int to) {
    const Healthy healthy;
    const DeviceArray<float> x(std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7}), y(8);
    launch(nullptr, 1, 1, vectorKernel, x.get(), y.get(), from, to);
    const std::string fault = faultOf([] { cudaDeviceSynchronize(); });
    if (fault.empty()) CHECK(y.values()[static_cast<std::size_t>(to)] == static_cast<float>(from));
    return fault;
  };
  CHECK(faultOfCopy(4, 0) == "");
  CHECK(faultOfCopy(0, 4) == "");
  for (const int misplaced : {1, 2, 3}) {
    for (const std::string& fault : {faultOfCopy(misplaced, 0), faultOfCopy(0, misplaced)}) {
      CHECK(contains(fault, "misaligned address: a float4"));
      CHECK(contains(fault, "vectorKernel"));
    }
  }
}
#endif

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

TEST_CASE("a kernel that may start early waits in every thread before it touches memory") {
  const Healthy healthy;
  const Stream stream;
  const DeviceArray<float> x(std::vector<float>(32, 3)), y(32);
  const auto run = [&](auto kernel) {
    return faultOf([&] {
      REQUIRE(launchEarly(stream, dim3(2), dim3(32), kernel, x.get(), y.get()) == cudaSuccess);
      cudaStreamSynchronize(stream);
    });
  };
  CHECK(run(waitingKernel<Waits::kFirst>) == "");
  CHECK(y.values() == std::vector<float>(32, 3));

  const char* touched = "before cudaGridDependencySynchronize";
  SUBCASE("a read") {
    CHECK(run(waitingKernel<Waits::kAfterReading>).find(touched) != std::string::npos);
  }
  SUBCASE("a write") {
    CHECK(run(waitingKernel<Waits::kAfterWriting>).find(touched) != std::string::npos);
  }
  SUBCASE("a thread that leaves before") {
    CHECK(run(waitingKernel<Waits::kInSomeThreads>).find("ended without cudaGridDependency") !=
          std::string::npos);
  }
  SUBCASE("no rule for a kernel that starts when the one ahead has ended") {
    CHECK(launch(stream, dim3(1), dim3(32), waitingKernel<Waits::kAfterReading>, x.get(),
                 y.get()) == cudaSuccess);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  }
}
