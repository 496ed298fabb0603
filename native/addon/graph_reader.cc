#include "addon/graph_reader.h"

#include <utility>

#include "core/status.h"

namespace loko::addon {

namespace {

constexpr std::int64_t kMaxSafeInteger = (std::int64_t{1} << 53) - 1;

constexpr std::pair<const char*, Activation> kActivations[] = {
    {"none", Activation::kNone},
    {"gelu", Activation::kGelu},
    {"gelu_tanh", Activation::kGeluTanh},
    {"relu", Activation::kRelu},
    {"quick_gelu", Activation::kQuickGelu},
    {"tanh", Activation::kTanh}};

int positive(const PropertyReader& reader, const char* key) {
  return static_cast<int>(reader.integer(key, 1, kMaxInt));
}

/// An operand: a value that some earlier node has created.
ValueId operand(const PropertyReader& node, const char* key, const Graph& graph) {
  return static_cast<ValueId>(node.integer(key, 0, graph.values() - 1));
}

void readLinear(const PropertyReader& node, Graph& graph) {
  std::vector<LinearPart> parts;
  for (const PropertyReader& part : node.objects("parts")) {
    LinearPart& added = parts.emplace_back();
    added.module = part.string("module");
    added.weight = part.string("weight");
    added.bias = part.string("bias", "");
    added.out = positive(part, "out");
  }
  const Activation activation =
      node.has("activation") ? readChoice(node, "activation", kActivations) : Activation::kNone;
  const ValueId residual = node.has("residual") ? operand(node, "residual", graph) : kNoValue;
  graph.linear(operand(node, "input", graph), std::move(parts), activation, residual);
}

void readEmbedTokens(const PropertyReader& node, Graph& graph) {
  EmbedTokensNode embed;
  embed.words = node.string("words");
  embed.positions = node.string("positions");
  embed.types = node.string("types");
  embed.vocabulary = positive(node, "vocabulary");
  embed.positionCount = positive(node, "positionCount");
  embed.typeCount = positive(node, "typeCount");
  embed.maxTokens = positive(node, "maxTokens");
  graph.embedTokens(std::move(embed), positive(node, "width"));
}

void readNode(const PropertyReader& node, Graph& graph) {
  const std::string op = node.string("op");
  if (op == "image") {
    graph.image(positive(node, "channels"), positive(node, "height"), positive(node, "width"));
  } else if (op == "patchify") {
    graph.patchify(operand(node, "input", graph), positive(node, "patch"));
  } else if (op == "assembleTokens") {
    graph.assembleTokens(operand(node, "input", graph), node.string("cls"), node.string("pos"));
  } else if (op == "embedTokens") {
    readEmbedTokens(node, graph);
  } else if (op == "linear") {
    readLinear(node, graph);
  } else if (op == "layerNorm") {
    graph.layerNorm(operand(node, "input", graph), node.string("weight"), node.string("bias"),
                    static_cast<float>(node.number("eps")));
  } else if (op == "attention") {
    graph.attention(operand(node, "q", graph), operand(node, "k", graph), operand(node, "v", graph),
                    positive(node, "heads"), static_cast<float>(node.number("scale")));
  } else if (op == "selectFirst") {
    graph.selectFirst(operand(node, "input", graph));
  } else {
    node.fail("op", "a known operation instead of \"" + op + "\"");
  }
}

}  // namespace

Graph readGraph(const PropertyReader& spec) {
  Graph graph;
  for (const PropertyReader& node : spec.objects("nodes")) readNode(node, graph);
  graph.setOutput(operand(spec, "output", graph));
  return graph;
}

WeightList readWeights(const std::vector<PropertyReader>& weights, std::uint64_t seed) {
  WeightList list;
  list.store = std::make_unique<WeightStore>(seed);
  for (const PropertyReader& weight : weights) {
    WeightSpec spec;
    spec.name = weight.string("name");
    spec.shape = weight.integers("shape", 1, kMaxInt);
    std::int64_t elements = 1;
    for (const std::int64_t extent : spec.shape) {
      if (extent > kMaxSafeInteger / elements) weight.fail("shape", "of less than 2^53 elements");
      elements *= extent;
    }
    list.bytes += elements * static_cast<std::int64_t>(sizeof(float));
    if (weight.has("file")) {
      spec.file = weight.string("file");
      spec.offset = weight.integer("byteOffset", 0, kMaxSafeInteger);
      spec.dtype = readChoice(weight, "dtype", kDTypes);
    } else if (weight.has("values")) {
      spec.values = weight.floats("values");
      if (static_cast<std::int64_t>(spec.values.size()) != elements) {
        weight.fail("values", "a Float32Array of " + std::to_string(elements) + " elements");
      }
    } else {
      spec.std = weight.number("std");
    }
    list.store->add(std::move(spec));
  }
  return list;
}

}  // namespace loko::addon
