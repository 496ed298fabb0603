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

Activation readActivation(const PropertyReader& node) {
  return node.has("activation") ? readChoice(node, "activation", kActivations) : Activation::kNone;
}

void readLinear(const PropertyReader& node, Graph& graph) {
  std::vector<LinearPart> parts;
  for (const PropertyReader& part : node.objects("parts")) {
    LinearPart& added = parts.emplace_back();
    added.module = part.string("module");
    added.weight = part.string("weight");
    added.bias = part.string("bias", "");
    added.out = positive(part, "out");
    added.outputScale = part.string("outputScale", "");
  }
  const Activation activation = readActivation(node);
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

Extent readExtent(const PropertyReader& node, const char* key, std::int64_t least) {
  const std::vector<std::int64_t> sizes = node.integers(key, least, kMaxInt);
  if (sizes.size() != 2) node.fail(key, "[height, width]");
  return {static_cast<int>(sizes[0]), static_cast<int>(sizes[1])};
}

Window readWindow(const PropertyReader& node) {
  Window window;
  window.kernel = readExtent(node, "kernel", 1);
  window.stride = readExtent(node, "stride", 1);
  window.padding = readExtent(node, "padding", 0);
  if (node.has("dilation")) window.dilation = readExtent(node, "dilation", 1);
  return window;
}

BatchNormSpec readBatchNorm(const PropertyReader& spec) {
  return {spec.string("weight"), spec.string("bias"), spec.string("mean"), spec.string("variance"),
          spec.number("eps")};
}

void readConv(const PropertyReader& node, Graph& graph) {
  ConvNode conv;
  conv.input = operand(node, "input", graph);
  if (node.has("residual")) conv.residual = operand(node, "residual", graph);
  conv.activation = readActivation(node);
  conv.part.module = node.string("module");
  conv.part.weight = node.string("weight");
  conv.part.bias = node.string("bias", "");
  conv.part.out = positive(node, "out");
  conv.window = readWindow(node);
  conv.groups = positive(node, "groups");
  if (node.has("norm")) conv.norm = readBatchNorm(node.object("norm"));
  graph.conv2d(std::move(conv));
}

/// Whether it was one of the operations of convolutional nets.
bool readImageNode(const std::string& op, const PropertyReader& node, Graph& graph) {
  const auto input = [&] { return operand(node, "input", graph); };
  if (op == "conv2d") {
    readConv(node, graph);
  } else if (op == "batchNorm") {
    const Activation activation = readActivation(node);
    if (activation != Activation::kNone && activation != Activation::kRelu) {
      node.fail("activation", "\"none\" or \"relu\"");
    }
    graph.batchNorm(input(), readBatchNorm(node), activation == Activation::kRelu);
  } else if (op == "maxPool") {
    graph.maxPool(input(), readWindow(node), node.boolean("ceilMode", false));
  } else if (op == "avgPool") {
    graph.avgPool(input(), readWindow(node), node.boolean("ceilMode", false),
                  node.boolean("countIncludePad", true));
  } else if (op == "meanRows") {
    graph.meanRows(input(), static_cast<int>(node.integer("skip", 0, kMaxInt)));
  } else if (op == "concat") {
    std::vector<ValueId> inputs;
    for (const std::int64_t value : node.integers("inputs", 0, graph.values() - 1)) {
      inputs.push_back(static_cast<ValueId>(value));
    }
    graph.concat(std::move(inputs));
  } else if (op == "flatten") {
    graph.flatten(input());
  } else {
    return false;
  }
  return true;
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
  } else if (!readImageNode(op, node, graph)) {
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
