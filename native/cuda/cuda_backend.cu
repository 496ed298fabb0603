#include "cuda/cuda_backend.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "cuda/context.h"
#include "cuda/device.h"
#include "cuda/graph_cache.h"
#include "cuda/predecessor.cuh"

namespace loko::cuda {

namespace {

State& stateOf(StateArray& state) {
  return dynamic_cast<State&>(state);
}

const char* precisionName(Precision precision) {
  switch (precision) {
    case Precision::kFloat32:
      return "float32";
    case Precision::kTf32:
      return "tf32";
    case Precision::kBfloat16:
      return "bfloat16";
  }
  return "";
}

/// Of a variable of the environment: neither empty nor 0; `otherwise` where it is empty or absent.
bool isOn(const char* variable, bool otherwise) {
  const char* value = std::getenv(variable);
  if (value == nullptr || *value == '\0') return otherwise;
  return std::string(value) != "0";
}

CudaOptions withEnvironment(CudaOptions options) {
  options.overlap = options.overlap && isOn("LOKO_CUDA_OVERLAP", true);
  return options;
}

__global__ void fillKernel(float* values, std::int64_t count, float value) {
  awaitPredecessor();
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    values[i] = value;
  }
}

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const CudaOptions& options)
      : context_(withEnvironment(options)), waits_(isOn("LOKO_CUDA_SYNC", false)) {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, options.device), "cudaGetDeviceProperties");
    description_ = std::string(properties.name) + ", " + precisionName(options.precision) +
                   (context_.library() != nullptr ? "" : ", without cuBLASLt");
  }

  const char* name() const override { return "cuda"; }
  std::string description() const override { return description_; }
  PassLimits passLimits() const override { return {std::int64_t{512} << 20, 256}; }

  WeightId addMatrix(const float* data, int out, int in) override {
    return guard([&] { return context_.addMatrix(data, out, in); });
  }
  WeightId addVector(const float* data, std::int64_t size) override {
    return guard([&] { return context_.addVector(data, size); });
  }
  WeightId addTable(int rows, int cols, std::function<void(int, float*)> readRow) override {
    return guard([&] { return context_.addTable(rows, cols, readRow); });
  }
  void release(WeightId weight) override {
    guard([&] {
      graphs_.clear();
      context_.release(weight);
    });
  }

  void reserve(Space space, std::int64_t elements) override {
    guard([&] { context_.reserve(space, elements); });
  }
  void reserveJacobian(std::int64_t rows, std::int64_t parameters) override {
    guard([&] { context_.reserveJacobian(rows, parameters); });
  }
  void write(Space space, std::int64_t offset, const float* source, std::int64_t count) override {
    guard([&] { context_.upload(context_.range(space, offset, count), source, bytesOf(count)); });
  }
  void read(Space space, std::int64_t offset, float* target, std::int64_t count) override {
    guard([&] { context_.download(target, context_.range(space, offset, count), bytesOf(count)); });
  }
  void readView(const View& view, int samples, double* target) override {
    guard([&] { readRows(view, samples, target); });
  }
  void writeView(const View& view, int samples, const double* source) override {
    guard([&] { writeRows(view, samples, source); });
  }

  void prepare(const std::vector<Step>& steps, const WorkspaceHint& hint) override {
    guard([&] {
      graphs_.forget(steps.data());
      for (const Step& step : steps) {
        std::visit([&](const auto& op) { cuda::prepare(op, hint, context_); }, step);
      }
      if (hint.maxGramRows > 0) context_.needRows(hint.maxGramRows);
    });
  }

  void run(const Step& step, const Frame& frame) override {
    guard([&] {
      beginGram(frame);
      runStep(step, frame);
      if (std::holds_alternative<Gram>(step)) endGram(frame);
    });
  }
  void runAll(const std::vector<Step>& steps, const Frame& frame) override {
    guard([&] {
      const auto enqueue = [&] { enqueueAll(steps, frame); };
      if (waits_) {
        enqueue();
      } else {
        graphs_.run({steps.data(), frame, valuesOf(frame.gramWeights), valuesOf(frame.factor)},
                    context_.generation(), context_.stream(), enqueue);
      }
      endGram(frame);
    });
  }

  std::unique_ptr<StateArray> makeState(std::int64_t size, double value) override {
    return guard([&]() -> std::unique_ptr<StateArray> {
      auto state = std::make_unique<State>(size);
      fillValues(state->values(), size, static_cast<float>(value));
      return state;
    });
  }
  void fill(StateArray& state, std::int64_t begin, std::int64_t end, double value) override {
    checkRange(state, begin, end);
    guard([&] {
      fillValues(stateOf(state).values() + begin, end - begin, static_cast<float>(value));
    });
  }
  void readState(const StateArray& state, double* target) override {
    guard([&] {
      std::vector<float> values(static_cast<std::size_t>(state.size()));
      context_.download(values.data(), dynamic_cast<const State&>(state).values(),
                        bytesOf(state.size()));
      std::copy(values.begin(), values.end(), target);
    });
  }
  void writeState(StateArray& state, std::int64_t begin, std::int64_t end,
                  const double* source) override {
    checkRange(state, begin, end);
    guard([&] {
      std::vector<float> values(static_cast<std::size_t>(end - begin));
      std::transform(source, source + (end - begin), values.begin(),
                     [](double value) { return static_cast<float>(value); });
      context_.upload(stateOf(state).values() + begin, values.data(), bytesOf(end - begin));
    });
  }

  void transition(StateArray& state, std::int64_t begin, std::int64_t end,
                  const Transition& by) override {
    checkRange(state, begin, end);
    guard([&] { cuda::transition(stateOf(state).values() + begin, end - begin, by, context_); });
  }
  void capVariance(StateArray& p, double most, StateArray& factor, int firstRow,
                   int lastRow) override {
    checkRows(factor, p.size(), firstRow, lastRow);
    guard(
        [&] { cuda::capVariance(stateOf(p), most, stateOf(factor), firstRow, lastRow, context_); });
  }
  KalmanUpdateResult kalmanUpdate(const KalmanUpdate& update, StateArray& p) override {
    return guard([&] { return cuda::kalmanUpdate(update, stateOf(p), context_); });
  }
  void gradientUpdate(const GradientUpdate& update,
                      const std::vector<StateArray*>& state) override {
    guard([&] { cuda::gradientUpdate(update, state, context_); });
  }
  bool gradientIsFinite() override {
    return guard([&] { return cuda::gradientIsFinite(context_); });
  }

 private:
  static std::size_t bytesOf(std::int64_t count) {
    return static_cast<std::size_t>(count) * sizeof(float);
  }

  /// An error of the device is the last thing that a session learns from it.
  template <class Body>
  auto guard(const Body& body) -> decltype(body()) {
    if (!failure_.empty()) throw Error(ErrorCode::kDeviceFailed, failure_);
    try {
      return body();
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kDeviceFailed) failure_ = error.what();
      throw;
    }
  }

  static const float* valuesOf(const StateArray* state) {
    return state != nullptr ? dynamic_cast<const State&>(*state).values() : nullptr;
  }

  void runStep(const Step& step, const Frame& frame) {
    try {
      std::visit([&](const auto& op) { cuda::run(op, frame, context_); }, step);
      if (waits_) context_.synchronize(stepName(step));
    } catch (const Error& error) {
      throw Error(error.code(), std::string("In step ") + stepName(step) + ": " + error.what());
    }
  }

  /// The Gram steps of a list as one where they lie side by side: the Jacobian is in cache anyway, and
  /// every launch counts at batch 1.
  void enqueueAll(const std::vector<Step>& steps, const Frame& frame) {
    beginGram(frame);
    Gram all{0, 0};
    std::int64_t columns = 0;
    for (const Step& step : steps) {
      const auto* part = std::get_if<Gram>(&step);
      if (part == nullptr) {
        runStep(step, frame);
      } else if (part->end > part->begin) {
        all.begin = columns == 0 ? part->begin : std::min(all.begin, part->begin);
        all.end = std::max(all.end, part->end);
        columns += part->end - part->begin;
      }
    }
    if (frame.gram == nullptr || columns == 0) return;
    if (all.end - all.begin == columns) {
      runStep(all, frame);
      return;
    }
    for (const Step& step : steps) {
      if (std::holds_alternative<Gram>(step)) runStep(step, frame);
    }
  }

  void beginGram(const Frame& frame) {
    if (frame.gram == nullptr) return;
    check(cudaMemsetAsync(context_.gram(frame.gramSize()), 0, gramEntries(frame) * sizeof(double),
                          context_.stream()),
          "cudaMemsetAsync");
  }
  void endGram(const Frame& frame) {
    if (frame.gram == nullptr) return;
    gramCopy_.resize(gramEntries(frame));
    context_.download(gramCopy_.data(), context_.gram(frame.gramSize()),
                      gramCopy_.size() * sizeof(double));
    for (std::size_t i = 0; i < gramCopy_.size(); ++i) frame.gram[i] += gramCopy_[i];
  }
  static std::size_t gramEntries(const Frame& frame) {
    return static_cast<std::size_t>(frame.gramSize()) * static_cast<std::size_t>(frame.gramSize());
  }

  void fillValues(float* values, std::int64_t count, float value) {
    if (count == 0) return;
    constexpr int kThreads = 256;
    launch({"fill", dim3(blocksFor(count, kThreads, 4096)), dim3(kThreads), context_.queue()},
           fillKernel, values, count, value);
  }

  /// Of the span that a view lies in, which is copied as a whole.
  template <class Visit>
  void forEachRow(const View& view, int samples, const Visit& visit) {
    for (int s = 0; s < samples; ++s) {
      for (int t = 0; t < view.rows; ++t) {
        visit(rowCopy_.data() + s * view.sampleStride + t * view.ld);
      }
    }
  }
  void readRows(const View& view, int samples, double* target) {
    const std::int64_t span = spanOf(view, samples);
    rowCopy_.resize(static_cast<std::size_t>(span));
    context_.download(rowCopy_.data(), context_.range(view.space, view.offset, span),
                      bytesOf(span));
    forEachRow(view, samples, [&](float* row) { target = std::copy_n(row, view.cols, target); });
  }
  void writeRows(const View& view, int samples, const double* source) {
    const std::int64_t span = spanOf(view, samples);
    rowCopy_.resize(static_cast<std::size_t>(span));
    float* device = context_.range(view.space, view.offset, span);
    const bool gaps = span != std::int64_t{samples} * view.rows * view.cols;
    if (gaps) context_.download(rowCopy_.data(), device, bytesOf(span));
    forEachRow(view, samples, [&](float* row) {
      for (int c = 0; c < view.cols; ++c) row[c] = static_cast<float>(*source++);
    });
    context_.upload(device, rowCopy_.data(), bytesOf(span));
  }

  Context context_;
  GraphCache graphs_;  // goes before the stream that it launches on
  const bool waits_;   // for every step, so that an error names the one that made it
  std::string description_, failure_;
  std::vector<double> gramCopy_;
  std::vector<float> rowCopy_;
};

}  // namespace

std::unique_ptr<Backend> makeCudaBackend(const CudaOptions& options) {
  const DeviceReport report = deviceReport();
  if (!report.available) {
    throw Error(ErrorCode::kDeviceUnavailable,
                "Device \"cuda\" is not available: " + report.message);
  }
  return std::make_unique<CudaBackend>(options);
}

}  // namespace loko::cuda
