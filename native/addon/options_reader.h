#pragma once

// NativeAdapter and NativeOptimizerOptions of lib/native/addon.ts -> the core's structs.

#include "addon/model_state.h"
#include "addon/property_reader.h"
#include "core/adapter.h"

namespace loko::addon {

/// Checks that every module exists in `graph` and that its parameters lie inside theta.
Adapter readAdapter(const PropertyReader& spec, const Graph& graph);

/// Validates the options for a model with that graph and adapter: throws kOption for values or
/// combinations without a meaning.
OptimizerFactory readOptimizer(const PropertyReader& spec, const Graph& graph,
                               const Adapter& adapter);

/// NativeStepControl of lib/native/addon.ts.
StepControl readStepControl(const Napi::Value& value);

}  // namespace loko::addon
