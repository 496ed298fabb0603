#include "addon/addon.h"

#include "addon/failure.h"
#include "addon/optimizer_handle.h"
#include "addon/session.h"
#include "core/status.h"
#include "cpu/isa.h"
#include "cpu/pool.h"

namespace loko::addon {

Addon::Addon(Napi::Env env, Napi::Object exports)
    : session_(Napi::Persistent(Session::define(env))),
      optimizerHandle_(Napi::Persistent(OptimizerHandle::define(env))) {
  DefineAddon(exports, {InstanceValue("version", Napi::String::New(env, LOKO_VERSION)),
                        InstanceMethod<&Addon::createSession>("createSession"),
                        InstanceMethod<&Addon::deviceInfo>("deviceInfo"),
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
  return guarded(env, [&]() -> Napi::Value {
    Napi::Object cpu = Napi::Object::New(env);
    Napi::Array available = Napi::Array::New(env);
    for (const cpu::Isa isa : cpu::availableIsas()) {
      available.Set(available.Length(), Napi::String::New(env, cpu::isaName(isa)));
    }
    cpu.Set("available", available);
    cpu.Set("threads", Napi::Number::New(env, cpu::defaultThreads()));
    try {
      cpu.Set("isa", Napi::String::New(env, cpu::isaName(cpu::chooseIsa())));
    } catch (const Error& error) {
      cpu.Set("isa", env.Null());
      cpu.Set("problem", Napi::String::New(env, error.what()));
    }
    Napi::Object result = Napi::Object::New(env);
    result.Set("cpu", cpu);
    return result;
  });
}

Napi::Value Addon::crossings(const Napi::CallbackInfo& info) {
  enter(info.Env());
  return Napi::Number::New(info.Env(), static_cast<double>(crossings_));
}

NODE_API_ADDON(Addon)

}  // namespace loko::addon
