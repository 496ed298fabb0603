#pragma once

// A small ViT with drawn weights, for tests of the planner and the engine; the same graph that
// lib/models/vit.ts describes.

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/engine.h"

namespace loko {

struct TinyVit {
  int channels = 2, image = 12, patch = 4;  // 10 tokens
  int hidden = 24, heads = 3, intermediate = 36, layers = 3, labels = 5;
  Activation activation = Activation::kGelu;
};

class TinyVitBuilder {
 public:
  explicit TinyVitBuilder(const TinyVit& shape)
      : shape_(shape), store_(std::make_unique<WeightStore>(11)) {
    const ValueId image = graph_.image(shape.channels, shape.image, shape.image);
    const ValueId patches = graph_.patchify(image, shape.patch);
    const int patchSize = shape.channels * shape.patch * shape.patch;
    const ValueId projected =
        graph_.linear(patches, {part("embeddings.projection", shape.hidden, patchSize)})[0];
    const int grid = shape.image / shape.patch;
    drawn("cls", {1, 1, shape.hidden}, 0.5);
    drawn("pos", {1, 1 + grid * grid, shape.hidden}, 0.5);
    ValueId x = graph_.assembleTokens(projected, "cls", "pos");
    for (int layer = 0; layer < shape.layers; ++layer) x = block(x, layer);
    x = graph_.selectFirst(norm(x, "layernorm"));
    graph_.setOutput(graph_.linear(x, {part("classifier", shape.labels, shape.hidden)})[0]);
  }

  const Graph& graph() const { return graph_; }

  std::unique_ptr<Engine> engine(std::unique_ptr<Backend> backend) {
    auto engine = std::make_unique<Engine>(std::move(backend), graph_, std::move(store_), 5);
    engine->load();
    return engine;
  }

  std::unique_ptr<WeightStore> takeStore() { return std::move(store_); }

 private:
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
    drawn(name + ".weight", {shape_.hidden}, 1);
    drawn(name + ".bias", {shape_.hidden}, 0.1);
    return graph_.layerNorm(x, name + ".weight", name + ".bias", 1e-6F);
  }

  ValueId block(ValueId x, int layer) {
    const std::string path = "layer." + std::to_string(layer) + ".";
    const int d = shape_.hidden;
    const ValueId before = norm(x, path + "before");
    const std::vector<ValueId> qkv = graph_.linear(
        before, {part(path + "query", d, d), part(path + "key", d, d), part(path + "value", d, d)});
    const float scale = std::sqrt(static_cast<float>(shape_.heads) / static_cast<float>(d));
    const ValueId context = graph_.attention(qkv[0], qkv[1], qkv[2], shape_.heads, scale);
    const ValueId attended =
        graph_.linear(context, {part(path + "output", d, d)}, Activation::kNone, x)[0];
    const ValueId inner =
        graph_.linear(norm(attended, path + "after"), {part(path + "fc1", shape_.intermediate, d)},
                      shape_.activation)[0];
    return graph_.linear(inner, {part(path + "fc2", d, shape_.intermediate)}, Activation::kNone,
                         attended)[0];
  }

  TinyVit shape_;
  Graph graph_;
  std::unique_ptr<WeightStore> store_;
};

/// Adapters of the given rank on every module whose path ends with one of `suffixes`, and trained
/// copies of `trained`, with offsets in that order.
inline Adapter makeAdapter(const Graph& graph, const std::vector<std::string>& suffixes, int rank,
                           const std::vector<std::string>& trained,
                           LoraInit init = LoraInit::kRandom) {
  Adapter adapter;
  adapter.init = init;
  for (const Node& node : graph.nodes()) {
    const auto* linear = std::get_if<LinearNode>(&node);
    if (linear == nullptr) continue;
    for (const LinearPart& part : linear->parts) {
      for (const std::string& suffix : suffixes) {
        if (part.module.size() < suffix.size() ||
            part.module.compare(part.module.size() - suffix.size(), suffix.size(), suffix) != 0) {
          continue;
        }
        AdaptedModule lora;
        lora.module = part.module;
        lora.rank = rank;
        lora.scale = 1.5F;
        lora.a = adapter.parameters;
        lora.b = lora.a + std::int64_t{rank} * graph.module(part.module).in;
        adapter.parameters = lora.b + std::int64_t{part.out} * rank;
        adapter.lora.push_back(lora);
        break;
      }
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
