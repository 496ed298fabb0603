#pragma once

// What lives on a session's thread: the engine on its backend, and the state of its optimizers.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/engine.h"
#include "cuda/cuda_backend.h"
#include "filter/optimizer.h"
#include "filter/optimizer_state.h"

namespace loko::addon {

/// Makes the state of one optimizer on a backend.
using OptimizerFactory = std::function<std::unique_ptr<Optimizer>(Backend& backend)>;

/// Shared by the JavaScript handle and the session's thread. Only that thread touches `optimizer`,
/// because its arrays belong to the backend; the handle's finalizer merely sets `abandoned`.
struct OptimizerSlot {
  OptimizerFactory make;
  std::atomic<bool> abandoned{false};
  std::unique_ptr<Optimizer> optimizer;
  std::int64_t generation = 0;  // of the adapter it was made for
  bool kalman = false;          // its results have the numbers of a filter
};

/// A batch as it comes from JavaScript: see Engine::setBatch.
struct InputBatch {
  std::vector<float> values;
  int batch = 1;
  int tokens = 0;
};

struct ModelConfig {
  std::string device;                                     // "cpu", "cuda" or "ref"
  cuda::Precision precision = cuda::Precision::kFloat32;  // of "cuda"; the others have one only
  int threads = 0;                                        // of "cpu"; 0: chosen from the machine
  std::uint64_t seed = 0;
  Graph graph;
  std::unique_ptr<WeightStore> store;
};

class ModelState {
 public:
  explicit ModelState(ModelConfig config);
  ~ModelState();
  ModelState(const ModelState&) = delete;
  ModelState& operator=(const ModelState&) = delete;

  Engine& engine() { return *engine_; }
  void setBatch(const InputBatch& input) {
    engine_->setBatch(input.values.data(), input.batch, input.tokens);
  }
  std::string description() { return engine_->backend().description(); }
  StepResult step(const std::shared_ptr<OptimizerSlot>& slot, const Targets& targets,
                  const std::optional<StepControl>& control);
  std::vector<StateEntry> describeOptimizerState(const std::shared_ptr<OptimizerSlot>& slot);
  std::vector<double> readOptimizerState(const std::shared_ptr<OptimizerSlot>& slot);
  void writeOptimizerState(const std::shared_ptr<OptimizerSlot>& slot,
                           const std::vector<double>& values);

 private:
  void freeAbandoned();
  Optimizer& optimizerOf(const std::shared_ptr<OptimizerSlot>& slot);

  // Destroyed in reverse: the arrays of the optimizers before the backend that made them.
  std::unique_ptr<Engine> engine_;
  std::vector<std::shared_ptr<OptimizerSlot>> slots_;
};

}  // namespace loko::addon
