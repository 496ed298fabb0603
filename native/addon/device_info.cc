#include "addon/device_info.h"

#include "core/status.h"
#include "cpu/isa.h"
#include "cpu/pool.h"
#include "cuda/device.h"

namespace loko::addon {

namespace {

Napi::Object describeCpu(Napi::Env env) {
  Napi::Object facts = Napi::Object::New(env);
  Napi::Array available = Napi::Array::New(env);
  for (const cpu::Isa isa : cpu::availableIsas()) {
    available.Set(available.Length(), Napi::String::New(env, cpu::isaName(isa)));
  }
  facts.Set("available", available);
  facts.Set("threads", cpu::defaultThreads());
  try {
    facts.Set("isa", Napi::String::New(env, cpu::isaName(cpu::chooseIsa())));
  } catch (const Error& error) {
    facts.Set("isa", env.Null());
    facts.Set("problem", Napi::String::New(env, error.what()));
  }
  return facts;
}

Napi::Object describeCuda(Napi::Env env) {
  const cuda::DeviceReport report = cuda::deviceReport();
  Napi::Object facts = Napi::Object::New(env);
  facts.Set("available", report.available);
  facts.Set("cause", cuda::reasonName(report.reason));
  facts.Set("reason", report.message);
  facts.Set("driver", report.driver);
  facts.Set("runtime", report.runtime);
  facts.Set("architectures", report.architectures);
  Napi::Array devices = Napi::Array::New(env);
  for (const cuda::DeviceFacts& device : report.devices) {
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("name", device.name);
    entry.Set("computeCapability", device.computeCapability);
    entry.Set("memoryBytes", static_cast<double>(device.memoryBytes));
    entry.Set("multiprocessors", device.multiprocessors);
    devices.Set(devices.Length(), entry);
  }
  facts.Set("devices", devices);
  return facts;
}

}  // namespace

Napi::Object describeDevices(Napi::Env env) {
  Napi::Object facts = Napi::Object::New(env);
  facts.Set("cpu", describeCpu(env));
  facts.Set("cuda", describeCuda(env));
  return facts;
}

Napi::Object describeCublasLt(Napi::Env env) {
  const cuda::SearchReport report = cuda::cublasLtReport();
  Napi::Object facts = Napi::Object::New(env);
  facts.Set("path", report.path);
  facts.Set("version", report.version);
  facts.Set("disabled", report.disabled);
  Napi::Array tried = Napi::Array::New(env);
  for (const cuda::SearchReport::Attempt& attempt : report.attempts) {
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("place", attempt.place);
    entry.Set("problem", attempt.problem);
    tried.Set(tried.Length(), entry);
  }
  facts.Set("tried", tried);
  return facts;
}

}  // namespace loko::addon
