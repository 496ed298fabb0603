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

void Lowering::forward(const LinearNode& node) {
  for (LinearGroup& group : groups_) {
    if (group.node == &node) forwardGroup(group);
  }
}

void Lowering::forwardGroup(LinearGroup& group) {
  const LinearNode& node = *group.node;
  const int rows = rowsOf(group.parts[0]->output);
  group.x = viewOf(node.input, group.firstRowOnly);
  group.y = forwardBuffer(rows, group.out);
  for (const LinearPart* part : group.parts) {
    state(part->output).view = columns(group.y, state(part->output).columnInGroup, part->out);
  }

  Linear step;
  step.x = group.x;
  step.y = group.y;
  step.activation = node.activation;
  if (node.residual != kNoValue) step.residual = viewOf(node.residual, group.firstRowOnly);
  if (request_.training && node.activation != Activation::kNone && groupNeedsGrad(group)) {
    step.actGrad = group.actGrad = forwardBuffer(rows, group.out);
  }
  step.trainedBias = group.trainedBias;
  if (group.trained != nullptr) {
    step.trainedWeight = group.trained->weight;
  } else {
    std::vector<std::string> names;
    std::vector<std::pair<std::string, std::int64_t>> biases;
    for (const LinearPart* part : group.parts) {
      names.push_back(part->weight);
      biases.emplace_back(part->bias, part->out);
    }
    step.weight = weights_.matrix(names, group.x.cols);
    if (group.trainedBias == kNoParameter) step.bias = weights_.vector(biases);
  }
  if (!group.sites.empty()) {
    group.h = forwardBuffer(rows, group.rankSum);
    plan_.forward.emplace_back(LoraDown{group.x, group.h, group.sites});
    step.h = group.h;
    step.sites = group.sites;
  }
  plan_.forward.emplace_back(std::move(step));
}

void Lowering::forward(const LayerNormNode& node) {
  if (!state(node.output).read) return;
  const int rows = rowsOf(node.output);
  const int cols = shapeOf(node.output).cols;
  LayerNorm step;
  step.x = viewOf(node.input, state(node.output).firstRowOnly);
  step.y = state(node.output).view = forwardBuffer(rows, cols);
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
