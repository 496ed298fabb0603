#pragma once

// What the operations of the CUDA backend work with: a stream, the spaces that views address, frozen
// weights and workspace. One context belongs to one session and to its thread; all work goes on its one
// stream, so kernels follow one another and may share the workspace.

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/op.h"
#include "core/op_checks.h"
#include "core/status.h"
#include "cuda/cuda_backend.h"
#include "cuda/memory.h"
#include "cuda/product.h"

namespace loko::cuda {

class CublasLt;

class State final : public StateArray {
 public:
  explicit State(std::int64_t size) : memory_(size) {}
  std::int64_t size() const override { return memory_.size(); }
  float* values() const { return memory_.data(); }

 private:
  DeviceArray<float> memory_;
};

/// The rows [rows, n] of a factor, null where there is none.
inline float* factorValues(const StateArray* factor, int rows, std::int64_t n) {
  const auto* state = dynamic_cast<const State*>(factor);
  LOKO_CHECK(rows >= 0 && (state != nullptr ? state->size() : 0) == rows * n,
             "a factor has another size");
  return state != nullptr ? state->values() : nullptr;
}

class Context {
 public:
  explicit Context(const CudaOptions& options);

  cudaStream_t stream() const { return stream_.get(); }
  Queue queue() const { return {stream(), overlapping_}; }
  int multiprocessors() const { return multiprocessors_; }
  Precision precision() const { return precision_; }
  /// Waits for everything on the stream; `what` names it in an error.
  void synchronize(const char* what);

  // ---- spaces
  void reserve(Space space, std::int64_t elements);
  void reserveJacobian(std::int64_t rows, std::int64_t parameters);
  /// Elements [offset, offset + count) of a space.
  float* range(Space space, std::int64_t offset, std::int64_t count);
  std::int64_t parameters() const { return parameters_; }
  /// Changes whenever an address changes that a captured graph may hold.
  std::int64_t generation() const { return generation_; }

  /// The rows of a view over `samples` samples or segments; absent where the view is.
  Rows rows(const View& view, int samples);
  float* parameter(ParameterOffset offset, std::int64_t count) {
    return range(Space::kTheta, offset, count);
  }
  /// Row `row` of the Jacobian at column `offset`; count columns are going to be touched.
  float* jacobian(std::int64_t row, ParameterOffset offset, std::int64_t count);

  // ---- frozen weights
  WeightId addMatrix(const float* data, int out, int in);
  WeightId addVector(const float* data, std::int64_t size);
  WeightId addTable(int rows, int cols, const std::function<void(int, float*)>& readRow);
  void release(WeightId id);
  /// [out, in], in the element type of the precision.
  Operand matrix(WeightId id, int out, int in) const;
  const float* vector(WeightId id, std::int64_t size) const;

  // ---- workspace, shared by all kernels of the stream: need*() belong to prepare(), the others to run()
  static constexpr std::int64_t kMaxTileOutputs = 64 * 64;
  static constexpr std::int64_t kResultBytes = 64 * 1024;
  /// Sums of products whose depth is split, and how many shares of each tile have come: room for
  /// splitBlocks() tiles times shares.
  int splitBlocks() const { return splitBlocks_; }
  float* partials() const { return partials_.data(); }
  unsigned* arrivals() const { return arrivals_.data(); }
  void needFloats(std::int64_t count);
  float* floats(std::int64_t count);
  /// For Gram matrices and updates of at most that many rows, those of a factor included.
  void needRows(int rows);
  double* gram(int rows);  // [rows, rows]
  double* gramPartials(std::int64_t count);
  /// [count, width]; an update has at most 2 * width + 1 rows of them.
  float* coefficients(int count, int width);
  void* results() const { return results_.data(); }

  /// cuBLASLt; null where there is none.
  CublasLt* library() const { return library_.get(); }
  /// A product of fewer rows is the tile kernel's alone.
  int libraryRows() const { return libraryRows_; }
  void needLibrary();
  void* libraryWorkspace() const { return libraryWorkspace_.data(); }

  // ---- between host and device; the host's memory is free when these return
  void upload(void* target, const void* source, std::size_t bytes);
  void download(void* target, const void* source, std::size_t bytes);

 private:
  struct Weight {
    DeviceArray<float> floats;
    DeviceArray<std::uint16_t> halves;
    std::int64_t size = 0;  // of a vector or table
    std::int64_t ld = 0;    // of a matrix
    int out = 0, in = 0;
  };
  const Weight& weight(WeightId id) const;
  WeightId keep(Weight weight);
  bool kernelsAwait();
  DeviceArray<float>& space(Space space);
  template <class T>
  void grow(DeviceArray<T>& array, std::int64_t size, const char* what);

  int device_ = 0, multiprocessors_ = 1, splitBlocks_ = 0;
  Precision precision_;
  bool overlapping_ = false;
  Stream stream_;
  DeviceArray<float> scratch_, input_, theta_, jacobian_;
  std::int64_t parameters_ = 0, generation_ = 0;
  std::vector<Weight> weights_;

  DeviceArray<float> partials_, floats_, coefficients_;
  DeviceArray<unsigned> arrivals_;
  DeviceArray<double> gramPartials_, gram_;
  DeviceArray<char> results_;
  std::shared_ptr<CublasLt> library_;
  int libraryRows_ = 0;
  DeviceArray<char> libraryWorkspace_;
  StagingArray<char> staging_;
  std::size_t stagingUsed_ = 0;  // of copies that may still be reading it
};

/// Whether vectors of four floats may be read from every row.
Operand operandOf(const Rows& rows);

// Every operation: sizes its workspace, and runs. What is not declared needs none.
template <class Operation>
void prepare(const Operation&, const WorkspaceHint&, Context&) {}
void prepare(const Linear& op, const WorkspaceHint& hint, Context& context);
void prepare(const LinearBackward& op, const WorkspaceHint& hint, Context& context);
void prepare(const Attention& op, const WorkspaceHint& hint, Context& context);
void prepare(const AttentionBackward& op, const WorkspaceHint& hint, Context& context);
void prepare(const ConvLoraDown& op, const WorkspaceHint& hint, Context& context);
void prepare(const Conv2dBackward& op, const WorkspaceHint& hint, Context& context);

#define LOKO_RUN(Operation) void run(const Operation& op, const Frame& frame, Context& context);
LOKO_OPERATIONS(LOKO_RUN)
#undef LOKO_RUN

/// Doubles that the Gram matrix of so many rows, or of fewer, adds up from.
std::int64_t gramPartialCount(int rows);

void transition(float* values, std::int64_t n, const Transition& by, Context& context);
void capVariance(State& p, double most, State& factor, int firstRow, int lastRow, Context& context);
KalmanUpdateResult kalmanUpdate(const KalmanUpdate& update, State& p, Context& context);
void gradientUpdate(const GradientUpdate& update, const std::vector<StateArray*>& state,
                    Context& context);
bool gradientIsFinite(Context& context);

}  // namespace loko::cuda
