#pragma once

// What the operations of the CPU backend work with: kernels, threads, the spaces that views address,
// frozen weights, and scratch memory. All of it is sized by prepare(); inside run() nothing here
// allocates.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/op.h"
#include "core/op_checks.h"
#include "core/status.h"
#include "cpu/gemm.h"
#include "cpu/isa.h"
#include "cpu/memory.h"
#include "cpu/op_kernels.h"
#include "cpu/pool.h"

namespace loko::cpu {

/// Multiply-adds (memory-bound work counts about ten per element) that pay for waking a thread.
constexpr std::int64_t kWorkPerPart = 500000;

class State final : public StateArray {
 public:
  explicit State(std::int64_t size) { memory_.grow(size); }
  std::int64_t size() const override { return memory_.size(); }
  float* values() const { return memory_.data(); }

 private:
  MappedFloats memory_{"optimizer state"};
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
  Context(int threads, Isa isa);

  const Isa isa;
  const Kernels& kernels;
  const OpKernels& ops;
  ThreadPool pool;

  // ---- spaces
  MappedFloats& space(Space space);
  std::int64_t parameters() const { return parameters_; }
  void reserveJacobian(std::int64_t rows, std::int64_t parameters);

  /// First element of a view over `samples` samples or segments; null where it is absent.
  float* at(const View& view, int samples);
  RowMap rows(const View& view, int samples);
  MutableRowMap writableRows(const View& view, int samples);
  /// theta[offset, offset + count).
  float* parameter(ParameterOffset offset, std::int64_t count);
  /// Row `row` of the Jacobian at column `offset`; count columns are going to be touched.
  float* jacobian(std::int64_t row, ParameterOffset offset, std::int64_t count);

  // ---- frozen weights
  WeightId addMatrix(const float* data, int out, int in);
  WeightId addVector(const float* data, std::int64_t size);
  WeightId addTable(int rows, int cols, std::function<void(int, float*)> readRow);
  void release(WeightId id);
  /// The matrix [out, in], packed as B[in, out].
  const PackedMatrix& matrix(WeightId id, int out, int in) const;
  const float* vector(WeightId id, std::int64_t size) const;
  RowTable& table(WeightId id, int rows, int cols);

  // ---- scratch: the need*() functions belong to prepare(), the others to run()
  void needGemm(std::int64_t m, int n, int k, int rank = 0);
  /// For a packed B that is read transposed.
  void needTransposedGemm(std::int64_t m, int n, int k, int rank = 0);
  void gemm(const GemmArgs& args);
  void needTail(int rank, int n);
  /// The tail of that extent, packed from the sites: frozen shape, contents of this step.
  const PackedTail& packTail(int rank, int n, const TailSite* sites, int count);
  /// Floats shared by all threads of one operation.
  void needShared(std::size_t floats);
  float* shared(std::size_t floats);
  /// Floats for each thread.
  void needLocal(std::size_t floats);
  float* local(int part, std::size_t floats);

  /// Calls fn(begin, end, part) for contiguous shares of [0, count), on as many threads as this much
  /// work is worth waking. Items must be independent: the result may not depend on the split. `part`
  /// is for local().
  template <typename Fn>
  void forEachRange(std::int64_t count, std::int64_t workPerItem, Fn&& fn) {
    const std::int64_t worth = std::max<std::int64_t>(1, count * workPerItem / kWorkPerPart);
    const int most = static_cast<int>(std::min<std::int64_t>({worth, count, pool.threads()}));
    if (most <= 1) {
      fn(std::int64_t{0}, count, 0);
      return;
    }
    pool.run(
        [&](int part, int parts) { fn(count * part / parts, count * (part + 1) / parts, part); },
        most);
  }
  template <typename Fn>
  void forEach(std::int64_t count, std::int64_t workPerItem, Fn&& fn) {
    forEachRange(count, workPerItem, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i) fn(i);
    });
  }

 private:
  struct Weight {
    PackedMatrix matrix;
    float* arena = nullptr;  // the matrix's memory, where it is a large one
    AlignedFloats vector;
    std::unique_ptr<RowTable> table;
    std::int64_t size = 0;  // of a vector
    int out = 0, in = 0;    // of a matrix
  };
  const Weight& weight(WeightId id) const;
  PackedMatrix transposed(const PackedMatrix& matrix);
  static void grow(AlignedFloats& memory, std::size_t& size, std::size_t floats);

  MappedFloats scratch_{"activations"}, input_{"the input batch"}, theta_{"parameters"};
  MappedFloats jacobian_{"the Jacobian"};
  std::int64_t parameters_ = 0;
  std::vector<Weight> weights_;
  WeightArena arena_;

  std::vector<std::unique_ptr<PackedTail>> tails_;
  AlignedFloats gemmScratch_, transposed_, shared_, local_;
  std::size_t gemmFloats_ = 0, transposedFloats_ = 0, sharedFloats_ = 0,
              localFloats_ = 0;  // local: of one thread
  std::size_t localTotal_ = 0;
};

// Every operation: sizes its scratch, and runs. What is not declared needs no scratch.
template <class Operation>
void prepare(const Operation&, const WorkspaceHint&, Context&) {}
void prepare(const LoraDown& op, const WorkspaceHint& hint, Context& context);
void prepare(const Linear& op, const WorkspaceHint& hint, Context& context);
void prepare(const Attention& op, const WorkspaceHint& hint, Context& context);
void prepare(const ConvLoraDown& op, const WorkspaceHint& hint, Context& context);
void prepare(const Conv2d& op, const WorkspaceHint& hint, Context& context);
void prepare(const ConvLoraBackward& op, const WorkspaceHint& hint, Context& context);
void prepare(const Conv2dBackward& op, const WorkspaceHint& hint, Context& context);
void prepare(const LoraBackward& op, const WorkspaceHint& hint, Context& context);
void prepare(const WeightBackward& op, const WorkspaceHint& hint, Context& context);
void prepare(const LinearBackward& op, const WorkspaceHint& hint, Context& context);
void prepare(const AttentionBackward& op, const WorkspaceHint& hint, Context& context);

#define LOKO_RUN(Operation) void run(const Operation& op, const Frame& frame, Context& context);
LOKO_OPERATIONS(LOKO_RUN)
#undef LOKO_RUN

// Scratch of the filter, for at most `rows` rows, those of a factor included.
void prepareGram(int rows, Context& context);
void prepareKalmanUpdate(int rows, Context& context);

void transition(float* values, std::int64_t n, const Transition& by, Context& context);
void capVariance(State& p, double most, State& factor, int firstRow, int lastRow, Context& context);
KalmanUpdateResult kalmanUpdate(const KalmanUpdate& update, State& p, Context& context);
void gradientUpdate(const GradientUpdate& update, const std::vector<StateArray*>& state,
                    Context& context);
bool gradientIsFinite(Context& context);

}  // namespace loko::cpu
