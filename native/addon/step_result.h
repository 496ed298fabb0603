#pragma once

#include <napi.h>

#include "filter/optimizer.h"

namespace loko::addon {

/// NativeStepResult of lib/native/addon.ts.
Napi::Object toObject(Napi::Env env, const StepResult& result, bool kalman);

}  // namespace loko::addon
