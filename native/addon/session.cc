#include "addon/session.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "addon/addon.h"
#include "addon/graph_reader.h"
#include "addon/model_state.h"
#include "addon/optimizer_handle.h"
#include "addon/options_reader.h"
#include "addon/step_result.h"
#include "core/status.h"

namespace loko::addon {

namespace {

constexpr std::int64_t kMaxInt = std::numeric_limits<int>::max();

[[noreturn]] void failInterface(const std::string& expected) {
  throw Error(ErrorCode::kInternal, "Native interface: expected " + expected);
}

template <class Element>
constexpr napi_typedarray_type kArrayType = napi_float32_array;
template <>
constexpr napi_typedarray_type kArrayType<std::int32_t> = napi_int32_array;

template <class Element>
Napi::TypedArrayOf<Element> typedArray(const Napi::Value& value, const char* what) {
  if (value.IsTypedArray()) {
    const auto array = value.As<Napi::TypedArray>();
    if (array.TypedArrayType() == kArrayType<Element>) {
      return array.As<Napi::TypedArrayOf<Element>>();
    }
  }
  failInterface(std::string(what) + " in a typed array of the right kind");
}

/// A copy, because the caller may reuse its array while the session's thread works.
template <class Element>
std::vector<Element> copyOf(const Napi::Value& value, std::int64_t size, const char* what) {
  const auto array = typedArray<Element>(value, what);
  if (static_cast<std::int64_t>(array.ElementLength()) != size) {
    failInterface(std::to_string(size) + " elements of " + what);
  }
  return std::vector<Element>(array.Data(), array.Data() + size);
}

int batchOf(const Napi::Value& value) {
  if (!value.IsNumber()) failInterface("a batch size");
  const std::int64_t batch = value.As<Napi::Number>().Int64Value();
  if (batch < 1 || batch > kMaxInt) failInterface("a batch size of at least 1");
  return static_cast<int>(batch);
}

Targets targetsOf(const Napi::Value& value, int batch, int outputs) {
  Targets targets;
  if (value.IsTypedArray() &&
      value.As<Napi::TypedArray>().TypedArrayType() == kArrayType<std::int32_t>) {
    const auto labels = copyOf<std::int32_t>(value, batch, "labels");
    targets.labels.assign(labels.begin(), labels.end());
  } else {
    const auto values = copyOf<float>(value, std::int64_t{batch} * outputs, "targets");
    targets.values.assign(values.begin(), values.end());
  }
  return targets;
}

void toFloat(const std::vector<double>& values, float* target) {
  std::transform(values.begin(), values.end(), target,
                 [](double value) { return static_cast<float>(value); });
}

}  // namespace

Napi::Function Session::define(Napi::Env env) {
  return DefineClass(
      env, "NativeSession",
      {InstanceMethod<&Session::load>("load"), InstanceMethod<&Session::setAdapter>("setAdapter"),
       InstanceMethod<&Session::forward>("forward"), InstanceMethod<&Session::jacobian>("jacobian"),
       InstanceMethod<&Session::readParameters>("readParameters"),
       InstanceMethod<&Session::writeParameters>("writeParameters"),
       InstanceMethod<&Session::createOptimizer>("createOptimizer"),
       InstanceMethod<&Session::step>("step"), InstanceMethod<&Session::dispose>("dispose"),
       InstanceMethod<&Session::description>("description")});
}

Session::Session(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Session>(info) {
  guarded(info.Env(), [&] {
    const PropertyReader options(info[0], "options");
    auto config = std::make_shared<ModelConfig>();
    config->device = options.string("device");
    config->threads = static_cast<int>(options.integer("threads", 0, 1024));
    config->seed =
        static_cast<std::uint64_t>(options.integer("seed", 0, (std::int64_t{1} << 53) - 1));
    config->graph = graph_ = readGraph(options.object("graph"));
    WeightList weights = readWeights(options.objects("weights"), config->seed);
    config->store = std::move(weights.store);
    weightBytes_ = weights.bytes;
    thread_ = std::make_shared<SessionThread>(info.Env(), [config = std::move(config)] {
      return std::make_unique<ModelState>(std::move(*config));
    });
  });
}

Session::~Session() {
  if (thread_ != nullptr) thread_->finish();
}

template <class Body>
Napi::Value Session::enter(const Napi::CallbackInfo& info, Body&& body) {
  Addon::enter(info.Env());
  return guarded(info.Env(), std::forward<Body>(body));
}

std::unique_ptr<Job> Session::newJob(const Napi::CallbackInfo& info) {
  if (thread_->finished()) {
    throw Error(ErrorCode::kDisposed, "The model was used after dispose()");
  }
  if (thread_->busy()) {
    throw Error(ErrorCode::kModelBusy,
                "The model is still running another operation; await that one before starting the "
                "next");
  }
  auto job = std::make_unique<Job>(info.Env());
  job->session = Napi::Persistent(info.This().As<Napi::Object>());
  return job;
}

void Session::requireReady() const {
  if (!loaded_) failInterface("a session that was loaded");
}

float* Session::outputOf(Job& job, const Napi::Value& value, std::int64_t size) {
  auto array = typedArray<float>(value, "an output");
  if (static_cast<std::int64_t>(array.ElementLength()) != size) {
    failInterface("an output of " + std::to_string(size) + " elements");
  }
  job.target = Napi::Persistent(static_cast<Napi::Object>(array));
  return array.Data();
}

std::vector<float> Session::pixelsOf(const Napi::CallbackInfo& info, std::size_t index,
                                     int batch) const {
  const ImageNode& image = graph_.imageInput();
  const std::int64_t sample = std::int64_t{image.channels} * image.height * image.width;
  return copyOf<float>(info[index], sample * batch, "pixelValues");
}

Napi::Value Session::load(const Napi::CallbackInfo& info) {
  return enter(info, [&]() -> Napi::Value {
    auto job = newJob(info);
    auto description = std::make_shared<std::string>();
    job->run = [description](ModelState& state) {
      state.engine().load();
      *description = state.description();
    };
    job->resolve = [this, description](Napi::Env env) {
      loaded_ = true;
      description_ = *description;
      thread_->account(weightBytes_);
      return env.Undefined();
    };
    return thread_->start(std::move(job));
  });
}

Napi::Value Session::setAdapter(const Napi::CallbackInfo& info) {
  return enter(info, [&]() -> Napi::Value {
    requireReady();
    auto job = newJob(info);
    const auto adapter =
        std::make_shared<Adapter>(readAdapter(PropertyReader(info[0], "adapter"), graph_));
    job->run = [adapter](ModelState& state) { state.engine().setAdapter(*adapter); };
    job->resolve = [this, adapter](Napi::Env env) {
      adapter_ = std::move(*adapter);
      ++generation_;
      thread_->account(weightBytes_ + adapter_.parameters * static_cast<int>(sizeof(float)));
      return env.Undefined();
    };
    return thread_->start(std::move(job));
  });
}

Napi::Value Session::forward(const Napi::CallbackInfo& info) {
  return enter(info, [&]() -> Napi::Value {
    requireReady();
    auto job = newJob(info);
    const int batch = batchOf(info[1]);
    float* logits = outputOf(*job, info[2], std::int64_t{batch} * graph_.outputs());
    job->run = [pixels = pixelsOf(info, 0, batch), batch, logits](ModelState& state) {
      std::vector<double> values;
      state.engine().setBatch(pixels.data(), batch);
      state.engine().predict(values);
      toFloat(values, logits);
    };
    return thread_->start(std::move(job));
  });
}

Napi::Value Session::jacobian(const Napi::CallbackInfo& info) {
  return enter(info, [&]() -> Napi::Value {
    requireReady();
    auto job = newJob(info);
    const int batch = batchOf(info[1]);
    const std::string of = info[2].ToString().Utf8Value();
    if (of != "logits" && of != "softmax") failInterface("\"logits\" or \"softmax\"");
    const JacobianOf what = of == "logits" ? JacobianOf::kLogits : JacobianOf::kSoftmax;
    float* target =
        outputOf(*job, info[3], std::int64_t{batch} * graph_.outputs() * adapter_.parameters);
    job->run = [pixels = pixelsOf(info, 0, batch), batch, what, target](ModelState& state) {
      state.engine().setBatch(pixels.data(), batch);
      const std::vector<float> values = state.engine().jacobianOf(what);
      std::copy(values.begin(), values.end(), target);
    };
    return thread_->start(std::move(job));
  });
}

Napi::Value Session::readParameters(const Napi::CallbackInfo& info) {
  return enter(info, [&]() -> Napi::Value {
    requireReady();
    auto job = newJob(info);
    float* target = outputOf(*job, info[0], adapter_.parameters);
    job->run = [target](ModelState& state) { state.engine().readTheta(target); };
    return thread_->start(std::move(job));
  });
}

Napi::Value Session::writeParameters(const Napi::CallbackInfo& info) {
  return enter(info, [&]() -> Napi::Value {
    requireReady();
    auto job = newJob(info);
    job->run = [values = copyOf<float>(info[0], adapter_.parameters, "parameters")](
                   ModelState& state) { state.engine().writeTheta(values.data()); };
    return thread_->start(std::move(job));
  });
}

Napi::Value Session::createOptimizer(const Napi::CallbackInfo& info) {
  Addon& addon = Addon::enter(info.Env());
  return guarded(info.Env(), [&]() -> Napi::Value {
    auto slot = std::make_shared<OptimizerSlot>();
    const PropertyReader options(info[0], "options");
    slot->make = readOptimizer(options, graph_, adapter_);
    slot->generation = generation_;
    slot->kalman = options.string("kind") == "loko";
    const Napi::Object handle = addon.newOptimizerHandle();
    OptimizerHandle::Unwrap(handle)->bind(std::move(slot), thread_);
    return handle;
  });
}

Napi::Value Session::step(const Napi::CallbackInfo& info) {
  return enter(info, [&]() -> Napi::Value {
    requireReady();
    auto job = newJob(info);
    const auto slot = OptimizerHandle::slotOf(info[0], thread_);
    if (slot->generation != generation_) {
      throw Error(ErrorCode::kOption,
                  "The optimizer was made for an adapter that the model no longer has; create a "
                  "new optimizer");
    }
    const int batch = batchOf(info[2]);
    const int outputs = graph_.outputs();
    float* logits = outputOf(*job, info[4], std::int64_t{batch} * outputs);
    const auto result = std::make_shared<StepResult>();
    job->run = [slot, pixels = pixelsOf(info, 1, batch), batch,
                targets = targetsOf(info[3], batch, outputs), logits, result](ModelState& state) {
      *result = state.step(slot, pixels, batch, targets);
      toFloat(result->logits, logits);
    };
    job->resolve = [result, kalman = slot->kalman](Napi::Env env) -> Napi::Value {
      return toObject(env, *result, kalman);
    };
    return thread_->start(std::move(job));
  });
}

Napi::Value Session::dispose(const Napi::CallbackInfo& info) {
  return enter(info, [&]() -> Napi::Value {
    thread_->finish();
    return info.Env().Undefined();
  });
}

Napi::Value Session::description(const Napi::CallbackInfo& info) {
  return enter(info, [&]() -> Napi::Value { return Napi::String::New(info.Env(), description_); });
}

}  // namespace loko::addon
