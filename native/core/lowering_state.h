#pragma once

// The working state of one lowering, shared by its passes:
//   lowering_analysis.cc  which rows of a value are read, which values need a cotangent, which
//   parts
//                         of a linear operation run as one product
//   lowering_forward.cc   forward steps
//   lowering_backward.cc  backward steps: the chain rule over groups and nodes, in reverse
//   lowering.cc           order of the passes, lifetimes, placement
//
// Exact pruning rests on two facts per value: `firstRowOnly` (nobody reads any other row, so no
// other row is computed, forward or backward) and `needsGrad` (a trained parameter lies upstream,
// so a cotangent is worth propagating).

#include <string>
#include <vector>

#include "core/adapter.h"
#include "core/arena.h"
#include "core/graph.h"
#include "core/lowering.h"
#include "core/plan.h"
#include "core/weights.h"

namespace loko {

/// Parts of one linear node that run as one product. Views are filled in by the forward pass.
struct LinearGroup {
  const LinearNode* node = nullptr;
  std::vector<const LinearPart*> parts;
  const TrainedModule* trained = nullptr;      // then it is the only part
  ParameterOffset trainedBias = kNoParameter;  // of all parts, side by side in theta
  bool firstRowOnly = false;
  int out = 0;
  std::vector<LoraSite> sites;
  int rankSum = 0;
  View x, y, h, actGrad;
  View grad;  // cotangent of y, all parts side by side
};

struct ValueState {
  bool read = false;  // does anything downstream of it reach the output
  bool firstRowOnly = false;
  bool needsGrad = false;
  int readers = 0;
  int group = -1;  // index of the LinearGroup that makes it, -1: another node
  int columnInGroup = 0;
  View view;
  View grad;
  bool gradWritten = false;
  bool gradBeforeActivation = false;  // grad is already that of the pre-activation z
};

class Lowering {
 public:
  Lowering(const Graph& graph, const Adapter& adapter, WeightTable& weights,
           const LoweringRequest& request);
  Plan run();

 private:
  // analysis
  void findReads();
  void findGradients();
  void formGroups();
  void choosePassRows();

  // forward
  void emitForward();
  void forward(const ImageNode& node);
  void forward(const PatchifyNode& node);
  void forward(const AssembleTokensNode& node);
  void forward(const EmbedTokensNode& node);
  void forward(const LinearNode& node);
  void forward(const LayerNormNode& node);
  void forward(const AttentionNode& node);
  void forward(const SelectFirstNode& node);
  void forwardGroup(LinearGroup& group);

  // backward
  void emitBackward();
  void backward(const ImageNode&) {}
  void backward(const PatchifyNode&) {}
  void backward(const AssembleTokensNode& node);
  void backward(const EmbedTokensNode&) {}
  void backward(const LinearNode& node);
  void backward(const LayerNormNode& node);
  void backward(const AttentionNode& node);
  void backward(const SelectFirstNode& node);
  void backwardGroup(LinearGroup& group);
  void residualGrad(ValueId residual, const View& grad);
  void emitGram(const LinearGroup& group);
  /// Joins what is adjacent.
  void emitGram(std::vector<Gram> ranges);

  // cotangents
  /// The place where a contribution to the cotangent of `value` goes. `firstRow`: it covers only
  /// the first row. Sets accumulate; clears the other rows when such a contribution comes first.
  View contribute(ValueId value, bool firstRow, bool& accumulate);
  View gradOf(ValueId value);  // allocates on first use

  // memory
  View allocate(int count, int rows, int cols);
  View forwardBuffer(int rows, int cols) { return allocate(request_.batch, rows, cols); }
  View cotangentBuffer(int rows, int cols) {
    return allocate(request_.batch * plan_.passRows, rows, cols);
  }
  void place();

  ValueState& state(ValueId value) { return values_[static_cast<std::size_t>(value)]; }
  ValueShape shapeOf(ValueId value) const;  // for the tokens of this request
  int rowsOf(ValueId value);  // rows that are computed: 1 where only the first is read
  View viewOf(ValueId value, bool firstRow);
  bool groupNeedsGrad(const LinearGroup& group);

  const Graph& graph_;
  const Adapter& adapter_;
  WeightTable& weights_;
  const LoweringRequest request_;
  std::vector<ValueState> values_;
  std::vector<LinearGroup> groups_;
  std::vector<PlannedBuffer> buffers_;
  View mask_;  // of the keys; absent where no token is padding
  Plan plan_;
};

/// The first row of each sample of a view.
View firstRow(View view);
/// Columns [begin, begin + cols) of a view.
View columns(View view, int begin, int cols);

}  // namespace loko
