#pragma once

// The working state of one lowering, shared by its passes:
//   lowering_analysis.cc  which rows of a value are read, which values need a cotangent, which
//   parts
//                         of a linear operation run as one product
//   lowering_concat.cc    which values are written side by side, so that no concatenation copies
//   lowering_forward.cc   forward steps
//   lowering_backward.cc  backward steps: the chain rule over groups and nodes, in reverse
//   lowering_image.cc     both directions of batch norm, pooling and what moves pixels
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
#include "core/status.h"
#include "core/weights.h"

namespace loko {

/// Parts of one linear node that run as one product, or a convolution. Views are filled in by the forward
/// pass.
struct LinearGroup {
  const Node* node = nullptr;
  const ConvNode* conv = nullptr;  // the node, where it is a convolution
  ValueId input = kNoValue, residual = kNoValue;
  Activation activation = Activation::kNone;
  std::vector<const LinearPart*> parts;
  const TrainedModule* trained = nullptr;      // then it is the only part
  ParameterOffset trainedBias = kNoParameter;  // of all parts, side by side in theta
  bool firstRowOnly = false;
  int out = 0;
  std::vector<LoraSite> sites;
  int rankSum = 0;
  View x, y, h, actGrad;
  View grad;  // cotangent of y, all parts side by side

  /// A convolution that is no linear map of single pixels.
  bool gathers() const {
    return conv != nullptr && !(conv->window.pointwise() && conv->groups == 1);
  }
  /// Elements of a row of A.
  std::int64_t rowOfA() const {
    return std::int64_t{x.cols} * (gathers() ? conv->window.taps() : 1);
  }
};

/// A buffer that holds the operands of concatenations as ranges of its columns.
struct SharedColumns {
  int rows = 0, cols = 0;
  View view, grad;
  std::vector<char> gradWritten;  // of each column
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
  bool gradWritten = false;  // not for a place in shared columns, which keep count themselves
  int gradTerms = 0;         // contributions so far
  bool oneTermPerReader = true;
  bool gradBeforeActivation = false;  // grad is already that of the pre-activation z
  bool placeable = false;             // in columns of a wider buffer
  int shared = -1;                    // index of the SharedColumns that it lies in, or -1
  int sharedColumn = 0;
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
  void formGroup(const Node& node, const LinearPart& part, std::size_t firstOfNode);
  LinearGroup newGroup(const Node& node) const;
  void addSites(LinearGroup& group, const LinearPart& part);
  void placeConcats();
  void placeConcat(const ConcatNode& node);
  void findPlaceable();
  void choosePassRows();

  // forward
  void emitForward();
  void forward(const ImageNode& node);
  void forward(const PatchifyNode& node);
  void forward(const AssembleTokensNode& node);
  void forward(const EmbedTokensNode& node);
  void forward(const LinearNode&) {}  // by its groups
  void forward(const ConvNode&) {}
  void forward(const LayerNormNode& node);
  void forward(const AttentionNode& node);
  void forward(const SelectFirstNode& node);
  void forward(const BatchNormNode& node);
  void forward(const PoolNode& node);
  void forward(const MeanRowsNode& node);
  void forward(const ConcatNode& node);
  void forward(const FlattenNode& node);
  void forwardGroup(LinearGroup& group);
  template <class Operation>
  void setWeights(const LinearGroup& group, Operation& step);

  // backward
  void emitBackward();
  void backward(const ImageNode&) {}
  void backward(const PatchifyNode&) {}
  void backward(const AssembleTokensNode& node);
  void backward(const EmbedTokensNode&) {}
  void backward(const LinearNode&) {}  // by its groups
  void backward(const ConvNode&) {}
  void backward(const LayerNormNode& node);
  void backward(const AttentionNode& node);
  void backward(const SelectFirstNode& node);
  void backward(const BatchNormNode& node);
  void backward(const PoolNode& node);
  void backward(const MeanRowsNode& node);
  void backward(const ConcatNode& node);
  void backward(const FlattenNode& node);
  void backwardGroup(LinearGroup& group);
  View backwardLora(LinearGroup& group);
  template <class Operation>
  void emitInputGrad(LinearGroup& group, Operation step);
  FoldedDerivative derivativeOf(const LinearGroup& group, int rows) const;
  void residualGrad(ValueId residual, const View& grad);
  void emitGram(const LinearGroup& group);
  /// Joins what is adjacent.
  void emitGram(std::vector<Gram> ranges);

  // cotangents
  /// The place where a contribution to the cotangent of `value` goes. `firstRow`: it covers only
  /// the first row. Sets accumulate; clears the other rows when such a contribution comes first.
  View contribute(ValueId value, bool firstRow, bool& accumulate);
  View gradOf(ValueId value);  // allocates on first use
  /// False where nothing has contributed; else what no contribution covered is cleared.
  bool gradReady(ValueId value);
  /// Marks every column as written; says whether all were before, after clearing the others if some were.
  bool completeColumns(const ValueState& value);
  View sharedGrad(const ValueState& value);

  // memory
  View allocate(int count, int rows, int cols);
  /// Where the operation that makes `value` writes it.
  View outputView(ValueId value);
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
  /// Whether backward spreads u of a convolution's sites over its input pixels.
  bool spreads(const LinearGroup& group);

  const Graph& graph_;
  const Adapter& adapter_;
  WeightTable& weights_;
  const LoweringRequest request_;
  std::vector<ValueState> values_;
  std::vector<LinearGroup> groups_;
  std::vector<SharedColumns> shared_;
  std::vector<PlannedBuffer> buffers_;
  View mask_;  // of the keys; absent where no token is padding
  Plan plan_;
};

/// What a node of lowering_image.cc reads and makes; `rowByRow`: row t of the output from row t of the
/// inputs alone.
struct Operands {
  std::vector<ValueId> inputs;
  ValueId output = kNoValue;
  bool rowByRow = false;
};
/// Of those nodes; an output of kNoValue for all others.
Operands operandsOf(const Node& node);

/// The forward step that wrote `view` as its operand `output`: what it saved is named there.
template <class Operation>
const Operation& producerOf(const std::vector<Step>& steps, View Operation::*output,
                            const View& view) {
  for (const Step& step : steps) {
    const auto* operation = std::get_if<Operation>(&step);
    if (operation == nullptr) continue;
    const View& written = operation->*output;
    if (written.buffer == view.buffer && written.offset == view.offset) return *operation;
  }
  failCheck("a value was written by a forward step", __FILE__, __LINE__, "not found");
}

/// The first row of each sample of a view.
View firstRow(View view);
/// Columns [begin, begin + cols) of a view.
View columns(View view, int begin, int cols);

}  // namespace loko
