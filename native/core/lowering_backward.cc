#include <algorithm>
#include <utility>

#include "core/lowering_state.h"
#include "core/status.h"

namespace loko {

namespace {

/// The forward step that wrote `view` as its operand `output`: what it saved is named there.
template <class Operation>
const Operation& producerOf(const std::vector<Step>& steps, View Operation::*output,
                            const View& view) {
  for (const Step& step : steps) {
    const auto* operation = std::get_if<Operation>(&step);
    if (operation != nullptr && (operation->*output).buffer == view.buffer) return *operation;
  }
  failCheck("a value was written by a forward step", __FILE__, __LINE__, "not found");
}

}  // namespace

void Lowering::emitBackward() {
  const ValueId output = graph_.output();
  if (!state(output).needsGrad) return;
  plan_.seed = gradOf(output);
  state(output).gradWritten = true;
  const auto& nodes = graph_.nodes();
  for (auto node = nodes.rbegin(); node != nodes.rend(); ++node) {
    std::visit([&](const auto& concrete) { backward(concrete); }, *node);
  }
}

View Lowering::gradOf(ValueId value) {
  ValueState& s = state(value);
  if (s.grad.present()) return s.grad;
  if (s.group < 0) {
    s.grad = cotangentBuffer(rowsOf(value), shapeOf(value).cols);
    return s.grad;
  }
  LinearGroup& group = groups_[static_cast<std::size_t>(s.group)];
  if (!group.grad.present()) group.grad = cotangentBuffer(rowsOf(value), group.out);
  s.grad = columns(group.grad, s.columnInGroup, shapeOf(value).cols);
  return s.grad;
}

View Lowering::contribute(ValueId value, bool onlyFirstRow, bool& accumulate) {
  const View grad = gradOf(value);
  ValueState& s = state(value);
  const bool partial = onlyFirstRow && grad.rows > 1;
  if (partial && !s.gradWritten) {
    plan_.backward.emplace_back(ClearRows{grad});
    s.gradWritten = true;
  }
  accumulate = s.gradWritten;
  s.gradWritten = true;
  return partial ? firstRow(grad) : grad;
}

void Lowering::backward(const LinearNode& node) {
  for (LinearGroup& group : groups_) {
    if (group.node == &node && group.grad.present()) backwardGroup(group);
  }
}

void Lowering::backwardGroup(LinearGroup& group) {
  const LinearNode& node = *group.node;
  const View dy = group.grad;
  for (const LinearPart* part : group.parts) {
    const ValueState& s = state(part->output);
    if (s.needsGrad && !s.gradWritten) {
      plan_.backward.emplace_back(ClearRows{gradOf(part->output)});
    }
  }
  if (node.activation != Activation::kNone && !state(group.parts[0]->output).gradBeforeActivation) {
    plan_.backward.emplace_back(ActivationBackward{dy, group.actGrad});
  }
  LinearBackward step;
  if (!group.sites.empty()) {
    step.u = cotangentBuffer(dy.rows, group.rankSum);
    step.sites = group.sites;
    plan_.backward.emplace_back(LoraBackward{dy, group.x, group.h, step.u, group.sites});
  }
  if (group.trained != nullptr) {
    plan_.backward.emplace_back(
        WeightBackward{dy, group.x, group.trained->weight, group.trainedBias});
  } else if (group.trainedBias != kNoParameter) {
    plan_.backward.emplace_back(WeightBackward{dy, View{}, kNoParameter, group.trainedBias});
  }
  emitGram(group);
  if (state(node.input).needsGrad) {
    ValueState& input = state(node.input);
    if (input.group >= 0 && input.readers == 1) {
      const LinearGroup& producer = groups_[static_cast<std::size_t>(input.group)];
      if (producer.node->activation != Activation::kNone) {
        step.actGrad =
            dy.rows == producer.actGrad.rows ? producer.actGrad : firstRow(producer.actGrad);
        input.gradBeforeActivation = true;
      }
    }
    step.dy = dy;
    step.dx = contribute(node.input, group.firstRowOnly, step.accumulate);
    if (group.trained != nullptr) {
      step.trainedWeight = group.trained->weight;
    } else {
      std::vector<std::string> names;
      for (const LinearPart* part : group.parts) names.push_back(part->weight);
      step.weight = weights_.matrix(names, group.x.cols);
    }
    plan_.backward.emplace_back(std::move(step));
  }
  // Last: from here on the residual may own the memory of dy.
  residualGrad(node.residual, dy);
}

// d(x + f(x))/dx passes the cotangent through unchanged, so where rows agree the skip connection's
// cotangent is the same memory and later contributions are added in place. Safe because every step
// that reads dy as such has been emitted before.
void Lowering::residualGrad(ValueId residual, const View& grad) {
  if (residual == kNoValue || !state(residual).needsGrad) return;
  ValueState& s = state(residual);
  LinearGroup* group = s.group < 0 ? nullptr : &groups_[static_cast<std::size_t>(s.group)];
  const bool wholeBuffer = group == nullptr || group->parts.size() == 1;
  if (!s.gradWritten && wholeBuffer && rowsOf(residual) == grad.rows) {
    s.grad = grad;
    s.gradWritten = true;
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
  if (!state(node.output).gradWritten || !state(node.input).needsGrad) return;
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
  if (!state(node.output).gradWritten) return;
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
  if (!state(node.output).gradWritten) return;
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
  if (state(node.output).gradWritten) residualGrad(node.input, state(node.output).grad);
}

// The parameters of a group are finished here for this pass: their share of the Gram matrix is
// taken while the rows are hot.
void Lowering::emitGram(const LinearGroup& group) {
  std::vector<Gram> ranges;
  const std::int64_t in = group.x.cols;
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
