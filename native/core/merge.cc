#include "core/merge.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/status.h"

namespace loko {

namespace {

void mergeLora(const AdaptedModule& lora, const Graph::Module& module, const WeightStore& store,
               const std::vector<float>& theta, MergedWeights& merged) {
  const std::string& name = module.part->weight;
  if (module.groups > 1) {
    throw Error(ErrorCode::kUnsupported,
                "Expected adapters that can be merged, but " + lora.module +
                    " is a convolution with " + std::to_string(module.groups) +
                    " groups, whose adapter sees all channels; keep the adapter as it is");
  }
  std::vector<float> weight = store.read(name);
  std::vector<float> delta(static_cast<std::size_t>(module.in));
  for (int o = 0; o < module.part->out; ++o) {
    std::fill(delta.begin(), delta.end(), 0.0F);
    const float* b = theta.data() + lora.b + std::int64_t{o} * lora.rank;
    for (int r = 0; r < lora.rank; ++r) {
      const float* a = theta.data() + lora.a + std::int64_t{r} * module.in;
      for (int i = 0; i < module.in; ++i) delta[static_cast<std::size_t>(i)] += b[r] * a[i];
    }
    float* row = weight.data() + std::int64_t{o} * module.in;
    for (int i = 0; i < module.in; ++i) {
      const float change = lora.scale * delta[static_cast<std::size_t>(i)];
      row[i] += change;
      if (std::fabs(change) > merged.result.largestChange || merged.result.weight.empty()) {
        merged.result = {std::fabs(change), name};
      }
    }
  }
  merged.values.emplace(name, std::move(weight));
}

}  // namespace

MergedWeights merge(const Graph& graph, const Adapter& adapter, const WeightStore& store,
                    const std::vector<float>& theta) {
  MergedWeights merged;
  const auto take = [&](const std::string& name, ParameterOffset offset) {
    const std::size_t size = store.size(name);
    const auto begin = theta.begin() + offset;
    merged.values.emplace(name,
                          std::vector<float>(begin, begin + static_cast<std::ptrdiff_t>(size)));
  };
  for (const AdaptedModule& lora : adapter.lora) {
    mergeLora(lora, graph.module(lora.module), store, theta, merged);
  }
  for (const TrainedModule& trained : adapter.trained) {
    const LinearPart& part = *graph.module(trained.module).part;
    take(part.weight, trained.weight);
    if (trained.bias != kNoParameter) take(part.bias, trained.bias);
  }
  for (const TrainedBias& bias : adapter.biases) take(bias.parameter, bias.offset);
  return merged;
}

}  // namespace loko
