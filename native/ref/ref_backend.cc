#include "ref/ref_backend.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "filter/gradient_rules.h"
#include "ref/attention.h"
#include "ref/conv.h"
#include "ref/image.h"
#include "ref/linear.h"
#include "ref/memory.h"
#include "ref/norm.h"
#include "ref/tokens.h"
#include "ref/update.h"

namespace loko::ref {

namespace {

constexpr double kUnwritten = std::numeric_limits<double>::quiet_NaN();

void grow(std::vector<double>& memory, std::int64_t elements, double value) {
  if (elements > static_cast<std::int64_t>(memory.size())) {
    memory.resize(static_cast<std::size_t>(elements), value);
  }
}

std::vector<double>& valuesOf(StateArray& state) {
  return dynamic_cast<State<double>&>(state).values;
}

class RefBackend final : public Backend {
 public:
  const char* name() const override { return "ref"; }
  std::string description() const override { return "reference, float64, 1 thread"; }

  WeightId addMatrix(const float* data, int out, int in) override {
    memory_.weights.push_back({std::vector<double>(data, data + std::int64_t{out} * in), out, in});
    return static_cast<WeightId>(memory_.weights.size()) - 1;
  }

  WeightId addVector(const float* data, std::int64_t size) override {
    memory_.weights.push_back({std::vector<double>(data, data + size), 0, 0});
    return static_cast<WeightId>(memory_.weights.size()) - 1;
  }

  WeightId addTable(int rows, int cols, std::function<void(int, float*)> readRow) override {
    std::vector<float> values(static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols));
    for (int row = 0; row < rows; ++row) readRow(row, values.data() + std::int64_t{row} * cols);
    return addVector(values.data(), static_cast<std::int64_t>(values.size()));
  }

  void release(WeightId weight) override {
    memory_.weights.at(static_cast<std::size_t>(weight)) = {};
  }

  void reserve(Space space, std::int64_t elements) override {
    grow(memory_.space(space), elements, space == Space::kTheta ? 0 : kUnwritten);
  }

  void reserveJacobian(std::int64_t rows, std::int64_t parameters) override {
    if (parameters != memory_.parameters) memory_.jacobian.clear();
    memory_.parameters = parameters;
    grow(memory_.jacobian, rows * parameters, kUnwritten);
  }

  void write(Space space, std::int64_t offset, const float* source, std::int64_t count) override {
    double* target = range(space, offset, count);
    for (std::int64_t i = 0; i < count; ++i) target[i] = source[i];
  }

  void read(Space space, std::int64_t offset, float* target, std::int64_t count) override {
    const double* source = range(space, offset, count);
    for (std::int64_t i = 0; i < count; ++i) target[i] = static_cast<float>(source[i]);
  }

  void readView(const View& view, int samples, double* target) override {
    forEach(view, samples, [&](double& value) { *target++ = value; });
  }

  void writeView(const View& view, int samples, const double* source) override {
    forEach(view, samples, [&](double& value) { value = *source++; });
  }

  void prepare(const std::vector<Step>&, const WorkspaceHint&) override {}

  void run(const Step& step, const Frame& frame) override {
    try {
      std::visit([&](const auto& operation) { ref::run(operation, frame, memory_); }, step);
    } catch (const Error& error) {
      throw Error(error.code(), std::string("In step ") + stepName(step) + ": " + error.what());
    }
  }

  std::unique_ptr<StateArray> makeState(std::int64_t size, double value) override {
    auto state = std::make_unique<State<double>>();
    state->values.assign(static_cast<std::size_t>(size), value);
    return state;
  }

  void fill(StateArray& state, std::int64_t begin, std::int64_t end, double value) override {
    checkRange(state, begin, end);
    std::fill(valuesOf(state).begin() + begin, valuesOf(state).begin() + end, value);
  }

  void readState(const StateArray& state, double* target) override {
    const auto& values = dynamic_cast<const State<double>&>(state).values;
    std::copy(values.begin(), values.end(), target);
  }

  void writeState(StateArray& state, std::int64_t begin, std::int64_t end,
                  const double* source) override {
    checkRange(state, begin, end);
    std::copy(source, source + (end - begin), valuesOf(state).begin() + begin);
  }

  void transition(StateArray& state, std::int64_t begin, std::int64_t end,
                  const Transition& by) override {
    checkRange(state, begin, end);
    ref::transition(valuesOf(state), begin, end, by);
  }

  void capVariance(StateArray& p, double most, StateArray& factor, int firstRow,
                   int lastRow) override {
    checkRows(factor, p.size(), firstRow, lastRow);
    ref::capVariance(valuesOf(p), most, valuesOf(factor), firstRow, lastRow);
  }
  KalmanUpdateResult kalmanUpdate(const KalmanUpdate& update, StateArray& p) override {
    return ref::kalmanUpdate(update, valuesOf(p), memory_);
  }

  void gradientUpdate(const GradientUpdate& update,
                      const std::vector<StateArray*>& state) override {
    std::vector<double*> arrays;
    for (StateArray* array : state) arrays.push_back(valuesOf(*array).data());
    applyRule<double>(update, 0, memory_.parameters, memory_.theta.data(), memory_.jacobian.data(),
                      arrays.data());
  }

  bool gradientIsFinite() override {
    for (std::int64_t i = 0; i < memory_.parameters; ++i) {
      if (!std::isfinite(memory_.jacobian[static_cast<std::size_t>(i)])) return false;
    }
    return true;
  }

 private:
  double* range(Space space, std::int64_t offset, std::int64_t count) {
    std::vector<double>& memory = memory_.space(space);
    LOKO_CHECK(offset >= 0 && offset + count <= static_cast<std::int64_t>(memory.size()),
               "elements beyond the end of a space");
    return memory.data() + offset;
  }

  template <class Visit>
  void forEach(const View& view, int samples, Visit visit) {
    const Tensor<double> tensor = memory_(view, samples);
    for (int s = 0; s < samples; ++s) {
      for (int t = 0; t < view.rows; ++t) {
        for (int c = 0; c < view.cols; ++c) visit(tensor(s, t, c));
      }
    }
  }

  Memory<double> memory_;
};

}  // namespace

std::unique_ptr<Backend> makeRefBackend() {
  return std::make_unique<RefBackend>();
}

}  // namespace loko::ref
