#pragma once

// A small encoder of texts with drawn weights; the same graph that lib/models/bert.ts describes.

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/rng.h"
#include "test/tiny_model.h"

namespace loko {

struct TinyBert {
  int vocabulary = 23, positions = 19, types = 2;
  int hidden = 24, heads = 3, intermediate = 36, layers = 3, labels = 4;
};

class TinyBertBuilder : public TinyModelBuilder {
 public:
  explicit TinyBertBuilder(const TinyBert& shape) : TinyModelBuilder(12), shape_(shape) {
    EmbedTokensNode embed;
    embed.words = table("words", shape.vocabulary);
    embed.positions = table("positions", shape.positions);
    embed.types = table("types", shape.types);
    embed.vocabulary = shape.vocabulary;
    embed.positionCount = embed.maxTokens = shape.positions;
    embed.typeCount = shape.types;
    ValueId x = norm(graph_.embedTokens(embed, shape.hidden), "embeddings.norm");
    for (int layer = 0; layer < shape.layers; ++layer) x = block(x, layer);
    x = graph_.linear(graph_.selectFirst(x), {part("pooler", shape.hidden, shape.hidden)},
                      Activation::kTanh)[0];
    graph_.setOutput(graph_.linear(x, {part("classifier", shape.labels, shape.hidden)})[0]);
  }

 private:
  std::string table(const std::string& name, int rows) {
    drawn(name, {rows, shape_.hidden}, 0.7);
    return name;
  }

  ValueId block(ValueId x, int layer) {
    const std::string path = "layer." + std::to_string(layer) + ".";
    const int d = shape_.hidden;
    const std::vector<ValueId> qkv = graph_.linear(
        x, {part(path + "query", d, d), part(path + "key", d, d), part(path + "value", d, d)});
    const float scale = std::sqrt(static_cast<float>(shape_.heads) / static_cast<float>(d));
    const ValueId context = graph_.attention(qkv[0], qkv[1], qkv[2], shape_.heads, scale);
    const ValueId attended =
        norm(graph_.linear(context, {part(path + "output", d, d)}, Activation::kNone, x)[0],
             path + "attended");
    const ValueId inner =
        graph_.linear(attended, {part(path + "fc1", shape_.intermediate, d)}, Activation::kGelu)[0];
    return norm(graph_.linear(inner, {part(path + "fc2", d, shape_.intermediate)},
                              Activation::kNone, attended)[0],
                path + "norm");
  }

  TinyBert shape_;
};

/// Texts of the given lengths in one batch, padded at the end to `tokens`.
inline std::vector<float> tinyTexts(const TinyBert& shape, const std::vector<int>& lengths,
                                    int tokens, std::uint64_t seed) {
  const int batch = static_cast<int>(lengths.size());
  const auto block = static_cast<std::size_t>(batch * tokens);
  std::vector<float> values(kTokenBlocks * block, 0.0F);
  for (int b = 0; b < batch; ++b) {
    // A text does not depend on the batch around it.
    const RandomStream random(seed + static_cast<std::uint64_t>(b), "texts");
    for (int t = 0; t < tokens; ++t) {
      const auto i = static_cast<std::size_t>(b * tokens + t);
      const auto at = static_cast<std::uint64_t>(t);
      const bool padding = t >= lengths[static_cast<std::size_t>(b)];
      const float draw = random.uniform(at) * static_cast<float>(shape.vocabulary);
      values[i] = padding ? 0.0F : std::min(std::floor(draw), float(shape.vocabulary - 1));
      values[block + i] = static_cast<float>(t);
      values[2 * block + i] = t % 4 == 3 ? 1.0F : 0.0F;
      values[3 * block + i] = padding ? -std::numeric_limits<float>::infinity() : 0.0F;
    }
  }
  return values;
}

}  // namespace loko
