// The real cuBLASLt on a real device, only in loko_gpu_tests. A machine without the library passes, and
// says where it was looked for.

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include <doctest/doctest.h>

#include "cuda/cublaslt.h"

namespace loko::cuda {
namespace {

void check(cudaError_t status) {
  REQUIRE_MESSAGE(status == cudaSuccess, cudaGetErrorString(status));
}

/// Memory of the device with a copy on the host.
template <class T>
struct DeviceArray {
  std::vector<T> host;
  T* device = nullptr;
  explicit DeviceArray(std::size_t size) : host(size) {
    check(cudaMalloc(reinterpret_cast<void**>(&device), size * sizeof(T)));
  }
  ~DeviceArray() { cudaFree(device); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  void upload() {
    check(cudaMemcpy(device, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  void download() {
    check(cudaMemcpy(host.data(), device, host.size() * sizeof(T), cudaMemcpyDeviceToHost));
  }
};

/// To bfloat16 by cutting off, which is exact for what is compared: both sides use the cut values.
std::uint16_t upperHalf(float value) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, 4);
  return static_cast<std::uint16_t>(bits >> 16);
}

float fromUpperHalf(std::uint16_t half) {
  const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
  float value = 0;
  std::memcpy(&value, &bits, 4);
  return value;
}

constexpr int kRows = 128, kOut = 192, kDepth = 256;

struct Case {
  DeviceArray<float> a{kRows * kDepth}, w{kOut * kDepth}, c{kRows * kOut};
  DeviceArray<std::uint16_t> aHalf{kRows * kDepth}, wHalf{kOut * kDepth};
  DeviceArray<unsigned char> workspace{CublasLt::kWorkspaceBytes};
  std::vector<double> expected = std::vector<double>(kRows * kOut);

  explicit Case(bool across) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    const auto draw = [&](DeviceArray<float>& full, DeviceArray<std::uint16_t>& half) {
      for (std::size_t i = 0; i < full.host.size(); ++i) {
        half.host[i] = upperHalf(normal(random));
        full.host[i] = fromUpperHalf(half.host[i]);
      }
      full.upload();
      half.upload();
    };
    draw(a, aHalf);
    draw(w, wHalf);
    for (int i = 0; i < kRows; ++i) {
      for (int j = 0; j < kOut; ++j) {
        for (int p = 0; p < kDepth; ++p) {
          expected[static_cast<std::size_t>(i * kOut + j)] +=
              double{a.host[static_cast<std::size_t>(i * kDepth + p)]} *
              w.host[static_cast<std::size_t>(across ? p * kOut + j : j * kDepth + p)];
        }
      }
    }
  }

  void run(CublasLt& lt, const LtProduct& product, cudaStream_t stream) {
    const bool half = product.type == ProductType::kBfloat16;
    lt.run(product, half ? static_cast<const void*>(aHalf.device) : a.device,
           half ? static_cast<const void*>(wHalf.device) : w.device, c.device, workspace.device,
           CublasLt::kWorkspaceBytes, stream);
  }

  double relativeError() {
    double difference = 0, norm = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      difference += std::pow(c.host[i] - expected[i], 2);
      norm += std::pow(expected[i], 2);
    }
    return std::sqrt(difference / norm);
  }
};

TEST_CASE("cuBLASLt on this device is right in every type, repeats its bits, and can be captured") {
  SearchReport report;
  const std::shared_ptr<CublasLt> lt = CublasLt::find(&report);
  if (lt == nullptr) {
    MESSAGE("no cuBLASLt, nothing is tested here:\n" << report.text());
    return;
  }
  MESSAGE("cuBLASLt " << lt->version() << ", " << lt->path());
  CHECK((CublasLt::find() == lt));
  CHECK(checkProducts(*lt) == "");

  cudaStream_t stream = nullptr;
  check(cudaStreamCreate(&stream));
  for (const bool across : {false, true}) {
    Case data(across);
    for (const ProductType type :
         {ProductType::kFloat32, ProductType::kTf32, ProductType::kBfloat16}) {
      const LtProduct product{kRows, kOut,   kDepth, type, kDepth, across ? kOut : kDepth,
                              kOut,  across, false,  256};
      REQUIRE(lt->prepare(product));
      data.run(*lt, product, stream);
      check(cudaStreamSynchronize(stream));
      data.c.download();
      // The operands have 8 significant bits, so every product is exact in each type; what remains is
      // the summation of 256 terms in float32, where tensor cores cut off instead of rounding:
      // 2^-23 a term of what is summed, which cancels to its 16th part at random signs: 256 * 2^-19.
      CHECK(data.relativeError() < 256 * std::ldexp(1.0, -19));
      const std::vector<float> first = data.c.host;

      cudaGraph_t graph = nullptr;
      cudaGraphExec_t executable = nullptr;
      check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
      data.run(*lt, product, stream);
      check(cudaStreamEndCapture(stream, &graph));
      check(cudaGraphInstantiate(&executable, graph, 0));
      std::fill(data.c.host.begin(), data.c.host.end(), NAN);
      data.c.upload();
      check(cudaGraphLaunch(executable, stream));
      check(cudaStreamSynchronize(stream));
      data.c.download();
      CHECK(data.c.host == first);
      check(cudaGraphExecDestroy(executable));
      check(cudaGraphDestroy(graph));
    }
  }
  check(cudaStreamDestroy(stream));
}

}  // namespace
}  // namespace loko::cuda
