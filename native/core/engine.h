#pragma once

// One model on one backend: graph, weights, adapter, the plans lowered so far, and the current
// batch.
//
// Rule: an engine is used from one thread, the session's (native/addon/session.h). It knows neither
// Node nor which backend it has.

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <vector>

#include "core/adapter.h"
#include "core/graph.h"
#include "core/lowering.h"
#include "core/merge.h"
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

  /// The adapter becomes part of the weights, and the engine has none any more. On an error it keeps
  /// its former state.
  MergeResult mergeAdapter();

  /// Takes a batch: pixels [B, C, H, W], or with `tokens` T > 0 the blocks of TokenBlock [4, B, T].
  /// Throws kInputNotFinite with the position of the first pixel that is not finite.
  void setBatch(const float* input, int batch, int tokens = 0);
  /// Inference only: nothing is kept for backward.
  void predict(std::vector<double>& logits);
  /// [B, m, n] of the current batch.
  std::vector<float> jacobianOf(JacobianOf what);

  void readTheta(float* target);
  void writeTheta(const float* source);

  /// The present values of a frozen weight.
  std::vector<float> readWeight(const std::string& name) const { return store_->read(name); }

  const Graph& graph() const { return graph_; }
  const Adapter& adapter() const { return adapter_; }

  // Objective
  int outputs() const override { return graph_.outputs(); }
  std::int64_t parameters() const override { return adapter_.parameters; }
  int batch() const override { return batch_; }
  Backend& backend() override { return *backend_; }
  void forward(std::vector<double>& logits) override;
  void jacobian(const std::vector<double>& cotangents, int rows, const GramRequest& gram) override;
  void gradient(const std::vector<double>& cotangents) override;
  void gram(int rows, const GramRequest& request) override;

 private:
  struct CachedPlan {
    LoweringRequest request;
    Plan plan;
  };

  /// Valid until the next call: a plan of another shape may take its place.
  const Plan& plan(const LoweringRequest& request);
  void takeMemory(const std::function<void()>& ask);
  /// For the batch that was set.
  LoweringRequest currentRequest(bool training) const;
  /// For the smallest batch that the model takes, before any has come.
  LoweringRequest smallestRequest(bool training) const;
  void checkPixels(const float* pixels, std::int64_t count) const;
  /// Returns whether some token is masked.
  bool checkTokens(const float* blocks, int batch, int tokens) const;
  void runForward(bool training, std::vector<double>& logits);
  void reserveGram(std::int64_t rows);
  /// `frame` asks for the Gram matrix of its first `rows` Jacobian rows.
  void ask(const GramRequest& request, int rows, Frame& frame);
  void requireForward(const char* what) const;

  std::unique_ptr<Backend> backend_;
  Graph graph_;
  std::unique_ptr<WeightStore> store_;
  std::unique_ptr<WeightTable> table_;
  std::uint64_t seed_;
  Adapter adapter_;
  std::list<CachedPlan> plans_;  // the most recently used first
  int batch_ = 0;
  int tokens_ = 0;       // of each sample; 0 for images
  bool masked_ = false;  // some of them are padding
  int maxPassRows_ = 0;
  int gramRows_ = 0;               // rows that the backend has workspace for
  bool forwardIsCurrent_ = false;  // what backward needs is in scratch
};

}  // namespace loko
