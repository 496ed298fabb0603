#pragma once

// W + scale B A for every adapted module: an adapter becomes part of the weights.

#include <map>
#include <string>
#include <vector>

#include "core/adapter.h"
#include "core/graph.h"
#include "core/weights.h"

namespace loko {

struct MergeResult {
  double largestChange = 0;  // of one element of a weight with LoRA
  std::string weight;        // where it is; empty without LoRA
};

struct MergedWeights {
  std::map<std::string, std::vector<float>> values;  // only what the adapter changes
  MergeResult result;
};

/// Computed in float32, whatever the checkpoint stores; nothing is changed.
MergedWeights merge(const Graph& graph, const Adapter& adapter, const WeightStore& store,
                    const std::vector<float>& theta);

}  // namespace loko
