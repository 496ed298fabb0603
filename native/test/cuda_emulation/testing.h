#pragma once

// What the tests of the emulated device share.

#include <cuda_runtime.h>

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

#include "emulation.h"

namespace loko::emulation::testing {

// Every test starts from a healthy device and leaves one.
struct Healthy {
  Healthy() { reset(); }
  ~Healthy() { reset(); }
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

inline cudaLaunchConfig_t configOf(cudaStream_t stream, dim3 grid, dim3 block) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.stream = stream;
  return config;
}

template <typename... P, typename... A>
cudaError_t launch(cudaStream_t stream, dim3 grid, dim3 block, void (*kernel)(P...),
                   A&&... arguments) {
  const cudaLaunchConfig_t config = configOf(stream, grid, block);
  return cudaLaunchKernelEx(&config, kernel, std::forward<A>(arguments)...);
}

/// A launch that need not wait for the kernel ahead of it.
template <typename... P, typename... A>
cudaError_t launchEarly(cudaStream_t stream, dim3 grid, dim3 block, void (*kernel)(P...),
                        A&&... arguments) {
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = configOf(stream, grid, block);
  config.attrs = &early;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, std::forward<A>(arguments)...);
}

template <typename Fn>
std::string faultOf(Fn&& fn) {
  try {
    fn();
  } catch (const Fault& fault) {
    return fault.what();
  }
  return "";
}

inline bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

}  // namespace loko::emulation::testing
