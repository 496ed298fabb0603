// The part of the search that needs a device: a library is trusted after its products were right.

#include <cuda_runtime.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "core/status.h"
#include "cuda/cublaslt.h"

namespace loko::cuda {

namespace {

/// Device memory that is given back when a check ends early.
class DeviceBytes {
 public:
  explicit DeviceBytes(std::size_t bytes) { status_ = cudaMalloc(&memory_, bytes); }
  ~DeviceBytes() { cudaFree(memory_); }
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;
  void* get() const { return memory_; }
  bool ok() const { return status_ == cudaSuccess; }

 private:
  void* memory_ = nullptr;
  cudaError_t status_;
};

/// A matrix of small integers, which every type holds exactly, as does float32 every sum of products.
struct Matrix {
  int rows, cols, ld;
  std::vector<float> values;  // [rows, ld]; NaN beside the columns, so that a wrong ld shows

  Matrix(int rows, int cols, int factor)
      : rows(rows), cols(cols), ld(cols + 8), values(static_cast<std::size_t>(rows * ld), NAN) {
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < cols; ++j) at(i, j) = static_cast<float>((i * factor + j * 3) % 9 - 4);
    }
  }
  float& at(int i, int j) { return values[static_cast<std::size_t>(i * ld + j)]; }

  /// As it lies in memory: bfloat16 is the upper half of a float32.
  std::vector<unsigned char> bytes(ProductType type) const {
    const bool half = type == ProductType::kBfloat16;
    const std::size_t size = half ? 2 : 4;
    std::vector<unsigned char> result(values.size() * size);
    for (std::size_t i = 0; i < values.size(); ++i) {
      std::uint32_t bits = 0;
      std::memcpy(&bits, &values[i], 4);
      if (half) bits >>= 16;
      std::memcpy(&result[i * size], &bits, size);  // little endian, as every host of CUDA
    }
    return result;
  }
};

constexpr int kRows = 24, kOut = 40, kDepth = 32;

std::string checkOne(CublasLt& lt, ProductType type, bool across, void* workspace) {
  Matrix a(kRows, kDepth, 2);
  Matrix w(across ? kDepth : kOut, across ? kOut : kDepth, 5);
  Matrix c(kRows, kOut, 7);
  Matrix expected = c;
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kOut; ++j) {
      for (int p = 0; p < kDepth; ++p) {
        expected.at(i, j) += a.at(i, p) * (across ? w.at(p, j) : w.at(j, p));
      }
    }
  }

  const LtProduct product{kRows, kOut, kDepth, type, a.ld, w.ld, c.ld, across, true, 16};
  if (!lt.prepare(product)) return "the heuristic has no algorithm for it";
  const auto aBytes = a.bytes(type), wBytes = w.bytes(type),
             cBytes = c.bytes(ProductType::kFloat32);
  DeviceBytes aDevice(aBytes.size()), wDevice(wBytes.size()), cDevice(cBytes.size());
  if (!aDevice.ok() || !wDevice.ok() || !cDevice.ok()) return "out of device memory";
  const auto upload = [](const DeviceBytes& to, const std::vector<unsigned char>& from) {
    return cudaMemcpy(to.get(), from.data(), from.size(), cudaMemcpyHostToDevice) == cudaSuccess;
  };
  if (!upload(aDevice, aBytes) || !upload(wDevice, wBytes) || !upload(cDevice, cBytes)) {
    return "copying to the device failed";
  }
  lt.run(product, aDevice.get(), wDevice.get(), static_cast<float*>(cDevice.get()), workspace,
         CublasLt::kWorkspaceBytes, nullptr);
  // Waits for the product, which is on the same default stream.
  const cudaError_t status =
      cudaMemcpy(c.values.data(), cDevice.get(), cBytes.size(), cudaMemcpyDeviceToHost);
  if (status != cudaSuccess) return cudaGetErrorString(status);
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kOut; ++j) {
      if (c.at(i, j) != expected.at(i, j)) {
        return "element " + std::to_string(i) + ", " + std::to_string(j) + " is " +
               std::to_string(c.at(i, j)) + ", not " + std::to_string(expected.at(i, j));
      }
    }
  }
  return "";
}

/// The objects of this process by device. Leaked on purpose: a static destructor would run after the
/// CUDA runtime's own.
struct Registry {
  std::mutex mutex;
  std::map<int, std::weak_ptr<CublasLt>> byDevice;
};

Registry& registry() {
  static auto* instance = new Registry;
  return *instance;
}

}  // namespace

std::string checkProducts(CublasLt& lt) {
  static constexpr const char* kNames[] = {"float32", "tf32", "bfloat16"};
  const DeviceBytes workspace(CublasLt::kWorkspaceBytes);
  if (!workspace.ok()) return "out of device memory for the workspace of the test product";
  for (const ProductType type :
       {ProductType::kFloat32, ProductType::kTf32, ProductType::kBfloat16}) {
    for (const bool across : {false, true}) {
      const std::string problem = checkOne(lt, type, across, workspace.get());
      if (problem.empty()) continue;
      return std::string("the test product in ") + kNames[static_cast<int>(type)] +
             (across ? ", W across" : "") + ", is wrong: " + problem;
    }
  }
  return "";
}

std::shared_ptr<CublasLt> CublasLt::find(SearchReport* report) {
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) {
    throw Error(ErrorCode::kDeviceUnavailable, "cuBLASLt: there is no current CUDA device");
  }
  // Held during the search: a second session waits for its end instead of searching too.
  const std::lock_guard<std::mutex> lock(registry().mutex);
  std::weak_ptr<CublasLt>& known = registry().byDevice[device];
  std::shared_ptr<CublasLt> result = known.lock();
  SearchReport local;
  SearchReport& search = report == nullptr ? local : *report;
  if (result != nullptr) {
    search = {};
    search.path = result->path();
    search.version = result->version();
    return result;
  }
  const auto accept = [&](const CublasLtApi& api, const std::string& path, std::string& problem) {
    try {
      auto candidate = std::make_shared<CublasLt>(api, path);
      problem = checkProducts(*candidate);
      if (problem.empty()) result = std::move(candidate);
    } catch (const Error& error) {
      problem = error.what();
    }
    return result != nullptr;
  };
  searchCublasLt(SearchEnvironment::ofThisProcess(), search, accept);
  known = result;
  if (result == nullptr && search.demanded) {
    throw Error(
        ErrorCode::kCublasUnavailable,
        "LOKO_CUBLASLT names a cuBLASLt that cannot be used. Tried:\n" + search.text() +
            "Give the path of libcublasLt.so.13, or of its folder; or unset the variable, and "
            "products are our own, slower ones where no library is found");
  }
  return result;
}

}  // namespace loko::cuda
