#pragma once

// What one environment (the main thread or a worker) has of the addon. There is no other state: a
// file-static JavaScript reference would be shared by all workers and outlive their heaps.

#include <napi.h>

#include <cstdint>

namespace loko::addon {

class Addon : public Napi::Addon<Addon> {
 public:
  Addon(Napi::Env env, Napi::Object exports);

  /// The instance of `env`, counting one more call from JavaScript; every entry point begins so.
  static Addon& enter(Napi::Env env);

  Napi::Object newOptimizerHandle() { return optimizerHandle_.New({}); }

 private:
  Napi::Value createSession(const Napi::CallbackInfo& info);
  Napi::Value deviceInfo(const Napi::CallbackInfo& info);
  Napi::Value cublasLtInfo(const Napi::CallbackInfo& info);
  Napi::Value crossings(const Napi::CallbackInfo& info);

  Napi::FunctionReference session_;
  Napi::FunctionReference optimizerHandle_;
  std::int64_t crossings_ = 0;
};

}  // namespace loko::addon
