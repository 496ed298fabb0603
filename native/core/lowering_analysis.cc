#include <algorithm>

#include "core/lowering_state.h"
#include "core/status.h"

namespace loko {

int Lowering::rowsOf(ValueId value) {
  return state(value).firstRowOnly ? 1 : shapeOf(value).rows;
}

View Lowering::viewOf(ValueId value, bool first) {
  const View view = state(value).view;
  return first ? firstRow(view) : view;
}

// Reverse pass. A value is narrowed to its first row when every reader reads only that row;
// operations that work row by row pass the demand on, attention needs all rows of its keys and
// values.
void Lowering::findReads() {
  std::vector<char> allRows(values_.size(), 0);
  const auto demand = [&](ValueId value, bool all) {
    if (value == kNoValue) return;
    state(value).read = true;
    ++state(value).readers;
    if (all) allRows[static_cast<std::size_t>(value)] = 1;
  };
  const auto needsAll = [&](ValueId value) {
    return allRows[static_cast<std::size_t>(value)] != 0;
  };
  demand(graph_.output(), true);
  const auto& nodes = graph_.nodes();
  for (auto node = nodes.rbegin(); node != nodes.rend(); ++node) {
    if (const auto* patchify = std::get_if<PatchifyNode>(&*node)) {
      demand(patchify->input, true);
    } else if (const auto* assemble = std::get_if<AssembleTokensNode>(&*node)) {
      demand(assemble->input, true);
      allRows[static_cast<std::size_t>(assemble->output)] = 1;
    } else if (const auto* embed = std::get_if<EmbedTokensNode>(&*node)) {
      allRows[static_cast<std::size_t>(embed->output)] = 1;
    } else if (const auto* linear = std::get_if<LinearNode>(&*node)) {
      bool any = false, all = false;
      for (const LinearPart& part : linear->parts) {
        any = any || state(part.output).read;
        all = all || needsAll(part.output);
      }
      if (any) {
        demand(linear->input, all);
        demand(linear->residual, all);
      }
    } else if (const auto* norm = std::get_if<LayerNormNode>(&*node)) {
      if (state(norm->output).read) demand(norm->input, needsAll(norm->output));
    } else if (const auto* attention = std::get_if<AttentionNode>(&*node)) {
      if (state(attention->output).read) {
        demand(attention->q, needsAll(attention->output));
        demand(attention->k, true);
        demand(attention->v, true);
      }
    } else if (const auto* select = std::get_if<SelectFirstNode>(&*node)) {
      if (state(select->output).read) demand(select->input, false);
    } else if (const auto* conv = std::get_if<ConvNode>(&*node)) {
      if (state(conv->part.output).read) {
        demand(conv->input, true);
        demand(conv->residual, true);
        allRows[static_cast<std::size_t>(conv->part.output)] = 1;
      }
    } else if (const Operands operands = operandsOf(*node); operands.output != kNoValue) {
      if (!state(operands.output).read) continue;
      const bool all = !operands.rowByRow || needsAll(operands.output);
      for (const ValueId input : operands.inputs) demand(input, all);
      if (all) allRows[static_cast<std::size_t>(operands.output)] = 1;
    }
  }
  for (ValueId value = 0; value < graph_.values(); ++value) {
    // Of the graph, not of this request: a single token must group the parts of a linear operation as
    // any other number does, or their weights would be packed twice.
    state(value).firstRowOnly = !needsAll(value) && graph_.shape(value).rows != 1;
  }
}

void Lowering::findGradients() {
  const auto needs = [&](ValueId value) { return value != kNoValue && state(value).needsGrad; };
  for (const Node& node : graph_.nodes()) {
    if (const auto* linear = std::get_if<LinearNode>(&node)) {
      for (const LinearPart& part : linear->parts) {
        state(part.output).needsGrad = needs(linear->input) || needs(linear->residual) ||
                                       adapter_.loraOf(part.module) != nullptr ||
                                       adapter_.trainedOf(part.module) != nullptr ||
                                       adapter_.biasOf(part.bias) != kNoParameter;
      }
    } else if (const auto* assemble = std::get_if<AssembleTokensNode>(&node)) {
      state(assemble->output).needsGrad = needs(assemble->input);
    } else if (const auto* norm = std::get_if<LayerNormNode>(&node)) {
      state(norm->output).needsGrad =
          needs(norm->input) || adapter_.biasOf(norm->bias) != kNoParameter;
    } else if (const auto* attention = std::get_if<AttentionNode>(&node)) {
      state(attention->output).needsGrad =
          needs(attention->q) || needs(attention->k) || needs(attention->v);
    } else if (const auto* select = std::get_if<SelectFirstNode>(&node)) {
      state(select->output).needsGrad = needs(select->input);
    } else if (const auto* conv = std::get_if<ConvNode>(&node)) {
      state(conv->part.output).needsGrad = needs(conv->input) || needs(conv->residual) ||
                                           adapter_.loraOf(conv->part.module) != nullptr;
    } else if (const Operands operands = operandsOf(node); operands.output != kNoValue) {
      state(operands.output).needsGrad =
          std::any_of(operands.inputs.begin(), operands.inputs.end(), needs);
    }
  }
}

// Parts share a product when they run over the same rows with frozen weights, and with biases that are
// all frozen or side by side in theta. A convolution is a group of its own.
void Lowering::formGroups() {
  for (const Node& node : graph_.nodes()) {
    const std::size_t begin = groups_.size();
    if (const auto* conv = std::get_if<ConvNode>(&node)) {
      formGroup(node, conv->part, begin);
    } else if (const auto* linear = std::get_if<LinearNode>(&node)) {
      for (const LinearPart& part : linear->parts) formGroup(node, part, begin);
    }
    // Whole-row groups first: their backward then writes the shared input's cotangent in full, and
    // a first-row group adds to it without a clearing pass.
    std::stable_sort(
        groups_.begin() + static_cast<std::ptrdiff_t>(begin), groups_.end(),
        [](const LinearGroup& a, const LinearGroup& b) { return a.firstRowOnly < b.firstRowOnly; });
    for (std::size_t index = begin; index < groups_.size(); ++index) {
      if (groups_.size() > begin + 1) state(groups_[index].input).oneTermPerReader = false;
      for (const LinearPart* part : groups_[index].parts) {
        state(part->output).group = static_cast<int>(index);
      }
    }
  }
}

LinearGroup Lowering::newGroup(const Node& node) const {
  LinearGroup group;
  group.node = &node;
  if (const auto* conv = group.conv = std::get_if<ConvNode>(&node)) {
    group.input = conv->input;
    group.residual = conv->residual;
    group.activation = conv->activation;
  } else {
    const auto& linear = std::get<LinearNode>(node);
    group.input = linear.input;
    group.residual = linear.residual;
    group.activation = linear.activation;
  }
  return group;
}

void Lowering::formGroup(const Node& node, const LinearPart& part, std::size_t firstOfNode) {
  ValueState& output = state(part.output);
  if (!output.read) return;
  const TrainedModule* trained = adapter_.trainedOf(part.module);
  const ParameterOffset bias = trained != nullptr ? trained->bias : adapter_.biasOf(part.bias);
  if (trained != nullptr) graph_.trainableModule(part.module);
  if (bias != kNoParameter) graph_.biasSize(part.bias);
  auto group = std::find_if(groups_.begin() + static_cast<std::ptrdiff_t>(firstOfNode),
                            groups_.end(), [&](const LinearGroup& candidate) {
                              const ParameterOffset next =
                                  candidate.trainedBias == kNoParameter
                                      ? kNoParameter
                                      : candidate.trainedBias + candidate.out;
                              return trained == nullptr && candidate.trained == nullptr &&
                                     bias == next && candidate.firstRowOnly == output.firstRowOnly;
                            });
  if (group == groups_.end()) {
    LinearGroup fresh = newGroup(node);
    fresh.trained = trained;
    fresh.trainedBias = bias;
    fresh.firstRowOnly = output.firstRowOnly;
    groups_.push_back(std::move(fresh));
    group = groups_.end() - 1;
  }
  output.group = static_cast<int>(group - groups_.begin());
  output.columnInGroup = group->out;
  addSites(*group, part);
  group->parts.push_back(&part);
  group->out += part.out;
}

// With groups, the factors of each group of channels lie together in theta, so that they are sites like
// any others.
void Lowering::addSites(LinearGroup& group, const LinearPart& part) {
  const AdaptedModule* lora = adapter_.loraOf(part.module);
  if (lora == nullptr) return;
  const Graph::Module module = graph_.module(part.module);
  const int rank = lora->rank / module.groups, out = part.out / module.groups;
  for (int i = 0; i < module.groups; ++i) {
    LoraSite site;
    site.a = lora->a + module.sizeA(rank) * i;
    site.b = lora->b + std::int64_t{out} * rank * i;
    site.rank = rank;
    site.scale = lora->scale;
    site.outBegin = group.out + out * i;
    site.outEnd = site.outBegin + out;
    site.hBegin = group.rankSum;
    group.rankSum += rank;
    group.sites.push_back(site);
  }
}

// dA costs rank * input pixels times (taps * channels) with the spread cotangent, and channels * output
// pixels times (taps * rank) with patches of x: the first convolution of a net has few channels. What
// goes on to the input needs the spread.
bool Lowering::spreads(const LinearGroup& group) {
  if (!group.gathers() || group.sites.empty()) return false;
  const Window& window = group.conv->window;
  return state(group.input).needsGrad ||
         std::int64_t{group.rankSum} * window.input.pixels() <=
             std::int64_t{shapeOf(group.input).cols} * window.output.pixels();
}

void Lowering::choosePassRows() {
  std::int64_t widest = graph_.outputs();
  for (const LinearGroup& group : groups_) {
    const int rows = group.firstRowOnly ? 1 : shapeOf(group.parts[0]->output).rows;
    widest = std::max(widest, std::int64_t{rows} * group.out);
    if (spreads(group)) {
      const std::int64_t columns = std::int64_t{group.rankSum} * group.conv->window.taps();
      widest = std::max(widest, shapeOf(group.input).rows * columns);
    }
  }
  for (ValueId value = 0; value < graph_.values(); ++value) {
    if (!state(value).needsGrad) continue;
    widest = std::max(widest, std::int64_t{rowsOf(value)} * shapeOf(value).cols);
  }
  const std::int64_t rows =
      request_.limits.bytes / (widest * request_.batch * std::int64_t{sizeof(float)});
  const int limit = request_.maxPassRows > 0 ? request_.maxPassRows : request_.limits.rows;
  plan_.passRows =
      static_cast<int>(std::clamp<std::int64_t>(rows, 1, std::min(limit, graph_.outputs())));
}

bool Lowering::groupNeedsGrad(const LinearGroup& group) {
  return std::any_of(group.parts.begin(), group.parts.end(),
                     [&](const LinearPart* part) { return state(part->output).needsGrad; });
}

}  // namespace loko
