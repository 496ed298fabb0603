#include <algorithm>
#include <utility>

#include "core/lowering_state.h"
#include "core/status.h"

namespace loko {

void Lowering::emitBackward() {
  const ValueId output = graph_.output();
  if (!state(output).needsGrad) return;
  bool accumulate = false;
  plan_.seed = contribute(output, false, accumulate);
  const auto& nodes = graph_.nodes();
  for (auto node = nodes.rbegin(); node != nodes.rend(); ++node) {
    std::visit([&](const auto& concrete) { backward(concrete); }, *node);
    for (LinearGroup& group : groups_) {
      if (group.node == &*node) backwardGroup(group);
    }
  }
}

View Lowering::sharedGrad(const ValueState& value) {
  SharedColumns& shared = shared_[static_cast<std::size_t>(value.shared)];
  if (!shared.grad.present()) shared.grad = cotangentBuffer(shared.rows, shared.cols);
  return columns(shared.grad, value.sharedColumn, value.view.cols);
}

View Lowering::gradOf(ValueId value) {
  ValueState& s = state(value);
  if (s.grad.present()) return s.grad;
  LinearGroup* group = s.group < 0 ? nullptr : &groups_[static_cast<std::size_t>(s.group)];
  if (s.shared >= 0) {
    s.grad = sharedGrad(s);
    if (group != nullptr) group->grad = s.grad;  // its only part
  } else if (group != nullptr) {
    if (!group->grad.present()) group->grad = cotangentBuffer(rowsOf(value), group->out);
    s.grad = columns(group->grad, s.columnInGroup, shapeOf(value).cols);
  } else {
    s.grad = cotangentBuffer(rowsOf(value), shapeOf(value).cols);
  }
  return s.grad;
}

bool Lowering::completeColumns(const ValueState& value) {
  auto& written = shared_[static_cast<std::size_t>(value.shared)].gradWritten;
  const auto begin = written.begin() + value.sharedColumn, end = begin + value.view.cols;
  const bool any = std::find(begin, end, 1) != end;
  for (auto gap = std::find(begin, end, 0); any && gap != end;) {
    const auto after = std::find(gap, end, 1);
    plan_.backward.emplace_back(ClearRows{
        columns(sharedGrad(value), static_cast<int>(gap - begin), static_cast<int>(after - gap))});
    gap = std::find(after, end, 0);
  }
  std::fill(begin, end, 1);
  return any;
}

bool Lowering::gradReady(ValueId value) {
  ValueState& s = state(value);
  if (s.shared < 0) return s.gradWritten;
  const auto& written = shared_[static_cast<std::size_t>(s.shared)].gradWritten;
  const auto begin = written.begin() + s.sharedColumn, end = begin + s.view.cols;
  if (std::find(begin, end, 1) == end) return false;
  gradOf(value);
  return completeColumns(s);
}

View Lowering::contribute(ValueId value, bool onlyFirstRow, bool& accumulate) {
  const View grad = gradOf(value);
  ValueState& s = state(value);
  ++s.gradTerms;
  const bool partial = onlyFirstRow && grad.rows > 1;
  if (s.shared >= 0) {
    accumulate = completeColumns(s);
    if (partial && !accumulate) plan_.backward.emplace_back(ClearRows{grad});
    accumulate = accumulate || partial;
    return partial ? firstRow(grad) : grad;
  }
  if (partial && !s.gradWritten) {
    plan_.backward.emplace_back(ClearRows{grad});
    s.gradWritten = true;
  }
  accumulate = s.gradWritten;
  s.gradWritten = true;
  return partial ? firstRow(grad) : grad;
}

FoldedDerivative Lowering::derivativeOf(const LinearGroup& group, int rows) const {
  const View& factor = group.actGrad;
  return {rows == factor.rows ? factor : firstRow(factor), group.activation == Activation::kRelu};
}

/// The blocks of the Jacobian of the group's sites; what of their cotangents goes on to the input.
View Lowering::backwardLora(LinearGroup& group) {
  const View dy = group.grad;
  if (group.sites.empty()) return {};
  const View u = cotangentBuffer(dy.rows, group.rankSum);
  if (!group.gathers()) {
    plan_.backward.emplace_back(LoraBackward{dy, group.x, group.h, u, group.sites});
    return u;
  }
  const Window& window = group.conv->window;
  ConvLoraBackward step{dy, group.x, group.h, u, {}, window, group.sites};
  if (spreads(group)) {
    step.spread = cotangentBuffer(window.input.pixels(), window.taps() * group.rankSum);
  }
  plan_.backward.emplace_back(step);
  return step.spread;
}

template <class Operation>
void Lowering::emitInputGrad(LinearGroup& group, Operation step) {
  ValueState& input = state(group.input);
  step.dy = group.grad;
  setWeights(group, step);
  step.sites = group.sites;
  step.dx = contribute(group.input, group.firstRowOnly, step.accumulate);
  const LinearGroup* producer =
      input.group < 0 ? nullptr : &groups_[static_cast<std::size_t>(input.group)];
  if (producer != nullptr && producer->activation != Activation::kNone) {
    const bool last = input.oneTermPerReader && input.gradTerms == input.readers;
    if (input.readers == 1 || (last && step.dx.rows == producer->y.rows)) {
      step.derivative = derivativeOf(*producer, step.dx.rows);
      step.derivative.ofSum = input.readers > 1;
      input.gradBeforeActivation = true;
    }
  }
  plan_.backward.emplace_back(std::move(step));
}

void Lowering::backwardGroup(LinearGroup& group) {
  const bool ready = std::count_if(group.parts.begin(), group.parts.end(),
                                   [&](const auto* part) { return gradReady(part->output); }) > 0;
  if (!ready) return;
  const View dy = group.grad;
  for (const LinearPart* part : group.parts) {
    const ValueState& s = state(part->output);
    if (s.needsGrad && !gradReady(part->output)) {
      plan_.backward.emplace_back(ClearRows{gradOf(part->output)});
    }
  }
  if (group.activation != Activation::kNone &&
      !state(group.parts[0]->output).gradBeforeActivation) {
    plan_.backward.emplace_back(ActivationBackward{dy, derivativeOf(group, dy.rows)});
  }
  const View lowRank = backwardLora(group);
  if (group.trained != nullptr) {
    plan_.backward.emplace_back(
        WeightBackward{dy, group.x, group.trained->weight, group.trainedBias});
  } else if (group.trainedBias != kNoParameter) {
    plan_.backward.emplace_back(WeightBackward{dy, View{}, kNoParameter, group.trainedBias});
  }
  emitGram(group);
  if (state(group.input).needsGrad) {
    if (group.gathers()) {
      Conv2dBackward step;
      step.spread = lowRank;
      emitInputGrad(group, std::move(step));
    } else {
      LinearBackward step;
      step.u = lowRank;
      emitInputGrad(group, std::move(step));
    }
  }
  // Last: from here on the residual may own the memory of dy.
  residualGrad(group.residual, dy);
}

// d(x + f(x))/dx passes the cotangent through unchanged, so where rows agree the skip connection's
// cotangent is the same memory and later contributions are added in place. Safe because every step
// that reads dy as such has been emitted before.
void Lowering::residualGrad(ValueId residual, const View& grad) {
  if (residual == kNoValue || !state(residual).needsGrad) return;
  ValueState& s = state(residual);
  LinearGroup* group = s.group < 0 ? nullptr : &groups_[static_cast<std::size_t>(s.group)];
  const bool ownBuffer = s.shared < 0 && (group == nullptr || group->parts.size() == 1);
  if (!s.gradWritten && ownBuffer && rowsOf(residual) == grad.rows) {
    s.grad = grad;
    s.gradWritten = true;
    ++s.gradTerms;
    if (group != nullptr) group->grad = grad;
    return;
  }
  bool accumulate = false;
  const View target = contribute(residual, grad.rows < rowsOf(residual), accumulate);
  if (!accumulate) plan_.backward.emplace_back(ClearRows{target});
  plan_.backward.emplace_back(AddRows{grad, target});
}

/// The cotangent of the patches is the rows of the tokens' after the class token: the same memory.
void Lowering::backward(const AssembleTokensNode& node) {
  if (!gradReady(node.output) || !state(node.input).needsGrad) return;
  ValueState& patches = state(node.input);
  LOKO_CHECK(patches.readers == 1 && patches.group >= 0, "tokens are made of projected patches");
  LinearGroup& group = groups_[static_cast<std::size_t>(patches.group)];
  LOKO_CHECK(group.parts.size() == 1, "patches are projected by one module");
  View grad = state(node.output).grad;
  grad.offset += grad.ld;
  --grad.rows;
  patches.grad = group.grad = grad;
  patches.gradWritten = true;
}

void Lowering::backward(const LayerNormNode& node) {
  if (!gradReady(node.output)) return;
  if (const ParameterOffset bias = adapter_.biasOf(node.bias); bias != kNoParameter) {
    const View dy = state(node.output).grad;
    plan_.backward.emplace_back(WeightBackward{dy, View{}, kNoParameter, bias});
    emitGram({Gram{bias, bias + dy.cols}});
  }
  if (!state(node.input).needsGrad) return;
  const LayerNorm& norm = producerOf(plan_.forward, &LayerNorm::y, state(node.output).view);
  LayerNormBackward step;
  step.dy = state(node.output).grad;
  step.xhat = norm.xhat;
  step.rstd = norm.rstd;
  step.gamma = norm.gamma;
  step.dx = contribute(node.input, state(node.output).firstRowOnly, step.accumulate);
  plan_.backward.emplace_back(step);
}

void Lowering::backward(const AttentionNode& node) {
  if (!gradReady(node.output)) return;
  const Attention& attention = producerOf(plan_.forward, &Attention::o, state(node.output).view);
  AttentionBackward step;
  step.dout = state(node.output).grad;
  step.q = attention.q;
  step.k = attention.k;
  step.v = attention.v;
  step.o = attention.o;
  step.probs = attention.probs;
  step.mask = attention.mask;
  step.heads = node.heads;
  step.scale = node.scale;
  const auto target = [&](ValueId value, bool onlyFirstRow) {
    if (!state(value).needsGrad) return View{};
    LOKO_CHECK(state(value).readers == 1, "attention writes the cotangents of its operands alone");
    bool accumulate = false;
    return contribute(value, onlyFirstRow, accumulate);
  };
  step.dq = target(node.q, state(node.output).firstRowOnly);
  step.dk = target(node.k, false);
  step.dv = target(node.v, false);
  plan_.backward.emplace_back(step);
}

void Lowering::backward(const SelectFirstNode& node) {
  if (gradReady(node.output)) residualGrad(node.input, state(node.output).grad);
}

// The parameters of a group are finished here for this pass: their share of the Gram matrix is
// taken while the rows are hot.
void Lowering::emitGram(const LinearGroup& group) {
  std::vector<Gram> ranges;
  const std::int64_t in = group.rowOfA();
  for (const LoraSite& site : group.sites) {
    ranges.push_back({site.a, site.a + site.rank * in});
    ranges.push_back({site.b, site.b + std::int64_t{site.outEnd - site.outBegin} * site.rank});
  }
  if (group.trained != nullptr) {
    ranges.push_back({group.trained->weight, group.trained->weight + group.out * in});
  }
  if (group.trainedBias != kNoParameter) {
    ranges.push_back({group.trainedBias, group.trainedBias + group.out});
  }
  emitGram(std::move(ranges));
}

void Lowering::emitGram(std::vector<Gram> ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const Gram& a, const Gram& b) { return a.begin < b.begin; });
  for (std::size_t i = 0; i < ranges.size();) {
    Gram step = ranges[i];
    for (++i; i < ranges.size() && ranges[i].begin == step.end; ++i) step.end = ranges[i].end;
    plan_.backward.emplace_back(step);
  }
}

}  // namespace loko
