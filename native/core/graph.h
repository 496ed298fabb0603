#pragma once

// A model as TypeScript describes it (lib/models/*.ts): values connected by operations of fused
// granularity, weights by their checkpoint names. No batch size, no sequence length and no memory
// yet: the same graph is lowered for every (batch, tokens) that comes along, see core/lowering.h.

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/op.h"

namespace loko {

using ValueId = int;
constexpr ValueId kNoValue = -1;

/// One named module of a (possibly fused) linear operation: query, key and value of an attention
/// share their input and become one product where nothing speaks against it.
struct LinearPart {
  std::string module;  // path in the checkpoint, what LoRA targets match
  std::string weight;  // [out, in]
  std::string bias;    // empty: none
  int out = 0;
  ValueId output = kNoValue;
  std::string outputScale;  // vector [out] that multiplies the output, bias included; empty: none
};

struct ImageNode {
  int channels = 0, height = 0, width = 0;
  ValueId output = kNoValue;
};
struct PatchifyNode {
  ValueId input = kNoValue, output = kNoValue;
  int patch = 0;
};
struct AssembleTokensNode {
  ValueId input = kNoValue, output = kNoValue;
  std::string cls, pos;  // [1, 1, d] and [1, 1 + patches, d]
};
/// The other kind of input: token numbers, looked up in three tables.
struct EmbedTokensNode {
  ValueId output = kNoValue;
  std::string words, positions, types;  // [vocabulary, d], [positionCount, d], [typeCount, d]
  int vocabulary = 0, positionCount = 0, typeCount = 0;
  int maxTokens = 0;  // of one sample
};
struct LinearNode {
  ValueId input = kNoValue, residual = kNoValue;
  Activation activation = Activation::kNone;
  std::vector<LinearPart> parts;  // exactly one when there is a residual or an activation
};
struct LayerNormNode {
  ValueId input = kNoValue, output = kNoValue;
  std::string weight, bias;
  float eps = 0;
};
struct AttentionNode {
  ValueId q = kNoValue, k = kNoValue, v = kNoValue, output = kNoValue;
  int heads = 0;
  float scale = 0;
};
/// The first row (class token) of each sample.
struct SelectFirstNode {
  ValueId input = kNoValue, output = kNoValue;
};

/// A batch normalisation in eval mode: (x - mean) / sqrt(variance + eps) * weight + bias.
struct BatchNormSpec {
  std::string weight, bias, mean, variance;
  double eps = 0;
};
/// y = act(norm(conv(x) + bias) + residual).
struct ConvNode {
  ValueId input = kNoValue, residual = kNoValue;
  Activation activation = Activation::kNone;
  LinearPart part;  // its weight is [out, in / groups, kh, kw]
  Window window;
  int groups = 1;
  std::optional<BatchNormSpec> norm;
};
struct BatchNormNode {
  ValueId input = kNoValue, output = kNoValue;
  BatchNormSpec norm;
  bool relu = false;
};
enum class Pooling : std::uint8_t { kMax, kAverage };
struct PoolNode {
  ValueId input = kNoValue, output = kNoValue;
  Pooling pooling = Pooling::kMax;
  Window window;
  bool countIncludePad = true;  // of an average
};
/// The mean of the rows from `skip` on.
struct MeanRowsNode {
  ValueId input = kNoValue, output = kNoValue;
  int skip = 0;
};
struct ConcatNode {
  std::vector<ValueId> inputs;
  ValueId output = kNoValue;
};
struct FlattenNode {
  ValueId input = kNoValue, output = kNoValue;
};

using Node = std::variant<ImageNode, PatchifyNode, AssembleTokensNode, EmbedTokensNode, LinearNode,
                          LayerNormNode, AttentionNode, SelectFirstNode, ConvNode, BatchNormNode,
                          PoolNode, MeanRowsNode, ConcatNode, FlattenNode>;

/// Stands for a number of rows that each batch decides: the tokens of a text.
constexpr int kTokenRows = -1;

/// Rows and columns of a value for one sample; rows may be kTokenRows. Where rows are pixels, `grid` says
/// how many there are each way.
struct ValueShape {
  int rows = 0, cols = 0;
  std::optional<Extent> grid;
};

/// One batch of token numbers in the input space: four blocks [B, T] one after the other. The last
/// one is added to the scores of attention, 0 or -infinity.
enum class TokenBlock : std::uint8_t { kIds, kPositions, kTypes, kMask };
constexpr int kTokenBlocks = 4;

class Graph {
 public:
  // Each call appends a node, infers the shape of what it returns and throws kShapeMismatch with
  // both shapes when operands do not fit.
  ValueId image(int channels, int height, int width);
  ValueId patchify(ValueId input, int patch);
  ValueId assembleTokens(ValueId input, const std::string& cls, const std::string& pos);
  /// `node.output` is ignored; cols: d.
  ValueId embedTokens(EmbedTokensNode node, int cols);
  std::vector<ValueId> linear(ValueId input, std::vector<LinearPart> parts,
                              Activation activation = Activation::kNone,
                              ValueId residual = kNoValue);
  ValueId layerNorm(ValueId input, const std::string& weight, const std::string& bias, float eps);
  ValueId attention(ValueId q, ValueId k, ValueId v, int heads, float scale);
  ValueId selectFirst(ValueId input);
  /// Of `node.window` and `node.part` everything but input, output and the value is given.
  ValueId conv2d(ConvNode node);
  ValueId batchNorm(ValueId input, BatchNormSpec norm, bool relu);
  ValueId maxPool(ValueId input, const Window& window, bool ceilMode);
  ValueId avgPool(ValueId input, const Window& window, bool ceilMode, bool countIncludePad);
  ValueId meanRows(ValueId input, int skip);
  ValueId concat(std::vector<ValueId> inputs);
  ValueId flatten(ValueId input);
  void setOutput(ValueId value);

  const std::vector<Node>& nodes() const { return nodes_; }
  const ValueShape& shape(ValueId value) const;
  int values() const { return static_cast<int>(shapes_.size()); }
  ValueId output() const { return output_; }
  /// m: columns of the output, which must be one row per sample.
  int outputs() const { return shape(output_).cols; }
  const ImageNode& imageInput() const;
  /// Null for a model of images.
  const EmbedTokensNode* tokenInput() const;
  /// Floats of the input of one sample of `tokens` tokens; tokens is 0 for an image. Throws
  /// kShapeMismatch for a number of tokens that the model cannot take.
  std::int64_t inputElements(int tokens) const;
  /// A linear part or convolution: its names, and the sizes of the factors of its LoRA.
  struct Module {
    const LinearPart* part;
    int in;          // columns of A: input features, or in * kh * kw of a convolution
    int groups = 1;  // B is [out, rank / groups]
    const ConvNode* conv = nullptr;  // null: a linear part

    std::int64_t sizeA(int rank) const { return std::int64_t{rank} * in; }
    std::int64_t sizeB(int rank) const { return std::int64_t{part->out} * (rank / groups); }
  };
  /// The module of that path; throws kInternal for an unknown one.
  Module module(const std::string& path) const;
  /// As module(), for one that is to be trained in full: throws kUnsupported, naming it, for a
  /// convolution or a linear part whose output is scaled.
  Module trainableModule(const std::string& path) const;
  /// Elements of the bias of that name, of a linear part or a layer norm; throws kInternal for an
  /// unknown one, kUnsupported where it is folded into frozen weights.
  int biasSize(const std::string& parameter) const;

 private:
  ValueId add(ValueShape shape);
  /// A pooling node's value; completes the window.
  ValueId pool(PoolNode node, bool ceilMode);

  std::vector<Node> nodes_;
  std::vector<ValueShape> shapes_;
  ValueId output_ = kNoValue;
};

}  // namespace loko
