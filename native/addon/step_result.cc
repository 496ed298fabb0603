#include "addon/step_result.h"

#include <algorithm>

namespace loko::addon {

Napi::Object toObject(Napi::Env env, const StepResult& result, bool kalman) {
  Napi::Object object = Napi::Object::New(env);
  const auto set = [&](Napi::Object target, const char* key, double value) {
    target.Set(key, Napi::Number::New(env, value));
  };
  auto predictions = Napi::Int32Array::New(env, result.predicted.size());
  std::copy(result.predicted.begin(), result.predicted.end(), predictions.Data());
  object.Set("predictions", predictions);
  set(object, "loss", result.loss);
  set(object, "correct", result.correct);
  set(object, "rows", result.rows);
  object.Set("skipped", result.skipped == SkipReason::kNone
                            ? env.Null()
                            : Napi::String::New(env, skipReasonName(result.skipped)));

  if (result.gradientNorm) set(object, "gradientNorm", *result.gradientNorm);

  if (!kalman) return object;
  Napi::Object filter = Napi::Object::New(env);
  set(filter, "p0", result.p0);
  set(filter, "traceR", result.traceR);
  set(filter, "nis", result.nis);
  set(filter, "trustScale", result.trustScale);
  set(filter, "jitter", result.jitter);
  set(filter, "pivotRatio", result.pivotRatio);
  set(filter, "gain", result.gain);
  set(filter, "stretch", result.stretch);
  set(filter, "floored", static_cast<double>(result.floored));
  set(filter, "pMean", result.p.mean);
  set(filter, "pMin", result.p.min);
  set(filter, "pMax", result.p.max);
  object.Set("kalman", filter);
  return object;
}

Napi::Array toArray(Napi::Env env, const std::vector<StateEntry>& entries) {
  Napi::Array array = Napi::Array::New(env, entries.size());
  for (std::uint32_t i = 0; i < entries.size(); ++i) {
    const StateEntry& entry = entries[i];
    Napi::Object object = Napi::Object::New(env);
    Napi::Array shape = Napi::Array::New(env, entry.shape.size());
    for (std::uint32_t d = 0; d < entry.shape.size(); ++d) {
      shape[d] = Napi::Number::New(env, static_cast<double>(entry.shape[d]));
    }
    object.Set("name", entry.name);
    object.Set("shape", shape);
    object.Set("size", Napi::Number::New(env, static_cast<double>(entry.size)));
    array[i] = object;
  }
  return array;
}

}  // namespace loko::addon
