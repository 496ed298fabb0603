#include "core/graph.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/status.h"

namespace loko {

namespace {

std::string describe(ValueShape shape) {
  return "[" + std::to_string(shape.rows) + ", " + std::to_string(shape.cols) + "]";
}

void require(bool fits, const std::string& expected, const std::string& received) {
  if (!fits) {
    throw Error(ErrorCode::kShapeMismatch, "Expected " + expected + " but received " + received);
  }
}

}  // namespace

ValueId Graph::add(ValueShape shape) {
  // Far above what fits in memory, far below where sizes in bytes overflow.
  constexpr std::int64_t kMaxElements = std::int64_t{1} << 40;
  require(std::int64_t{shape.rows} * shape.cols <= kMaxElements, "a value of at most 2^40 numbers",
          describe(shape));
  shapes_.push_back(shape);
  return values() - 1;
}

const ValueShape& Graph::shape(ValueId value) const {
  LOKO_CHECK(value >= 0 && value < values(), "value " + std::to_string(value));
  return shapes_[static_cast<std::size_t>(value)];
}

ValueId Graph::image(int channels, int height, int width) {
  require(channels > 0 && height > 0 && width > 0, "a positive image size",
          std::to_string(channels) + "x" + std::to_string(height) + "x" + std::to_string(width));
  const std::int64_t rows = std::int64_t{channels} * height;
  require(
      rows <= std::numeric_limits<int>::max() && rows * width <= std::numeric_limits<int>::max(),
      "an image of less than 2^31 numbers",
      std::to_string(channels) + "x" + std::to_string(height) + "x" + std::to_string(width));
  const ValueId output = add({static_cast<int>(rows), width, {}});
  nodes_.push_back(ImageNode{channels, height, width, output});
  return output;
}

ValueId Graph::patchify(ValueId input, int patch) {
  const ImageNode& image = imageInput();
  require(input == image.output, "the image as input of patchify",
          "value " + std::to_string(input));
  require(patch > 0 && image.height % patch == 0 && image.width % patch == 0,
          "a patch size that divides the image " + std::to_string(image.height) + "x" +
              std::to_string(image.width),
          std::to_string(patch));
  const Extent grid{image.height / patch, image.width / patch};
  const ValueId output = add({grid.pixels(), image.channels * patch * patch, grid});
  nodes_.push_back(PatchifyNode{input, output, patch});
  return output;
}

ValueId Graph::assembleTokens(ValueId input, const std::string& cls, const std::string& pos) {
  const ValueShape x = shape(input);
  require(x.rows > 0, "a fixed number of patches", describe(x));
  const ValueId output = add({x.rows + 1, x.cols, {}});
  nodes_.push_back(AssembleTokensNode{input, output, cls, pos});
  return output;
}

ValueId Graph::embedTokens(EmbedTokensNode node, int cols) {
  // Token numbers travel as float32.
  constexpr int kMaxRows = 1 << 24;
  for (const int rows : {node.vocabulary, node.positionCount, node.typeCount}) {
    require(rows > 0 && rows <= kMaxRows, "embedding tables of 1 to 2^24 rows",
            std::to_string(rows));
  }
  require(cols > 0 && node.maxTokens > 0 && node.maxTokens <= node.positionCount,
          "a positive width and at most as many tokens as positions",
          std::to_string(cols) + " and " + std::to_string(node.maxTokens));
  node.output = add({kTokenRows, cols, {}});
  nodes_.push_back(std::move(node));
  return values() - 1;
}

std::vector<ValueId> Graph::linear(ValueId input, std::vector<LinearPart> parts,
                                   Activation activation, ValueId residual) {
  const ValueShape x = shape(input);
  require(!parts.empty(), "at least one part of a linear operation", "none");
  const bool single = parts.size() == 1;
  require(single || (activation == Activation::kNone && residual == kNoValue),
          "one part where a linear operation has an activation or a residual",
          std::to_string(parts.size()));
  require(single || std::all_of(parts.begin(), parts.end(),
                                [](const LinearPart& part) { return part.outputScale.empty(); }),
          "one part where the output of a linear operation is scaled",
          std::to_string(parts.size()));
  std::vector<ValueId> outputs;
  for (LinearPart& part : parts) {
    require(part.out > 0, "a positive width of " + part.module, std::to_string(part.out));
    part.output = add({x.rows, part.out, x.grid});
    outputs.push_back(part.output);
  }
  if (residual != kNoValue) {
    const ValueShape r = shape(residual);
    const ValueShape y = shape(outputs[0]);
    require(r.rows == y.rows && r.cols == y.cols, "a residual of shape " + describe(y),
            describe(r));
  }
  nodes_.push_back(LinearNode{input, residual, activation, std::move(parts)});
  return outputs;
}

ValueId Graph::layerNorm(ValueId input, const std::string& weight, const std::string& bias,
                         float eps) {
  const ValueId output = add(shape(input));
  nodes_.push_back(LayerNormNode{input, output, weight, bias, eps});
  return output;
}

ValueId Graph::attention(ValueId q, ValueId k, ValueId v, int heads, float scale) {
  const ValueShape shapeQ = shape(q), shapeK = shape(k), shapeV = shape(v);
  require(shapeK.rows == shapeV.rows && shapeK.cols == shapeV.cols && shapeQ.cols == shapeK.cols,
          "query, key and value of one width, key and value of one length",
          describe(shapeQ) + ", " + describe(shapeK) + ", " + describe(shapeV));
  require(heads > 0 && shapeQ.cols % heads == 0,
          "a number of heads that divides the width " + std::to_string(shapeQ.cols),
          std::to_string(heads));
  const ValueId output = add(shapeQ);
  nodes_.push_back(AttentionNode{q, k, v, output, heads, scale});
  return output;
}

ValueId Graph::selectFirst(ValueId input) {
  const ValueId output = add({1, shape(input).cols, {}});
  nodes_.push_back(SelectFirstNode{input, output});
  return output;
}

void Graph::setOutput(ValueId value) {
  require(shape(value).rows == 1, "an output of one row for each sample", describe(shape(value)));
  output_ = value;
}

const ImageNode& Graph::imageInput() const {
  for (const Node& node : nodes_) {
    if (const auto* image = std::get_if<ImageNode>(&node)) return *image;
  }
  failCheck("a graph has an input", __FILE__, __LINE__, "no image node");
}

const EmbedTokensNode* Graph::tokenInput() const {
  for (const Node& node : nodes_) {
    if (const auto* embed = std::get_if<EmbedTokensNode>(&node)) return embed;
  }
  return nullptr;
}

std::int64_t Graph::inputElements(int tokens) const {
  const EmbedTokensNode* embed = tokenInput();
  if (embed == nullptr) {
    require(tokens == 0, "an image, which has no tokens", std::to_string(tokens) + " tokens");
    const ImageNode& image = imageInput();
    return std::int64_t{image.channels} * image.height * image.width;
  }
  require(tokens > 0 && tokens <= embed->maxTokens,
          "1 to " + std::to_string(embed->maxTokens) + " tokens", std::to_string(tokens));
  return std::int64_t{kTokenBlocks} * tokens;
}

namespace {

[[noreturn]] void failFolded(const std::string& module, const std::string& what) {
  throw Error(ErrorCode::kUnsupported,
              "Expected modules and biases that can be trained in full, but " + module + " is " +
                  what + "; adapt it with LoRA instead, or leave it out");
}

}  // namespace

Graph::Module Graph::module(const std::string& path) const {
  for (const Node& node : nodes_) {
    if (const auto* conv = std::get_if<ConvNode>(&node)) {
      if (conv->part.module != path) continue;
      const int in = shape(conv->input).cols * conv->window.taps();
      return {&conv->part, in, conv->groups, conv};
    }
    const auto* linear = std::get_if<LinearNode>(&node);
    if (linear == nullptr) continue;
    for (const LinearPart& part : linear->parts) {
      if (part.module == path) return {&part, shape(linear->input).cols};
    }
  }
  failCheck("the module is in the graph", __FILE__, __LINE__, path);
}

Graph::Module Graph::trainableModule(const std::string& path) const {
  const Module found = module(path);
  if (found.conv != nullptr) failFolded(path, "a convolution");
  if (!found.part->outputScale.empty()) failFolded(path, "scaled by " + found.part->outputScale);
  return found;
}

int Graph::biasSize(const std::string& parameter) const {
  for (const Node& node : nodes_) {
    if (const auto* norm = std::get_if<LayerNormNode>(&node)) {
      if (norm->bias == parameter) return shape(norm->output).cols;
    } else if (const auto* linear = std::get_if<LinearNode>(&node)) {
      for (const LinearPart& part : linear->parts) {
        if (part.bias != parameter) continue;
        if (!part.outputScale.empty()) {
          failFolded(parameter, "the bias of a module scaled by " + part.outputScale);
        }
        return part.out;
      }
    } else if (const auto* conv = std::get_if<ConvNode>(&node)) {
      if (conv->part.bias == parameter || (conv->norm && conv->norm->bias == parameter)) {
        failFolded(parameter, "a bias of the convolution " + conv->part.module);
      }
    } else if (const auto* batchNorm = std::get_if<BatchNormNode>(&node)) {
      if (batchNorm->norm.bias == parameter) failFolded(parameter, "the bias of a batch norm");
    }
  }
  failCheck("the bias is in the graph", __FILE__, __LINE__, parameter);
}

}  // namespace loko
