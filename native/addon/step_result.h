#pragma once

#include <napi.h>

#include <vector>

#include "filter/optimizer_state.h"

namespace loko::addon {

/// NativeStepResult of lib/native/addon.ts.
Napi::Object toObject(Napi::Env env, const StepResult& result, bool kalman);

/// NativeStateEntry[] of lib/native/addon.ts.
Napi::Array toArray(Napi::Env env, const std::vector<StateEntry>& entries);

}  // namespace loko::addon
