#include <type_traits>

#include "core/folded_weights.h"
#include "core/lowering_state.h"
#include "core/status.h"

namespace loko {

namespace {
/// Attention probabilities are kept for backward up to this many keys; above, re-reading them costs
/// more than recomputing them.
constexpr int kMaxStoredKeys = 256;
}  // namespace

void Lowering::emitForward() {
  for (const Node& node : graph_.nodes()) {
    std::visit([&](const auto& concrete) { forward(concrete); }, node);
    for (LinearGroup& group : groups_) {
      if (group.node == &node) forwardGroup(group);
    }
  }
  plan_.logits = state(graph_.output()).view;
}

void Lowering::forward(const ImageNode& node) {
  View& view = state(node.output).view;
  view.space = Space::kInput;
  view.rows = node.channels * node.height;
  view.cols = node.width;
  view.ld = node.width;
  view.sampleStride = std::int64_t{view.rows} * view.cols;
  plan_.input = view;
  plan_.inputElements = view.sampleStride * request_.batch;
}

void Lowering::forward(const PatchifyNode& node) {
  const ImageNode& image = graph_.imageInput();
  const ValueShape shape = shapeOf(node.output);
  Patchify step;
  step.image = state(node.input).view;
  step.patches = state(node.output).view = forwardBuffer(shape.rows, shape.cols);
  step.channels = image.channels;
  step.height = image.height;
  step.width = image.width;
  step.patch = node.patch;
  plan_.forward.emplace_back(step);
}

void Lowering::forward(const AssembleTokensNode& node) {
  const ValueShape shape = shapeOf(node.output);
  AssembleTokens step;
  step.patches = state(node.input).view;
  step.tokens = state(node.output).view = forwardBuffer(shape.rows, shape.cols);
  step.cls = weights_.vector({{node.cls, shape.cols}});
  step.pos = weights_.vector({{node.pos, std::int64_t{shape.rows} * shape.cols}});
  plan_.forward.emplace_back(step);
}

void Lowering::forward(const EmbedTokensNode& node) {
  const ValueShape shape = shapeOf(node.output);
  const std::int64_t block = std::int64_t{request_.batch} * shape.rows;
  View& input = plan_.input;
  input.space = Space::kInput;
  input.rows = 1;
  input.cols = shape.rows;
  input.ld = input.sampleStride = shape.rows;
  plan_.inputElements = block * kTokenBlocks;
  const auto blockOf = [&](TokenBlock which) {
    View view = input;
    view.offset = block * static_cast<std::int64_t>(which);
    return view;
  };
  if (request_.masked) mask_ = blockOf(TokenBlock::kMask);

  EmbedTokens step;
  step.ids = blockOf(TokenBlock::kIds);
  step.positionIds = blockOf(TokenBlock::kPositions);
  step.typeIds = blockOf(TokenBlock::kTypes);
  step.out = state(node.output).view = forwardBuffer(shape.rows, shape.cols);
  step.words = weights_.table(node.words, node.vocabulary, shape.cols);
  step.positions = weights_.table(node.positions, node.positionCount, shape.cols);
  step.types = weights_.table(node.types, node.typeCount, shape.cols);
  step.vocabulary = node.vocabulary;
  step.positionCount = node.positionCount;
  step.typeCount = node.typeCount;
  plan_.forward.emplace_back(step);
}

View Lowering::outputView(ValueId value) {
  ValueState& s = state(value);
  if (s.shared < 0) return s.view = forwardBuffer(rowsOf(value), shapeOf(value).cols);
  SharedColumns& shared = shared_[static_cast<std::size_t>(s.shared)];
  if (!shared.view.present()) shared.view = forwardBuffer(shared.rows, shared.cols);
  return s.view = columns(shared.view, s.sharedColumn, shapeOf(value).cols);
}

/// The frozen matrix of a linear map, or those of a convolution.
template <class Operation>
void Lowering::setWeights(const LinearGroup& group, Operation& step) {
  const LinearPart& part = *group.parts[0];
  if constexpr (std::is_same_v<Operation, Conv2d> || std::is_same_v<Operation, Conv2dBackward>) {
    const FoldedWeights folded(weights_, *group.conv, group.x.cols);
    step.window = group.conv->window;
    for (int g = 0; g < group.conv->groups; ++g) {
      step.weights.push_back(folded.matrix(g));
    }
  } else if (group.trained != nullptr) {
    step.trainedWeight = group.trained->weight;
  } else if (group.conv != nullptr) {
    step.weight = FoldedWeights(weights_, *group.conv, group.x.cols).matrix(0);
  } else if (!part.outputScale.empty()) {
    step.weight = FoldedWeights(weights_, part, group.x.cols).matrix(0);
  } else {
    std::vector<std::string> names;
    for (const LinearPart* one : group.parts) names.push_back(one->weight);
    step.weight = weights_.matrix(names, group.x.cols);
  }
}
template void Lowering::setWeights(const LinearGroup&, LinearBackward&);
template void Lowering::setWeights(const LinearGroup&, Conv2dBackward&);

void Lowering::forwardGroup(LinearGroup& group) {
  const bool single = group.parts.size() == 1;
  const LinearPart& first = *group.parts[0];
  const int rows = rowsOf(first.output);
  group.x = viewOf(group.input, group.firstRowOnly);
  group.y = single ? outputView(first.output) : forwardBuffer(rows, group.out);
  for (const LinearPart* part : group.parts) {
    state(part->output).view = columns(group.y, state(part->output).columnInGroup, part->out);
  }
  if (group.activation == Activation::kRelu) {
    group.actGrad = group.y;
  } else if (request_.training && group.activation != Activation::kNone && groupNeedsGrad(group)) {
    group.actGrad = forwardBuffer(rows, group.out);
  }
  if (!group.sites.empty()) group.h = forwardBuffer(rows, group.rankSum);

  WeightId bias = kNoWeight;
  if (group.conv != nullptr || !first.outputScale.empty()) {
    const FoldedWeights folded = group.conv != nullptr
                                     ? FoldedWeights(weights_, *group.conv, group.x.cols)
                                     : FoldedWeights(weights_, first, group.x.cols);
    bias = folded.bias();
    for (LoraSite& site : group.sites) site.outputScale = folded.scale();
  } else if (group.trainedBias == kNoParameter && group.trained == nullptr) {
    std::vector<std::pair<std::string, std::int64_t>> biases;
    for (const LinearPart* part : group.parts) biases.emplace_back(part->bias, part->out);
    bias = weights_.vector(biases);
  }

  const auto emit = [&](auto step) {
    step.x = group.x;
    step.y = group.y;
    step.bias = bias;
    step.activation = group.activation;
    if (group.residual != kNoValue) step.residual = viewOf(group.residual, group.firstRowOnly);
    if (group.activation != Activation::kRelu) step.actGrad = group.actGrad;
    setWeights(group, step);
    step.h = group.h;
    step.sites = group.sites;
    plan_.forward.emplace_back(std::move(step));
  };
  if (group.gathers()) {
    if (!group.sites.empty()) {
      plan_.forward.emplace_back(ConvLoraDown{group.x, group.h, group.conv->window, group.sites});
    }
    return emit(Conv2d{});
  }
  if (!group.sites.empty()) plan_.forward.emplace_back(LoraDown{group.x, group.h, group.sites});
  Linear linear;
  linear.trainedBias = group.trainedBias;
  emit(std::move(linear));
}

void Lowering::forward(const LayerNormNode& node) {
  if (!state(node.output).read) return;
  const int rows = rowsOf(node.output);
  const int cols = shapeOf(node.output).cols;
  LayerNorm step;
  step.x = viewOf(node.input, state(node.output).firstRowOnly);
  step.y = outputView(node.output);
  if (request_.training && state(node.input).needsGrad) {
    step.xhat = forwardBuffer(rows, cols);
    step.rstd = forwardBuffer(rows, 1);
  }
  step.gamma = weights_.vector({{node.weight, cols}});
  step.trainedBeta = adapter_.biasOf(node.bias);
  if (step.trainedBeta == kNoParameter) step.beta = weights_.vector({{node.bias, cols}});
  step.eps = node.eps;
  plan_.forward.emplace_back(step);
}

void Lowering::forward(const AttentionNode& node) {
  if (!state(node.output).read) return;
  Attention step;
  step.q = viewOf(node.q, state(node.output).firstRowOnly);
  step.k = state(node.k).view;
  step.v = state(node.v).view;
  step.mask = mask_;
  step.o = state(node.output).view = forwardBuffer(rowsOf(node.output), shapeOf(node.output).cols);
  const int keys = shapeOf(node.k).rows;
  if (request_.training && state(node.output).needsGrad && keys <= kMaxStoredKeys) {
    step.probs = forwardBuffer(node.heads * step.o.rows, keys);
  }
  step.heads = node.heads;
  step.scale = node.scale;
  plan_.forward.emplace_back(step);
}

void Lowering::forward(const SelectFirstNode& node) {
  state(node.output).view = firstRow(state(node.input).view);
}

}  // namespace loko
