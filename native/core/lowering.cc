#include "core/lowering.h"

#include <algorithm>
#include <utility>

#include "core/lowering_state.h"
#include "core/op_views.h"
#include "core/status.h"

namespace loko {

View firstRow(View view) {
  view.rows = 1;
  return view;
}

View columns(View view, int begin, int cols) {
  view.offset += begin;
  view.cols = cols;
  return view;
}

Lowering::Lowering(const Graph& graph, const Adapter& adapter, WeightTable& weights,
                   const LoweringRequest& request)
    : graph_(graph), adapter_(adapter), weights_(weights), request_(request) {
  values_.resize(static_cast<std::size_t>(graph.values()));
}

ValueShape Lowering::shapeOf(ValueId value) const {
  ValueShape shape = graph_.shape(value);
  if (shape.rows == kTokenRows) shape.rows = request_.tokens;
  return shape;
}

View Lowering::allocate(int count, int rows, int cols) {
  View view;
  view.space = Space::kScratch;
  view.rows = rows;
  view.cols = cols;
  view.ld = cols;
  view.sampleStride = std::int64_t{rows} * cols;
  view.buffer = static_cast<int>(buffers_.size());
  PlannedBuffer buffer;
  buffer.elements = view.sampleStride * count;
  buffers_.push_back(buffer);
  return view;
}

// A buffer lives from the first to the last step that names it. What forward leaves for backward
// lives to the very end, because backward runs once per pass of cotangent rows.
void Lowering::place() {
  const int forwardSteps = static_cast<int>(plan_.forward.size());
  const int steps = forwardSteps + static_cast<int>(plan_.backward.size());
  const auto touch = [&](const View& view, int step) {
    if (view.space != Space::kScratch) return;
    PlannedBuffer& buffer = buffers_[static_cast<std::size_t>(view.buffer)];
    if (buffer.last < 0) buffer.first = step;
    buffer.last = std::max(buffer.last, step);
    if (step >= forwardSteps && buffer.first < forwardSteps) buffer.last = steps;
  };
  const auto eachStep = [&](auto visit) {
    int index = 0;
    for (Step& step : plan_.forward) visit(step, index++);
    for (Step& step : plan_.backward) visit(step, index++);
  };
  eachStep([&](Step& step, int index) {
    eachView(step, [&](View& view) {
      if (view.present()) touch(view, index);
    });
  });
  touch(plan_.logits, forwardSteps - 1);
  if (plan_.seed.present()) {
    PlannedBuffer& seed = buffers_[static_cast<std::size_t>(plan_.seed.buffer)];
    seed.first = forwardSteps;
  }
  plan_.scratchElements = placeBuffers(buffers_);
  const auto relocate = [&](View& view) {
    if (view.space == Space::kScratch) {
      view.offset += buffers_[static_cast<std::size_t>(view.buffer)].offset;
    }
  };
  eachStep([&](Step& step, int) { eachView(step, relocate); });
  relocate(plan_.logits);
  if (plan_.seed.present()) relocate(plan_.seed);
}

Plan Lowering::run() {
  findReads();
  findGradients();
  formGroups();
  placeConcats();
  choosePassRows();
  emitForward();
  if (request_.training) emitBackward();
  place();
  return std::move(plan_);
}

Plan lower(const Graph& graph, const Adapter& adapter, WeightTable& weights,
           const LoweringRequest& request) {
  return Lowering(graph, adapter, weights, request).run();
}

}  // namespace loko
