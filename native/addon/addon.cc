#include "addon/addon.h"

#include "addon/device_info.h"
#include "addon/failure.h"
#include "addon/optimizer_handle.h"
#include "addon/session.h"

namespace loko::addon {

Addon::Addon(Napi::Env env, Napi::Object exports)
    : session_(Napi::Persistent(Session::define(env))),
      optimizerHandle_(Napi::Persistent(OptimizerHandle::define(env))) {
  DefineAddon(exports, {InstanceValue("version", Napi::String::New(env, LOKO_VERSION)),
                        InstanceMethod<&Addon::createSession>("createSession"),
                        InstanceMethod<&Addon::deviceInfo>("deviceInfo"),
                        InstanceMethod<&Addon::cublasLtInfo>("cublasLtInfo"),
                        InstanceMethod<&Addon::crossings>("crossings")});
}

Addon& Addon::enter(Napi::Env env) {
  Addon* addon = env.GetInstanceData<Addon>();
  ++addon->crossings_;
  return *addon;
}

Napi::Value Addon::createSession(const Napi::CallbackInfo& info) {
  enter(info.Env());
  return session_.New({info[0]});
}

Napi::Value Addon::deviceInfo(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  enter(env);
  return guarded(env, [&]() -> Napi::Value { return describeDevices(env); });
}

Napi::Value Addon::cublasLtInfo(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  enter(env);
  return guarded(env, [&]() -> Napi::Value { return describeCublasLt(env); });
}

Napi::Value Addon::crossings(const Napi::CallbackInfo& info) {
  enter(info.Env());
  return Napi::Number::New(info.Env(), static_cast<double>(crossings_));
}

NODE_API_ADDON(Addon)

}  // namespace loko::addon
