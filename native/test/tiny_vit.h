#pragma once

// A small ViT with drawn weights, for tests of the planner and the engine; the same graph that
// lib/models/vit.ts describes.

#include <cmath>
#include <string>
#include <vector>

#include "test/tiny_model.h"

namespace loko {

struct TinyVit {
  int channels = 2, image = 12, patch = 4;  // 10 tokens
  int hidden = 24, heads = 3, intermediate = 36, layers = 3, labels = 5;
  Activation activation = Activation::kGelu;
};

class TinyVitBuilder : public TinyModelBuilder {
 public:
  explicit TinyVitBuilder(const TinyVit& shape) : TinyModelBuilder(11), shape_(shape) {
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

 private:
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
};

}  // namespace loko
