#pragma once

// What the small models of the tests are made of: a graph, and weights that are drawn.

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/engine.h"

namespace loko {

class TinyModelBuilder {
 public:
  virtual ~TinyModelBuilder() = default;
  const Graph& graph() const { return graph_; }

  std::unique_ptr<Engine> engine(std::unique_ptr<Backend> backend) {
    auto engine = std::make_unique<Engine>(std::move(backend), graph_, std::move(store_), 5);
    engine->load();
    return engine;
  }

  std::unique_ptr<WeightStore> takeStore() { return std::move(store_); }

 protected:
  explicit TinyModelBuilder(std::uint64_t seed) : store_(std::make_unique<WeightStore>(seed)) {}

  void drawn(const std::string& name, std::vector<std::int64_t> shape, double std) {
    WeightSpec spec;
    spec.name = name;
    spec.shape = std::move(shape);
    spec.std = std;
    store_->add(spec);
  }

  LinearPart part(const std::string& module, int out, int in) {
    drawn(module + ".weight", {out, in}, 1.5 / std::sqrt(static_cast<double>(in)));
    drawn(module + ".bias", {out}, 0.1);
    LinearPart result;
    result.module = module;
    result.weight = module + ".weight";
    result.bias = module + ".bias";
    result.out = out;
    return result;
  }

  ValueId norm(ValueId x, const std::string& name) {
    const int cols = graph_.shape(x).cols;
    drawn(name + ".weight", {cols}, 1);
    drawn(name + ".bias", {cols}, 0.1);
    return graph_.layerNorm(x, name + ".weight", name + ".bias", 1e-6F);
  }

  Graph graph_;

 private:
  std::unique_ptr<WeightStore> store_;
};

/// Adapters of the given rank on every module whose path ends with one of `suffixes`, and trained
/// copies of `trained`, with offsets in that order.
inline Adapter makeAdapter(const Graph& graph, const std::vector<std::string>& suffixes, int rank,
                           const std::vector<std::string>& trained,
                           LoraInit init = LoraInit::kRandom) {
  Adapter adapter;
  adapter.init = init;
  const auto endsWith = [](const std::string& path, const std::string& suffix) {
    return path.size() >= suffix.size() &&
           path.compare(path.size() - suffix.size(), suffix.size(), suffix) == 0;
  };
  const auto adapt = [&](const LinearPart& part) {
    if (std::none_of(suffixes.begin(), suffixes.end(),
                     [&](const std::string& suffix) { return endsWith(part.module, suffix); })) {
      return;
    }
    const Graph::Module module = graph.module(part.module);
    AdaptedModule lora;
    lora.module = part.module;
    lora.rank = rank * module.groups;
    lora.scale = 1.5F;
    lora.a = adapter.parameters;
    lora.b = lora.a + module.sizeA(lora.rank);
    adapter.parameters = lora.b + module.sizeB(lora.rank);
    adapter.lora.push_back(lora);
  };
  for (const Node& node : graph.nodes()) {
    if (const auto* conv = std::get_if<ConvNode>(&node)) adapt(conv->part);
    if (const auto* linear = std::get_if<LinearNode>(&node)) {
      for (const LinearPart& part : linear->parts) adapt(part);
    }
  }
  for (const std::string& module : trained) {
    const Graph::Module found = graph.module(module);
    TrainedModule entry;
    entry.module = module;
    entry.weight = adapter.parameters;
    entry.bias = entry.weight + std::int64_t{found.part->out} * found.in;
    adapter.parameters = entry.bias + found.part->out;
    adapter.trained.push_back(entry);
  }
  return adapter;
}

}  // namespace loko
