#pragma once

// A backend that passes everything on and keeps the hints that it was prepared with.

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "core/backend.h"

namespace loko {

class RecordingBackend : public Backend {
 public:
  RecordingBackend(std::unique_ptr<Backend> inner, std::vector<WorkspaceHint>& hints)
      : inner_(std::move(inner)), hints_(hints) {}

  void prepare(const std::vector<Step>& steps, const WorkspaceHint& hint) override {
    hints_.push_back(hint);
    inner_->prepare(steps, hint);
  }

  const char* name() const override { return inner_->name(); }
  std::string description() const override { return inner_->description(); }
  PassLimits passLimits() const override { return inner_->passLimits(); }
  WeightId addMatrix(const float* data, int out, int in) override {
    return inner_->addMatrix(data, out, in);
  }
  WeightId addVector(const float* data, std::int64_t size) override {
    return inner_->addVector(data, size);
  }
  WeightId addTable(int rows, int cols, std::function<void(int, float*)> readRow) override {
    return inner_->addTable(rows, cols, std::move(readRow));
  }
  void release(WeightId weight) override { inner_->release(weight); }
  void reserve(Space space, std::int64_t elements) override { inner_->reserve(space, elements); }
  void reserveJacobian(std::int64_t rows, std::int64_t parameters) override {
    inner_->reserveJacobian(rows, parameters);
  }
  void write(Space space, std::int64_t offset, const float* source, std::int64_t count) override {
    inner_->write(space, offset, source, count);
  }
  void read(Space space, std::int64_t offset, float* target, std::int64_t count) override {
    inner_->read(space, offset, target, count);
  }
  void readView(const View& view, int samples, double* target) override {
    inner_->readView(view, samples, target);
  }
  void writeView(const View& view, int samples, const double* source) override {
    inner_->writeView(view, samples, source);
  }
  void run(const Step& step, const Frame& frame) override { inner_->run(step, frame); }
  std::unique_ptr<StateArray> makeState(std::int64_t size, double value) override {
    return inner_->makeState(size, value);
  }
  void fill(StateArray& state, std::int64_t begin, std::int64_t end, double value) override {
    inner_->fill(state, begin, end, value);
  }
  void readState(const StateArray& state, double* target) override {
    inner_->readState(state, target);
  }
  void writeState(StateArray& state, std::int64_t begin, std::int64_t end,
                  const double* source) override {
    inner_->writeState(state, begin, end, source);
  }
  void transition(StateArray& state, std::int64_t begin, std::int64_t end,
                  const Transition& by) override {
    inner_->transition(state, begin, end, by);
  }
  void capVariance(StateArray& p, double most, StateArray& factor, int firstRow,
                   int lastRow) override {
    inner_->capVariance(p, most, factor, firstRow, lastRow);
  }
  KalmanUpdateResult kalmanUpdate(const KalmanUpdate& update, StateArray& p) override {
    return inner_->kalmanUpdate(update, p);
  }
  void gradientUpdate(const GradientUpdate& update,
                      const std::vector<StateArray*>& state) override {
    inner_->gradientUpdate(update, state);
  }
  bool gradientIsFinite() override { return inner_->gradientIsFinite(); }

 private:
  std::unique_ptr<Backend> inner_;
  std::vector<WorkspaceHint>& hints_;
};

}  // namespace loko
