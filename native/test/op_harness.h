#pragma once

// Runs one step in every backend on operands laid out as badly as a plan may lay them out, and
// compares every element with the specification (native/ref) and its rounding bound (op_bound.h).

#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "core/op_views.h"
#include "op_allocations.h"
#include "op_bound.h"
#include "op_candidates.h"
#include "ref/attention.h"
#include "ref/image.h"
#include "ref/linear.h"
#include "ref/norm.h"
#include "ref/tokens.h"
#include "ref/update.h"

namespace loko::test {

// ---- backends ---------------------------------------------------------------------------------

/// Runs f, which may not allocate in a backend made for production.
template <class F>
void withoutAllocation(const Candidate& candidate, const F& f) {
  const std::int64_t before = allocationCount;
  f();
  const std::int64_t count = allocationCount - before;
  if (candidate.mayAllocate || !kCountsAllocations) return;
  CHECK_MESSAGE(count == 0, count << " allocations after prepare()");
}

// ---- operands ---------------------------------------------------------------------------------

enum class Axis : std::uint8_t { kSamples, kSegments };  // activation or cotangent
enum class Role : std::uint8_t { kRead, kWritten, kUpdated };

enum class Values : std::uint8_t {
  kNormal,
  // Multiples of 1/2 in [-1, 1]: single precision holds every sum of products of the test shapes, so
  // multilinear operations must agree with the specification to the last bit.
  kExact,
};

enum class Layout : std::uint8_t { kDense, kSliced, kMixed, kColumns };

/// One step with its operands. Everything in scratch that is no operand is a guard.
class OpCase {
 public:
  OpCase(int batch, int rows, Layout layout = Layout::kDense, Values values = Values::kNormal)
      : layout_(layout),
        values_(values),
        allSegments_(batch * rows),
        random_(12345u + 7u * static_cast<unsigned>(batch) + static_cast<unsigned>(rows)) {
    frame.batch = batch;
    frame.rows = rows;
    frame.firstRow = 2;  // rows 0 and 1 of the Jacobian are guards
  }

  Step step;
  Frame frame;
  bool indexesInput = false;  // the input holds row numbers: nothing else may stand there

  void reduce() {
    frame.reduce = true;
    frame.firstRow = 0;
  }

  /// Sliced: columns out of a wider buffer, rows out of a longer one, at an odd offset. Columns: as q, k and v
  /// lie beside one another, whole rows of a buffer in which vectors stay aligned.
  View operand(Axis axis, Role role, int rows, int cols, Space space = Space::kScratch) {
    const int id = static_cast<int>(buffers_.size());
    const bool sliced = layout_ == Layout::kSliced || (layout_ == Layout::kMixed && id % 2 == 0);
    std::vector<float>& memory = space == Space::kInput ? input : scratch;
    std::vector<char>& roles = space == Space::kInput ? inputRoles_ : scratchRoles_;
    View view;
    view.space = space;
    view.rows = rows;
    view.cols = cols;
    const bool columns = layout_ == Layout::kColumns;
    view.ld = sliced ? cols + 5 : columns ? cols + 8 : cols;
    view.sampleStride = view.ld * (sliced ? rows + 2 : rows);
    view.buffer = id;
    const int samples = axis == Axis::kSamples ? frame.batch : frame.segments();
    const std::int64_t begin = (static_cast<std::int64_t>(memory.size()) + 31) / 16 * 16;
    view.offset = begin + (sliced ? 3 : columns ? 4 : 0);
    memory.resize(static_cast<std::size_t>(begin + samples * view.sampleStride + 16));
    roles.resize(memory.size(), kGuard);
    for (int s = 0; s < samples; ++s) {
      for (int t = 0; t < rows; ++t) {
        for (int c = 0; c < cols; ++c) {
          const auto i =
              static_cast<std::size_t>(view.offset + s * view.sampleStride + t * view.ld + c);
          memory[i] = draw();
          roles[i] = role == Role::kRead ? kRead : role == Role::kWritten ? kWritten : kUpdated;
        }
      }
    }
    buffers_.push_back({view, axis});
    return view;
  }
  View read(Axis axis, int rows, int cols) { return operand(axis, Role::kRead, rows, cols); }
  View written(Axis axis, int rows, int cols) { return operand(axis, Role::kWritten, rows, cols); }
  /// A cotangent that a backward step adds to, or writes.
  View target(bool accumulate, int rows, int cols) {
    return operand(Axis::kSegments, accumulate ? Role::kUpdated : Role::kWritten, rows, cols);
  }

  /// Of the keys of attention: of each sample other ones are hidden, and never all.
  View mask(int keys) {
    const View view = operand(Axis::kSamples, Role::kRead, 1, keys, Space::kInput);
    for (int s = 0; s < frame.batch; ++s) {
      for (int j = 0; j < keys; ++j) {
        const bool hidden = keys > 1 && (j + s) % 3 == 1;
        input[static_cast<std::size_t>(view.offset + s * view.sampleStride + j)] =
            hidden ? -INFINITY : 0.0f;
      }
    }
    return view;
  }
  /// Numbers of rows of a table.
  View indices(int count, int tableRows) {
    const View view = operand(Axis::kSamples, Role::kRead, 1, count, Space::kInput);
    for (int s = 0; s < frame.batch; ++s) {
      for (int j = 0; j < count; ++j) {
        input[static_cast<std::size_t>(view.offset + s * view.sampleStride + j)] =
            static_cast<float>(random_() % static_cast<unsigned>(tableRows));
      }
    }
    indexesInput = true;
    return view;
  }

  /// Room in theta and the Jacobian; blocks are separated by parameters that nobody may touch.
  ParameterOffset parameters(std::int64_t count) {
    const auto offset = static_cast<ParameterOffset>(theta.size()) + 3;
    for (std::int64_t i = 0; i < count + 3; ++i) theta.push_back(draw());
    return offset;
  }
  /// The step writes this block of the Jacobian.
  void writesBlock(ParameterOffset offset, std::int64_t count) {
    blocks_.emplace_back(offset, offset + count);
  }

  /// Two LoRA factors that `step` reads, and, in backward, whose blocks it writes.
  LoraSite site(int rank, int in, int outBegin, int outEnd, int hBegin, bool writesBlocks = false) {
    LoraSite result;
    result.rank = rank;
    result.outBegin = outBegin;
    result.outEnd = outEnd;
    result.hBegin = hBegin;
    result.scale = hBegin == 0 ? 2.0f : 0.5f;
    result.a = parameters(std::int64_t{rank} * in);
    result.b = parameters(std::int64_t{outEnd - outBegin} * rank);
    if (writesBlocks) {
      writesBlock(result.a, std::int64_t{rank} * in);
      writesBlock(result.b, std::int64_t{outEnd - outBegin} * rank);
    }
    return result;
  }

  /// Replaces the outputs of a forward step by what the specification computes, so that a backward
  /// step meets operands that belong together.
  void fill(const Step& forward);

  WeightId matrix(int out, int in) { return addWeight({draws(std::int64_t{out} * in), out, in}); }
  WeightId vector(std::int64_t size) { return addWeight({draws(size), 0, 0}); }
  WeightId table(int rows, int cols) {
    tables.insert(static_cast<WeightId>(weights.size()));
    return addWeight({draws(std::int64_t{rows} * cols), rows, cols});
  }

  bool exact() const { return values_ == Values::kExact; }
  std::int64_t jacobianRows() const { return 2 + allSegments_; }
  std::int64_t parameterCount() const { return static_cast<std::int64_t>(theta.size()) + 3; }
  bool hasCotangents() const {
    for (const Buffer& buffer : buffers_) {
      if (buffer.axis == Axis::kSegments) return true;
    }
    return !blocks_.empty();
  }
  bool isOutput(std::size_t scratchIndex) const { return scratchRoles_[scratchIndex] >= kWritten; }
  bool isJacobianOutput(std::size_t index) const {
    const auto row = static_cast<std::int64_t>(index) / parameterCount();
    const auto column = static_cast<std::int64_t>(index) % parameterCount();
    const bool rowWritten = frame.reduce ? row == 0 : row >= frame.firstRow;
    for (const auto& [begin, end] : blocks_) {
      if (column >= begin && column < end) return rowWritten;
    }
    return false;
  }

  /// Scratch or input as it is before a run: operands, and `filler` where nothing may be read.
  std::vector<float> initial(Space space, float filler) const {
    const std::vector<char>& roles = space == Space::kInput ? inputRoles_ : scratchRoles_;
    std::vector<float> memory = space == Space::kInput ? input : scratch;
    for (std::size_t i = 0; i < memory.size(); ++i) {
      if (roles[i] == kGuard || roles[i] == kWritten) memory[i] = filler;
    }
    return memory;
  }

  /// The same step for cotangent row `row` alone.
  OpCase singleRow(int row) const {
    OpCase single = *this;
    single.frame.rows = 1;
    single.frame.firstRow = frame.firstRow + row * frame.batch;
    eachView(single.step, [&](View& view) {
      if (!view.present()) return;
      if (buffers_[static_cast<std::size_t>(view.buffer)].axis == Axis::kSegments) {
        view.offset += row * frame.batch * view.sampleStride;
      }
    });
    return single;
  }

  std::vector<float> scratch, input, theta;
  std::vector<ref::Weight<float>> weights;
  std::set<WeightId> tables;  // of the weights: those that a backend reads row by row

 private:
  enum : char { kGuard, kRead, kWritten, kUpdated };
  struct Buffer {
    View view;
    Axis axis;
  };

  float draw() {
    if (values_ == Values::kExact) {
      return 0.5f * static_cast<float>(static_cast<int>(random_() % 5) - 2);
    }
    return normal_(random_);
  }
  std::vector<float> draws(std::int64_t count) {
    std::vector<float> result(static_cast<std::size_t>(count));
    for (float& value : result) value = draw();
    return result;
  }
  WeightId addWeight(ref::Weight<float> weight) {
    weights.push_back(std::move(weight));
    return static_cast<WeightId>(weights.size()) - 1;
  }

  Layout layout_;
  Values values_;
  int allSegments_;
  std::mt19937 random_;
  std::normal_distribution<float> normal_{0, 1};
  std::vector<char> scratchRoles_, inputRoles_;
  std::vector<Buffer> buffers_;
  std::vector<std::pair<ParameterOffset, ParameterOffset>> blocks_;
};

// ---- running ----------------------------------------------------------------------------------

struct Outcome {
  std::vector<double> scratch, jacobian;
};

/// The specification's memory, holding a case.
template <class T>
ref::Memory<T> specificationMemory(const OpCase& op) {
  const auto convert = [](const std::vector<float>& values) {
    std::vector<T> result;
    result.reserve(values.size());
    for (const float value : values) result.push_back(T(value));
    return result;
  };
  ref::Memory<T> memory;
  memory.scratch = convert(op.scratch);
  memory.input = convert(op.input);
  memory.theta = convert(op.theta);
  memory.parameters = op.parameterCount();
  memory.jacobian.assign(static_cast<std::size_t>(op.jacobianRows() * op.parameterCount()), T(0));
  for (const ref::Weight<float>& weight : op.weights) {
    memory.weights.push_back({convert(weight.values), weight.out, weight.in});
  }
  return memory;
}

template <class T>
void runSpecification(const Step& step, const Frame& frame, ref::Memory<T>& memory) {
  std::visit([&](const auto& operation) { ref::run(operation, frame, memory); }, step);
}

inline void OpCase::fill(const Step& forward) {
  ref::Memory<double> memory = specificationMemory<double>(*this);
  runSpecification(forward, frame, memory);
  for (std::size_t i = 0; i < scratch.size(); ++i) {
    scratch[i] = static_cast<float>(memory.scratch[i]);
  }
}

/// A backend that holds the weights of one case and can run it over and over.
class Runner {
 public:
  Runner(const Candidate& candidate, int threads, const OpCase& op)
      : candidate_(candidate), backend_(candidate.make(threads)) {
    for (std::size_t id = 0; id < op.weights.size(); ++id) {
      const ref::Weight<float>& weight = op.weights[id];
      if (op.tables.count(static_cast<WeightId>(id)) != 0) {
        backend_->addTable(weight.out, weight.in, [weight](int row, float* target) {
          std::copy_n(weight.values.begin() + std::int64_t{row} * weight.in, weight.in, target);
        });
      } else if (weight.out > 0) {
        backend_->addMatrix(weight.values.data(), weight.out, weight.in);
      } else {
        backend_->addVector(weight.values.data(), static_cast<std::int64_t>(weight.values.size()));
      }
    }
    // For the whole case: passes with fewer rows must do with what this made room for.
    backend_->prepare({op.step}, {op.frame.batch, op.frame.rows, 0});
    // Leaves NaN in whatever workspace the backend keeps for itself: a later run that reads it
    // without writing it first shows.
    OpCase poisoned = op;
    const auto poison = [](std::vector<float>& values) {
      std::fill(values.begin(), values.end(), std::nanf(""));
    };
    poison(poisoned.scratch);
    if (!op.indexesInput) poison(poisoned.input);
    poison(poisoned.theta);
    run(poisoned, std::nanf(""));
  }

  Outcome run(const OpCase& op, float filler) {
    write(Space::kScratch, op.initial(Space::kScratch, filler));
    write(Space::kInput, op.initial(Space::kInput, filler));
    write(Space::kTheta, op.theta);
    const std::int64_t n = op.parameterCount(), rows = op.jacobianRows();
    const auto jacobian = static_cast<std::size_t>(rows * n);
    backend_->reserveJacobian(rows, n);
    const std::vector<float> blank(jacobian, filler);
    backend_->write(Space::kJacobian, 0, blank.data(), rows * n);
    withoutAllocation(candidate_, [&] { backend_->run(op.step, op.frame); });
    return {read(Space::kScratch, op.scratch.size()), read(Space::kJacobian, jacobian)};
  }

 private:
  void write(Space space, const std::vector<float>& values) {
    const auto count = static_cast<std::int64_t>(values.size());
    if (count == 0) return;
    backend_->reserve(space, count);
    backend_->write(space, 0, values.data(), count);
  }
  std::vector<double> read(Space space, std::size_t count) {
    std::vector<double> values(count);
    if (count == 0) return values;
    View all;
    all.space = space;
    all.rows = 1;
    all.cols = static_cast<int>(count);
    all.ld = all.sampleStride = static_cast<std::int64_t>(count);
    backend_->readView(all, 1, values.data());
    return values;
  }

  const Candidate& candidate_;
  std::unique_ptr<Backend> backend_;
};

// ---- comparing --------------------------------------------------------------------------------

inline bool sameBits(double a, double b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}
inline bool sameNumber(double a, double b) {
  return a == b || (std::isnan(a) && std::isnan(b));
}

/// The largest error in units of what is allowed; infinite when something is NaN.
class Worst {
 public:
  void add(double found, const Bound& expected, double unitRoundoff, bool exact, const char* where,
           std::size_t index) {
    // Twice the first-order bound leaves room for the higher orders and for factors multiplied in
    // another order; the last term is the underflow threshold of single precision.
    const double allowed =
        exact ? 0 : 2 * unitRoundoff * expected.error() + (unitRoundoff > 1e-10 ? 1.2e-38 : 0);
    const double error = std::fabs(found - expected.value());
    const double ratio = error == 0 ? 0 : std::isnan(error) ? INFINITY : error / allowed;
    if (ratio > ratio_) {
      ratio_ = ratio;
      message_ = std::string(where) + "[" + std::to_string(index) + "] is " +
                 std::to_string(found) + ", expected " + std::to_string(expected.value()) +
                 ", error " + std::to_string(ratio) + " of the allowed one";
    }
  }
  double ratio() const { return ratio_; }
  const std::string& message() const { return message_; }

 private:
  double ratio_ = 0;
  std::string message_ = "no element differs";
};

inline void checkOutputs(const OpCase& op, const Outcome& found, const ref::Memory<Bound>& expected,
                         double unitRoundoff) {
  Worst worst;
  for (std::size_t i = 0; i < found.scratch.size(); ++i) {
    if (!op.isOutput(i)) continue;
    worst.add(found.scratch[i], expected.scratch[i], unitRoundoff, op.exact(), "scratch", i);
  }
  for (std::size_t i = 0; i < found.jacobian.size(); ++i) {
    if (!op.isJacobianOutput(i)) continue;
    worst.add(found.jacobian[i], expected.jacobian[i], unitRoundoff, op.exact(), "jacobian", i);
  }
  CHECK_MESSAGE(worst.ratio() <= 1, worst.message());
}

inline void checkGuards(const OpCase& op, const Outcome& found, float filler) {
  const std::vector<float> before = op.initial(Space::kScratch, filler);
  int changed = 0;
  for (std::size_t i = 0; i < found.scratch.size(); ++i) {
    if (!op.isOutput(i) && !sameNumber(found.scratch[i], before[i])) ++changed;
  }
  for (std::size_t i = 0; i < found.jacobian.size(); ++i) {
    if (!op.isJacobianOutput(i) && !sameNumber(found.jacobian[i], filler)) ++changed;
  }
  CHECK_MESSAGE(changed == 0, changed << " elements outside the outputs changed");
}

/// Output elements that differ in any bit, looking only at those that `op` writes.
inline int differences(const OpCase& op, const Outcome& a, const Outcome& b) {
  int count = 0;
  for (std::size_t i = 0; i < a.scratch.size(); ++i) {
    count += op.isOutput(i) && !sameBits(a.scratch[i], b.scratch[i]);
  }
  for (std::size_t i = 0; i < a.jacobian.size(); ++i) {
    count += op.isJacobianOutput(i) && !sameBits(a.jacobian[i], b.jacobian[i]);
  }
  return count;
}

/// k passes of one cotangent row, put together.
inline Outcome runRowByRow(Runner& runner, const OpCase& op, float filler) {
  Outcome all;
  for (int row = 0; row < op.frame.rows; ++row) {
    const OpCase single = op.singleRow(row);
    const Outcome part = runner.run(single, filler);
    if (row == 0) all = part;
    const std::vector<float> before = op.initial(Space::kScratch, filler);
    for (std::size_t i = 0; i < part.scratch.size(); ++i) {
      // In bits: a pass may turn 0 into -0.
      if (!sameBits(part.scratch[i], before[i])) all.scratch[i] = part.scratch[i];
    }
    const auto begin = static_cast<std::size_t>(single.frame.firstRow * op.parameterCount());
    const auto end =
        begin + static_cast<std::size_t>(single.frame.segments() * op.parameterCount());
    for (std::size_t i = begin; i < end; ++i) all.jacobian[i] = part.jacobian[i];
  }
  return all;
}

/// Every check that holds for every operation, in every backend.
inline void checkStep(const OpCase& op) {
  const std::string operation = stepName(op.step);
  CAPTURE(operation);
  CAPTURE(op.frame.batch);
  CAPTURE(op.frame.rows);
  CAPTURE(op.frame.reduce);
  ref::Memory<Bound> expected = specificationMemory<Bound>(op);
  runSpecification(op.step, op.frame, expected);

  constexpr float kGuardValue = 12345.678f;
  for (const Candidate& candidate : candidatesForCase()) {
    CAPTURE(candidate.name);
    Runner runner(candidate, 1, op);
    const Outcome outcome = runner.run(op, std::nanf(""));
    checkOutputs(op, outcome, expected, candidate.unitRoundoff);
    checkGuards(op, outcome, std::nanf(""));
    const Outcome guarded = runner.run(op, kGuardValue);
    checkGuards(op, guarded, kGuardValue);
    CHECK_MESSAGE(differences(op, outcome, guarded) == 0, "a run depends on what it overwrites");

    if (candidate.rowsAreIndependent && !op.frame.reduce && op.frame.rows > 1 &&
        op.hasCotangents()) {
      const Outcome rows = runRowByRow(runner, op, std::nanf(""));
      CHECK_MESSAGE(differences(op, outcome, rows) == 0, "k rows at once differ from k passes");
    }
    for (int threads = 2; threads <= candidate.maxThreads; ++threads) {
      Runner parallel(candidate, threads, op);
      CHECK_MESSAGE(differences(op, outcome, parallel.run(op, std::nanf(""))) == 0,
                    "the result depends on the number of threads: " << threads);
    }
  }
}

/// Batch sizes with cotangent rows.
struct Segments {
  int batch, rows;
};
constexpr Segments kSegments[] = {{1, 1}, {1, 9}, {2, 1}, {3, 5}, {2, 2}};
constexpr Layout kLayouts[] = {Layout::kDense, Layout::kSliced, Layout::kMixed};

}  // namespace loko::test
