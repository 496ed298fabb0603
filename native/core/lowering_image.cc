#include "core/folded_weights.h"
#include "core/lowering_state.h"

namespace loko {

Operands operandsOf(const Node& node) {
  if (const auto* norm = std::get_if<BatchNormNode>(&node)) {
    return {{norm->input}, norm->output, true};
  }
  if (const auto* concat = std::get_if<ConcatNode>(&node)) {
    return {concat->inputs, concat->output, true};
  }
  if (const auto* pool = std::get_if<PoolNode>(&node)) return {{pool->input}, pool->output, false};
  if (const auto* mean = std::get_if<MeanRowsNode>(&node)) {
    return {{mean->input}, mean->output, false};
  }
  if (const auto* flatten = std::get_if<FlattenNode>(&node)) {
    return {{flatten->input}, flatten->output, false};
  }
  return {};
}

void Lowering::forward(const BatchNormNode& node) {
  if (!state(node.output).read) return;
  BatchNorm step;
  step.x = viewOf(node.input, state(node.output).firstRowOnly);
  step.y = outputView(node.output);
  step.scale = normScale(weights_, node.norm);
  step.shift = normShift(weights_, node.norm);
  step.relu = node.relu;
  plan_.forward.emplace_back(step);
}

// The input is read again instead of a stored derivative: it lives anyway where a concatenation holds it.
void Lowering::backward(const BatchNormNode& node) {
  if (!gradReady(node.output) || !state(node.input).needsGrad) return;
  const BatchNorm& norm = producerOf(plan_.forward, &BatchNorm::y, state(node.output).view);
  BatchNormBackward step;
  step.dy = gradOf(node.output);
  step.x = norm.x;
  step.scale = norm.scale;
  step.shift = norm.shift;
  step.relu = node.relu;
  step.dx = contribute(node.input, state(node.output).firstRowOnly, step.accumulate);
  plan_.backward.emplace_back(step);
}

void Lowering::forward(const PoolNode& node) {
  if (!state(node.output).read) return;
  const View x = state(node.input).view, y = outputView(node.output);
  if (node.pooling == Pooling::kAverage) {
    plan_.forward.emplace_back(AvgPool{x, y, node.window, node.countIncludePad});
    return;
  }
  MaxPool step{x, y, {}, node.window};
  if (request_.training && state(node.input).needsGrad) {
    step.index = forwardBuffer(y.rows, y.cols);
  }
  plan_.forward.emplace_back(step);
}

void Lowering::backward(const PoolNode& node) {
  if (!gradReady(node.output) || !state(node.input).needsGrad) return;
  const View dy = gradOf(node.output);
  bool accumulate = false;
  const View dx = contribute(node.input, false, accumulate);
  if (node.pooling == Pooling::kAverage) {
    plan_.backward.emplace_back(
        AvgPoolBackward{dy, dx, accumulate, node.window, node.countIncludePad});
    return;
  }
  const MaxPool& pool = producerOf(plan_.forward, &MaxPool::y, state(node.output).view);
  plan_.backward.emplace_back(MaxPoolBackward{dy, dx, pool.index, accumulate, node.window});
}

void Lowering::forward(const MeanRowsNode& node) {
  if (!state(node.output).read) return;
  plan_.forward.emplace_back(MeanRows{state(node.input).view, outputView(node.output), node.skip});
}

void Lowering::backward(const MeanRowsNode& node) {
  if (!gradReady(node.output) || !state(node.input).needsGrad) return;
  MeanRowsBackward step;
  step.dy = gradOf(node.output);
  step.skip = node.skip;
  step.dx = contribute(node.input, false, step.accumulate);
  plan_.backward.emplace_back(step);
}

void Lowering::forward(const ConcatNode& node) {
  if (!state(node.output).read) return;
  const bool inPlace = state(node.output).shared >= 0;
  const View y = outputView(node.output);
  int column = 0;
  for (const ValueId input : node.inputs) {
    const View x = viewOf(input, state(node.output).firstRowOnly);
    if (!inPlace) plan_.forward.emplace_back(CopyRows{x, columns(y, column, x.cols)});
    column += x.cols;
  }
}

void Lowering::backward(const ConcatNode& node) {
  if (state(node.output).shared >= 0 || !gradReady(node.output)) return;
  const View dy = gradOf(node.output);
  int column = 0;
  for (const ValueId input : node.inputs) {
    const int cols = shapeOf(input).cols;
    residualGrad(input, columns(dy, column, cols));
    column += cols;
  }
}

void Lowering::forward(const FlattenNode& node) {
  if (!state(node.output).read) return;
  plan_.forward.emplace_back(Flatten{state(node.input).view, outputView(node.output)});
}

void Lowering::backward(const FlattenNode& node) {
  if (!gradReady(node.output) || !state(node.input).needsGrad) return;
  FlattenBackward step;
  step.dy = gradOf(node.output);
  step.dx = contribute(node.input, false, step.accumulate);
  plan_.backward.emplace_back(step);
}

}  // namespace loko
