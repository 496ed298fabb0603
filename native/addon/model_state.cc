#include "addon/model_state.h"

#include <algorithm>
#include <utility>

#include "core/status.h"
#include "cpu/cpu_backend.h"
#include "cpu/pool.h"
#include "ref/ref_backend.h"

namespace loko::addon {

namespace {

std::unique_ptr<Backend> makeBackend(const ModelConfig& config) {
  if (config.device == "cuda") {
    cuda::CudaOptions options;
    options.precision = config.precision;
    return cuda::makeCudaBackend(options);
  }
  if (config.precision != cuda::Precision::kFloat32) {
    throw Error(ErrorCode::kUnsupported,
                "Device \"" + config.device + "\" computes in one precision");
  }
  if (config.device == "cpu") {
    return cpu::makeCpuBackend(config.threads > 0 ? config.threads : cpu::defaultThreads());
  }
  if (config.device == "ref") return ref::makeRefBackend();
  throw Error(ErrorCode::kDeviceUnavailable, "There is no device \"" + config.device + "\"");
}

}  // namespace

ModelState::ModelState(ModelConfig config)
    : engine_(std::make_unique<Engine>(makeBackend(config), std::move(config.graph),
                                       std::move(config.store), config.seed)) {}

ModelState::~ModelState() {
  // A handle that JavaScript still holds keeps its slot, but not the arrays of a backend that ends.
  for (const auto& slot : slots_) slot->optimizer.reset();
}

void ModelState::freeAbandoned() {
  const auto abandoned = [](const std::shared_ptr<OptimizerSlot>& slot) {
    if (slot->abandoned) slot->optimizer.reset();
    return slot->abandoned.load();
  };
  slots_.erase(std::remove_if(slots_.begin(), slots_.end(), abandoned), slots_.end());
}

Optimizer& ModelState::optimizerOf(const std::shared_ptr<OptimizerSlot>& slot) {
  freeAbandoned();
  if (slot->optimizer == nullptr) {
    slot->optimizer = slot->make(engine_->backend());
    slots_.push_back(slot);
  }
  return *slot->optimizer;
}

StepResult ModelState::step(const std::shared_ptr<OptimizerSlot>& slot, const Targets& targets,
                            const std::optional<StepControl>& control) {
  Optimizer& optimizer = optimizerOf(slot);
  if (control) optimizer.control(*control);
  return optimizer.step(*engine_, targets);
}

std::vector<StateEntry> ModelState::describeOptimizerState(
    const std::shared_ptr<OptimizerSlot>& slot) {
  return describeState(optimizerOf(slot), engine_->parameters());
}

std::vector<double> ModelState::readOptimizerState(const std::shared_ptr<OptimizerSlot>& slot) {
  return readState(optimizerOf(slot), *engine_);
}

void ModelState::writeOptimizerState(const std::shared_ptr<OptimizerSlot>& slot,
                                     const std::vector<double>& values) {
  writeState(optimizerOf(slot), *engine_, values);
}

}  // namespace loko::addon
