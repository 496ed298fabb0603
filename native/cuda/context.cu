#include "cuda/context.h"

#include <cuda_bf16.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "cuda/cublaslt.h"
#include "cuda/predecessor.cuh"

namespace loko::cuda {

namespace {

constexpr std::int64_t kStagingBytes = 2 << 20;
constexpr int kWeightAlignment = 8;  // elements between which a row of a matrix begins

std::string textOf(cudaError_t error) {
  return std::string(cudaGetErrorName(error)) + ": " + cudaGetErrorString(error);
}

int multiprocessorsOf(int device) {
  int count = 0;
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
        "cudaDeviceGetAttribute");
  return count;
}

/// Whether device and driver know programmatic dependent launch, in graphs too.
bool canOverlap(int device) {
  int major = 0, driver = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
        "cudaDeviceGetAttribute");
  check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  return major >= 9 && driver >= 12030;
}

__global__ void kernelsAwaitKernel(unsigned* answer) {
  awaitPredecessor();
  *answer = LOKO_KERNELS_AWAIT ? 1 : 0;
}

int select(int device) {
  check(cudaSetDevice(device), "cudaSetDevice");
  return device;
}

}  // namespace

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // forgets it, unless the device is lost
  if (error == cudaErrorMemoryAllocation) {
    throw Error(ErrorCode::kOutOfMemory,
                std::string("The GPU has no memory left (") + what +
                    "); use a smaller batch, a lower rank or observationRank, or device \"cpu\"");
  }
  throw Error(ErrorCode::kDeviceFailed,
              std::string("The GPU failed in \"") + what + "\" (" + textOf(error) +
                  "). Dispose of this model; models on device \"cpu\" go on");
}

Operand operandOf(const Rows& rows) {
  Operand operand;
  operand.rows = rows;
  operand.aligned = reinterpret_cast<std::uintptr_t>(rows.data) % 16 == 0 && rows.ld % 4 == 0 &&
                    rows.sampleStride % 4 == 0;
  return operand;
}

Context::Context(const CudaOptions& options)
    : device_(select(options.device)),
      multiprocessors_(multiprocessorsOf(options.device)),
      splitBlocks_(options.splitBlocks * multiprocessors_),
      precision_(options.precision),
      partials_(splitBlocks_ * kMaxTileOutputs),
      arrivals_(splitBlocks_),
      results_(kResultBytes),
      library_(options.library != nullptr ? options.library : CublasLt::find()),
      libraryRows_(options.libraryRows),
      staging_(kStagingBytes) {
  check(cudaMemsetAsync(arrivals_.data(), 0, arrivals_.bytes(), stream()), "cudaMemsetAsync");
  overlapping_ = options.overlap && canOverlap(options.device) && kernelsAwait();
}

/// Asked of the device: machine code that its driver made of PTX for an older generation does not wait.
bool Context::kernelsAwait() {
  auto* answer = static_cast<unsigned*>(results());
  launch({"kernels await", dim3(1), dim3(1), queue()}, kernelsAwaitKernel, answer);
  unsigned found = 0;
  download(&found, answer, sizeof found);
  return found != 0;
}

void Context::synchronize(const char* what) {
  check(cudaStreamSynchronize(stream()), what);
  stagingUsed_ = 0;
}

// ---- spaces

DeviceArray<float>& Context::space(Space space) {
  return memoryOf(space, scratch_, input_, theta_, jacobian_);
}

template <class T>
void Context::grow(DeviceArray<T>& array, std::int64_t size, const char* what) {
  if (size <= array.size()) return;
  synchronize(what);
  array = DeviceArray<T>();  // frees first: both at once may not fit
  ++generation_;
  array = DeviceArray<T>(size);
}

void Context::reserve(Space which, std::int64_t elements) {
  DeviceArray<float>& array = space(which);
  if (elements <= array.size()) return;
  if (which != Space::kTheta) {
    grow(array, elements, "reserve");
    return;
  }
  DeviceArray<float> larger(elements);
  if (array.size() > 0) {
    check(cudaMemcpyAsync(larger.data(), array.data(), array.bytes(), cudaMemcpyDeviceToDevice,
                          stream()),
          "cudaMemcpyAsync");
  }
  synchronize("reserve");
  array = std::move(larger);
  ++generation_;
}

void Context::reserveJacobian(std::int64_t rows, std::int64_t parameters) {
  reserve(Space::kJacobian, jacobianSize(rows, parameters));
  if (parameters != parameters_) ++generation_;
  parameters_ = parameters;
}

float* Context::range(Space which, std::int64_t offset, std::int64_t count) {
  const DeviceArray<float>& array = space(which);
  LOKO_CHECK(offset >= 0 && count >= 0 && offset + count <= array.size(),
             "elements beyond the end of a space");
  return array.data() + offset;
}

Rows Context::rows(const View& view, int samples) {
  if (!view.present()) return {};
  const DeviceArray<float>& memory = space(view.space);
  checkInside(view, samples, memory.size());
  Rows rows;
  rows.data = memory.data() + view.offset;
  rows.rows = view.rows;
  rows.samples = samples;
  rows.ld = view.ld;
  rows.sampleStride = view.sampleStride;
  return rows;
}

float* Context::jacobian(std::int64_t row, ParameterOffset offset, std::int64_t count) {
  LOKO_CHECK(offset >= 0 && offset + count <= parameters_, "columns beyond those of the Jacobian");
  return range(Space::kJacobian, row * parameters_ + offset, count);
}

// ---- frozen weights

WeightId Context::keep(Weight weight) {
  synchronize("upload of a weight");
  weights_.push_back(std::move(weight));
  return static_cast<WeightId>(weights_.size()) - 1;
}

WeightId Context::addMatrix(const float* data, int out, int in) {
  Weight weight;
  weight.out = out;
  weight.in = in;
  weight.ld = ceilDiv(in, kWeightAlignment) * kWeightAlignment;
  const std::int64_t size = out * weight.ld;
  const auto padded = [&](auto* target, const auto& convert) {
    for (std::int64_t row = 0; row < out; ++row) {
      std::transform(data + row * in, data + (row + 1) * in, target + row * weight.ld, convert);
    }
  };
  if (precision_ == Precision::kBfloat16) {
    std::vector<__nv_bfloat16> host(static_cast<std::size_t>(size), __float2bfloat16_rn(0));
    padded(host.data(), [](float value) { return __float2bfloat16_rn(value); });
    weight.halves = DeviceArray<std::uint16_t>(size);
    upload(weight.halves.data(), host.data(), weight.halves.bytes());
  } else {
    std::vector<float> host(static_cast<std::size_t>(size));
    padded(host.data(), [](float value) { return value; });
    weight.floats = DeviceArray<float>(size);
    upload(weight.floats.data(), host.data(), weight.floats.bytes());
  }
  return keep(std::move(weight));
}

WeightId Context::addVector(const float* data, std::int64_t size) {
  Weight weight;
  weight.size = size;
  weight.floats = DeviceArray<float>(size);
  upload(weight.floats.data(), data, weight.floats.bytes());
  return keep(std::move(weight));
}

// All of it: a row is chosen on the device.
WeightId Context::addTable(int rows, int cols, const std::function<void(int, float*)>& readRow) {
  Weight weight;
  weight.size = std::int64_t{rows} * cols;
  weight.floats = DeviceArray<float>(weight.size);
  const int atOnce = std::max(1, static_cast<int>(kStagingBytes / 4) / std::max(cols, 1));
  std::vector<float> host(static_cast<std::size_t>(atOnce) * static_cast<std::size_t>(cols));
  for (int begin = 0; begin < rows; begin += atOnce) {
    const int count = std::min(atOnce, rows - begin);
    for (int i = 0; i < count; ++i) readRow(begin + i, host.data() + std::int64_t{i} * cols);
    upload(weight.floats.data() + std::int64_t{begin} * cols, host.data(),
           static_cast<std::size_t>(count) * static_cast<std::size_t>(cols) * sizeof(float));
  }
  return keep(std::move(weight));
}

void Context::release(WeightId id) {
  synchronize("release of a weight");
  weight(id);
  weights_[static_cast<std::size_t>(id)] = Weight{};
}

const Context::Weight& Context::weight(WeightId id) const {
  LOKO_CHECK(id >= 0 && id < static_cast<WeightId>(weights_.size()), "an unknown weight");
  return weights_[static_cast<std::size_t>(id)];
}

Operand Context::matrix(WeightId id, int out, int in) const {
  const Weight& found = weight(id);
  LOKO_CHECK(found.out == out && found.in == in,
             "a matrix of " + std::to_string(found.out) + " x " + std::to_string(found.in));
  Operand operand;
  operand.half = precision_ == Precision::kBfloat16;
  operand.aligned = true;
  operand.rows.rows = out;
  operand.rows.ld = found.ld;
  operand.rows.data =
      operand.half ? reinterpret_cast<float*>(found.halves.data()) : found.floats.data();
  return operand;
}

const float* Context::vector(WeightId id, std::int64_t size) const {
  const Weight& found = weight(id);
  LOKO_CHECK(found.size == size, "a vector of " + std::to_string(found.size) + " elements");
  return found.floats.data();
}

// ---- workspace

void Context::needFloats(std::int64_t count) {
  grow(floats_, count, "workspace");
}

float* Context::floats(std::int64_t count) {
  LOKO_CHECK(count <= floats_.size(), "workspace that prepare() did not ask for");
  return floats_.data();
}

void Context::needLibrary() {
  grow(libraryWorkspace_, CublasLt::kWorkspaceBytes, "workspace of cuBLASLt");
}

void Context::needRows(int rows) {
  const std::int64_t k = rows;
  grow(gram_, k * k, "Gram matrix");
  grow(gramPartials_, gramPartialCount(rows), "Gram matrix");
  grow(coefficients_, (2 * k + 1) * k, "Kalman update");
}

double* Context::gram(int rows) {
  LOKO_CHECK(std::int64_t{rows} * rows <= gram_.size(), "a Gram matrix that was not prepared");
  return gram_.data();
}

double* Context::gramPartials(std::int64_t count) {
  LOKO_CHECK(count <= gramPartials_.size(), "a Gram matrix that was not prepared");
  return gramPartials_.data();
}

float* Context::coefficients(int count, int width) {
  LOKO_CHECK(std::int64_t{count} * width <= coefficients_.size(),
             "a Kalman update that was not prepared");
  return coefficients_.data();
}

// ---- between host and device

void Context::upload(void* target, const void* source, std::size_t bytes) {
  const auto room = static_cast<std::size_t>(staging_.size());
  for (std::size_t begin = 0; begin < bytes;) {
    if (stagingUsed_ == room) synchronize("copy to the device");
    const std::size_t count = std::min(bytes - begin, room - stagingUsed_);
    char* staged = staging_.data() + stagingUsed_;
    std::memcpy(staged, static_cast<const char*>(source) + begin, count);
    check(cudaMemcpyAsync(static_cast<char*>(target) + begin, staged, count, cudaMemcpyHostToDevice,
                          stream()),
          "copy to the device");
    stagingUsed_ += count;
    begin += count;
  }
}

void Context::download(void* target, const void* source, std::size_t bytes) {
  const auto room = static_cast<std::size_t>(staging_.size());
  for (std::size_t begin = 0; begin < bytes;) {
    const std::size_t wanted = std::min(bytes - begin, room);
    if (wanted > room - stagingUsed_) synchronize("copy from the device");
    char* staged = staging_.data() + stagingUsed_;
    check(cudaMemcpyAsync(staged, static_cast<const char*>(source) + begin, wanted,
                          cudaMemcpyDeviceToHost, stream()),
          "copy from the device");
    synchronize("copy from the device");
    std::memcpy(static_cast<char*>(target) + begin, staged, wanted);
    begin += wanted;
  }
}

}  // namespace loko::cuda
