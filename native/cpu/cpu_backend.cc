#include "cpu/cpu_backend.h"

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <variant>

#include "cpu/context.h"

namespace loko::cpu {

namespace {

State& stateOf(StateArray& state) {
  return dynamic_cast<State&>(state);
}

class CpuBackend final : public Backend {
 public:
  CpuBackend(int threads, Isa isa) : context_(threads, isa) {}

  const char* name() const override { return "cpu"; }

  std::string description() const override {
    const int threads = context_.pool.threads();
    return std::string(isaName(context_.isa)) + ", " + std::to_string(threads) +
           (threads == 1 ? " thread" : " threads");
  }

  WeightId addMatrix(const float* data, int out, int in) override {
    return context_.addMatrix(data, out, in);
  }
  WeightId addVector(const float* data, std::int64_t size) override {
    return context_.addVector(data, size);
  }
  WeightId addTable(int rows, int cols, std::function<void(int, float*)> readRow) override {
    return context_.addTable(rows, cols, std::move(readRow));
  }
  void release(WeightId weight) override { context_.release(weight); }

  void reserve(Space space, std::int64_t elements) override {
    context_.space(space).grow(elements, space == Space::kTheta);
  }
  void reserveJacobian(std::int64_t rows, std::int64_t parameters) override {
    context_.reserveJacobian(rows, parameters);
  }
  void write(Space space, std::int64_t offset, const float* source, std::int64_t count) override {
    std::copy_n(source, count, range(space, offset, count));
  }
  void read(Space space, std::int64_t offset, float* target, std::int64_t count) override {
    std::copy_n(range(space, offset, count), count, target);
  }
  void readView(const View& view, int samples, double* target) override {
    forEachRow(view, samples,
               [&](const float* row) { target = std::copy_n(row, view.cols, target); });
  }
  void writeView(const View& view, int samples, const double* source) override {
    forEachRow(view, samples, [&](float* row) {
      for (int c = 0; c < view.cols; ++c) row[c] = static_cast<float>(*source++);
    });
  }

  void prepare(const std::vector<Step>& steps, const WorkspaceHint& hint) override {
    for (const Step& step : steps) {
      std::visit([&](const auto& op) { cpu::prepare(op, hint, context_); }, step);
    }
    if (hint.maxGramRows > 0) {
      prepareGram(hint.maxGramRows, context_);
      prepareKalmanUpdate(hint.maxGramRows, context_);
    }
  }

  void run(const Step& step, const Frame& frame) override {
    try {
      std::visit([&](const auto& op) { cpu::run(op, frame, context_); }, step);
    } catch (const Error& error) {
      throw Error(error.code(), std::string("In step ") + stepName(step) + ": " + error.what());
    }
  }

  std::unique_ptr<StateArray> makeState(std::int64_t size, double value) override {
    auto state = std::make_unique<State>(size);
    std::fill_n(state->values(), size, static_cast<float>(value));
    return state;
  }
  void fill(StateArray& state, std::int64_t begin, std::int64_t end, double value) override {
    checkRange(state, begin, end);
    std::fill_n(stateOf(state).values() + begin, end - begin, static_cast<float>(value));
  }
  void readState(const StateArray& state, double* target) override {
    std::copy_n(dynamic_cast<const State&>(state).values(), state.size(), target);
  }
  void writeState(StateArray& state, std::int64_t begin, std::int64_t end,
                  const double* source) override {
    checkRange(state, begin, end);
    std::transform(source, source + (end - begin), stateOf(state).values() + begin,
                   [](double value) { return static_cast<float>(value); });
  }

  void transition(StateArray& state, std::int64_t begin, std::int64_t end,
                  const Transition& by) override {
    checkRange(state, begin, end);
    cpu::transition(stateOf(state).values() + begin, end - begin, by, context_);
  }
  void capVariance(StateArray& p, double most, StateArray& factor, int firstRow,
                   int lastRow) override {
    checkRows(factor, p.size(), firstRow, lastRow);
    cpu::capVariance(stateOf(p), most, stateOf(factor), firstRow, lastRow, context_);
  }
  KalmanUpdateResult kalmanUpdate(const KalmanUpdate& update, StateArray& p) override {
    return cpu::kalmanUpdate(update, stateOf(p), context_);
  }
  void gradientUpdate(const GradientUpdate& update,
                      const std::vector<StateArray*>& state) override {
    cpu::gradientUpdate(update, state, context_);
  }
  bool gradientIsFinite() override { return cpu::gradientIsFinite(context_); }

 private:
  float* range(Space space, std::int64_t offset, std::int64_t count) {
    MappedFloats& memory = context_.space(space);
    LOKO_CHECK(offset >= 0 && count >= 0 && offset + count <= memory.size(),
               "elements beyond the end of a space");
    return memory.data() + offset;
  }

  template <class Visit>
  void forEachRow(const View& view, int samples, Visit visit) {
    float* base = context_.at(view, samples);
    for (int s = 0; s < samples; ++s) {
      for (int t = 0; t < view.rows; ++t) visit(base + s * view.sampleStride + t * view.ld);
    }
  }

  Context context_;
};

}  // namespace

std::unique_ptr<Backend> makeCpuBackend(int threads) {
  return makeCpuBackend(threads, chooseIsa());
}

std::unique_ptr<Backend> makeCpuBackend(int threads, Isa isa) {
  return std::make_unique<CpuBackend>(threads, isa);
}

}  // namespace loko::cpu
