// Concatenations without copies. Values that are concatenated are written as ranges of columns of one
// shared buffer, and their cotangents are gathered in the same ranges of another. A concatenation that
// begins as an earlier one does and adds columns at its end widens that one's buffer: so all of a block of
// a DenseNet is one buffer, and each layer reads a longer prefix of it.

#include <algorithm>

#include "core/lowering_state.h"

namespace loko {

/// Marks what the operation that makes it can write anywhere.
void Lowering::findPlaceable() {
  const auto mark = [&](ValueId value) {
    ValueState& s = state(value);
    const bool onePart =
        s.group < 0 || groups_[static_cast<std::size_t>(s.group)].parts.size() == 1;
    s.placeable = s.read && !s.firstRowOnly && onePart && shapeOf(value).rows > 0;
  };
  for (const Node& node : graph_.nodes()) {
    if (const auto* linear = std::get_if<LinearNode>(&node)) {
      for (const LinearPart& part : linear->parts) mark(part.output);
    } else if (const auto* conv = std::get_if<ConvNode>(&node)) {
      mark(conv->part.output);
    } else if (const auto* norm = std::get_if<LayerNormNode>(&node)) {
      mark(norm->output);
    } else if (const Operands operands = operandsOf(node); operands.output != kNoValue) {
      if (!std::holds_alternative<ConcatNode>(node)) mark(operands.output);
    }
  }
}

void Lowering::placeConcats() {
  findPlaceable();
  for (const Node& node : graph_.nodes()) {
    const auto* concat = std::get_if<ConcatNode>(&node);
    if (concat != nullptr && state(concat->output).read) placeConcat(*concat);
  }
  for (SharedColumns& shared : shared_) {
    shared.gradWritten.assign(static_cast<std::size_t>(shared.cols), 0);
  }
}

void Lowering::placeConcat(const ConcatNode& node) {
  if (state(node.output).firstRowOnly) return;
  // A place that is already taken decides about all others.
  int target = -1, origin = 0, column = 0;
  for (const ValueId input : node.inputs) {
    if (state(input).shared >= 0) {
      target = state(input).shared;
      origin = state(input).sharedColumn - column;
      break;
    }
    column += shapeOf(input).cols;
  }
  const int taken = target < 0 ? 0 : shared_[static_cast<std::size_t>(target)].cols;
  column = origin;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    const ValueId input = node.inputs[i];
    const ValueState& s = state(input);
    const bool repeated =
        std::find(node.inputs.begin(), node.inputs.begin() + static_cast<std::ptrdiff_t>(i),
                  input) != node.inputs.begin() + static_cast<std::ptrdiff_t>(i);
    const bool fits = s.shared >= 0 ? s.shared == target && s.sharedColumn == column
                                    : s.placeable && column >= taken && !repeated;
    if (!fits) return;
    column += shapeOf(input).cols;
  }
  if (target < 0) {
    target = static_cast<int>(shared_.size());
    shared_.push_back({shapeOf(node.output).rows, 0, {}, {}, {}});
  }
  SharedColumns& shared = shared_[static_cast<std::size_t>(target)];
  shared.cols = std::max(shared.cols, column);
  const auto put = [&](ValueId value, int at) {
    state(value).shared = target;
    state(value).sharedColumn = at;
  };
  column = origin;
  for (const ValueId input : node.inputs) {
    put(input, column);
    column += shapeOf(input).cols;
  }
  put(node.output, origin);
}

}  // namespace loko
