#pragma once

// Turns a graph and an adapter into a plan: exact pruning, fusion, the chain rule, memory.

#include "core/adapter.h"
#include "core/graph.h"
#include "core/plan.h"
#include "core/weights.h"

namespace loko {

struct LoweringRequest {
  int batch = 1;
  int tokens = 0;         // of each sample; 0: the model reads no tokens
  bool masked = false;    // some tokens are padding, which attention must not see
  bool training = false;  // false: forward only, nothing is kept for backward
  int maxPassRows = 0;    // bound on the cotangent rows of one pass; 0: that of the limits
  PassLimits limits{};    // of the backend, the same for all of its plans

  bool operator==(const LoweringRequest& other) const {
    return batch == other.batch && tokens == other.tokens && masked == other.masked &&
           training == other.training && maxPassRows == other.maxPassRows;
  }
};

/// Packs the weights that the plan needs through `weights`.
Plan lower(const Graph& graph, const Adapter& adapter, WeightTable& weights,
           const LoweringRequest& request);

}  // namespace loko
