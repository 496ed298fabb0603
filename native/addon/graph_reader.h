#pragma once

// GraphSpec and NativeWeight[] of lib/native/addon.ts -> core/graph.h and core/weights.h.

#include <memory>

#include "addon/property_reader.h"
#include "core/graph.h"
#include "core/weights.h"

namespace loko::addon {

inline constexpr std::pair<const char*, DType> kDTypes[] = {{"F32", DType::kFloat32},
                                                            {"F16", DType::kFloat16},
                                                            {"BF16", DType::kBFloat16},
                                                            {"F64", DType::kFloat64}};

Graph readGraph(const PropertyReader& spec);

struct WeightList {
  std::unique_ptr<WeightStore> store;
  std::int64_t bytes = 0;  // as float32, for V8's memory accounting
};

WeightList readWeights(const std::vector<PropertyReader>& weights, std::uint64_t seed);

}  // namespace loko::addon
