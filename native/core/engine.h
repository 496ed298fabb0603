#pragma once

// One model on one backend: graph, weights, adapter, the plans lowered so far, and the current
// batch.
//
// Rule: an engine is used from one thread, the session's (native/addon/session.h). It knows neither
// Node nor which backend it has.

#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "core/adapter.h"
#include "core/graph.h"
#include "core/objective.h"
#include "core/plan.h"
#include "core/weights.h"

namespace loko {

/// Which m cotangents per sample a Jacobian is asked for.
enum class JacobianOf : std::uint8_t { kLogits, kSoftmax };

class Engine final : public Objective {
 public:
  Engine(std::unique_ptr<Backend> backend, Graph graph, std::unique_ptr<WeightStore> store,
         std::uint64_t seed);
  ~Engine() override;

  /// Reads and packs every weight that inference needs; throws what is wrong with the files.
  void load();
  /// Replaces the adapter and initialises theta; on an error the engine keeps its former state.
  void setAdapter(Adapter adapter);

  /// Propagates at most this many cotangent rows at once (0: chosen by memory). Fewer rows take
  /// less memory and more passes; results are the same bits.
  void limitPassRows(int rows);

  /// Takes a batch [B, C, H, W]; throws kInputNotFinite with the position of the first offender.
  void setBatch(const float* pixels, int batch);
  /// Inference only: nothing is kept for backward.
  void predict(std::vector<double>& logits);
  /// [B, m, n] of the current batch.
  std::vector<float> jacobianOf(JacobianOf what);

  void readTheta(float* target);
  void writeTheta(const float* source);

  const Graph& graph() const { return graph_; }
  const Adapter& adapter() const { return adapter_; }

  // Objective
  int outputs() const override { return graph_.outputs(); }
  std::int64_t parameters() const override { return adapter_.parameters; }
  int batch() const override { return batch_; }
  Backend& backend() override { return *backend_; }
  void forward(std::vector<double>& logits) override;
  void jacobian(const std::vector<double>& cotangents, int rows, const StateArray* p,
                double* gram) override;
  void gradient(const std::vector<double>& cotangents) override;
  void gram(int rows, const StateArray* p, double* gram) override;

 private:
  struct CachedPlan {
    int batch;
    bool training;
    Plan plan;
  };

  /// Valid until the next call: a plan of another batch size may take its place.
  const Plan& plan(bool training);
  void run(const std::vector<Step>& steps, const Frame& frame);
  void runForward(bool training, std::vector<double>& logits);
  void reserveGram(std::int64_t rows);
  void requireForward(const char* what) const;

  std::unique_ptr<Backend> backend_;
  Graph graph_;
  std::unique_ptr<WeightStore> store_;
  std::unique_ptr<WeightTable> table_;
  std::uint64_t seed_;
  Adapter adapter_;
  std::list<CachedPlan> plans_;  // the most recently used first
  int batch_ = 0;
  int maxPassRows_ = 0;
  int gramRows_ = 0;               // rows that the backend has workspace for
  bool forwardIsCurrent_ = false;  // what backward needs is in scratch
};

}  // namespace loko
