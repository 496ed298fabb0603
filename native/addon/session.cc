#include "addon/session.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "addon/addon.h"
#include "addon/graph_reader.h"
#include "addon/model_state.h"
#include "addon/optimizer_handle.h"
#include "addon/options_reader.h"
#include "addon/property_reader.h"
#include "addon/step_result.h"
#include "core/status.h"

namespace loko::addon {

namespace {

constexpr std::pair<const char*, cuda::Precision> kPrecisions[] = {
    {"float32", cuda::Precision::kFloat32},
    {"tf32", cuda::Precision::kTf32},
    {"bfloat16", cuda::Precision::kBfloat16}};

[[noreturn]] void failInterface(const std::string& expected) {
  throw Error(ErrorCode::kInternal, "Native interface: expected " + expected);
}

template <class Element>
constexpr napi_typedarray_type kArrayType = napi_float32_array;
template <>
constexpr napi_typedarray_type kArrayType<double> = napi_float64_array;
template <>
constexpr napi_typedarray_type kArrayType<std::int32_t> = napi_int32_array;
template <>
constexpr napi_typedarray_type kArrayType<std::uint8_t> = napi_uint8_array;

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

template <class Element>
std::vector<Element> copyOf(const Napi::Value& value, std::int64_t size, const char* what) {
  const auto array = typedArray<Element>(value, what);
  if (static_cast<std::int64_t>(array.ElementLength()) != size) {
    failInterface(std::to_string(size) + " elements of " + what);
  }
  return std::vector<Element>(array.Data(), array.Data() + size);
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
       InstanceMethod<&Session::mergeAdapter>("mergeAdapter"),
       InstanceMethod<&Session::readWeight>("readWeight"),
       InstanceMethod<&Session::forward>("forward"), InstanceMethod<&Session::jacobian>("jacobian"),
       InstanceMethod<&Session::readParameters>("readParameters"),
       InstanceMethod<&Session::writeParameters>("writeParameters"),
       InstanceMethod<&Session::createOptimizer>("createOptimizer"),
       InstanceMethod<&Session::step>("step"),
       InstanceMethod<&Session::describeOptimizerState>("describeOptimizerState"),
       InstanceMethod<&Session::readOptimizerState>("readOptimizerState"),
       InstanceMethod<&Session::writeOptimizerState>("writeOptimizerState"),
       InstanceMethod<&Session::dispose>("dispose"),
       InstanceMethod<&Session::description>("description")});
}

Session::Session(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Session>(info) {
  guarded(info.Env(), [&] {
    const PropertyReader options(info[0], "options");
    auto config = std::make_shared<ModelConfig>();
    config->device = options.string("device");
    config->precision = readChoice(options, "precision", kPrecisions);
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

std::shared_ptr<OptimizerSlot> Session::slotOf(const Napi::Value& handle) const {
  auto slot = OptimizerHandle::slotOf(handle, thread_);
  if (slot->generation == generation_) return slot;
  throw Error(ErrorCode::kOption,
              "The optimizer was made for an adapter that the model no longer has; create a new "
              "optimizer");
}

template <class Element>
Element* Session::outputOf(Job& job, const Napi::Value& value, std::int64_t size) {
  auto array = typedArray<Element>(value, "an output");
  if (static_cast<std::int64_t>(array.ElementLength()) != size) {
    failInterface("an output of " + std::to_string(size) + " elements");
  }
  job.target = Napi::Persistent(static_cast<Napi::Object>(array));
  return array.Data();
}

InputBatch Session::inputOf(const Napi::Value& value) const {
  const PropertyReader input(value, "input");
  InputBatch batch;
  batch.batch = static_cast<int>(input.integer("batch", 1, kMaxInt));
  batch.tokens = static_cast<int>(input.integer("tokens", 0, kMaxInt));
  batch.values = copyOf<float>(input.value("values"),
                               graph_.inputElements(batch.tokens) * batch.batch, "input");
  return batch;
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

Napi::Value Session::mergeAdapter(const Napi::CallbackInfo& info) {
  return enter(info, [&]() -> Napi::Value {
    requireReady();
    auto job = newJob(info);
    const auto result = std::make_shared<MergeResult>();
    job->run = [result](ModelState& state) { *result = state.engine().mergeAdapter(); };
    job->resolve = [this, result](Napi::Env env) -> Napi::Value {
      adapter_ = {};
      ++generation_;
      thread_->account(weightBytes_);
      Napi::Object object = Napi::Object::New(env);
      object.Set("largestChange", result->largestChange);
      object.Set("weight", result->weight);
      return object;
    };
    return thread_->start(std::move(job));
  });
}

Napi::Value Session::readWeight(const Napi::CallbackInfo& info) {
  return enter(info, [&]() -> Napi::Value {
    requireReady();
    auto job = newJob(info);
    const PropertyReader request(info[0], "request");
    const std::string name = request.string("name");
    const DType dtype = readChoice(request, "dtype", kDTypes);
    const std::int64_t elements = request.integer("elements", 1, kMaxInt);
    auto* target = outputOf<std::uint8_t>(*job, info[1], elements * bytesPerElement(dtype));
    job->run = [name, dtype, elements, target](ModelState& state) {
      const std::vector<float> values = state.engine().readWeight(name);
      LOKO_CHECK(static_cast<std::int64_t>(values.size()) == elements, name + " has another size");
      encode(values.data(), elements, dtype, target);
    };
    return thread_->start(std::move(job));
  });
}

Napi::Value Session::forward(const Napi::CallbackInfo& info) {
  return enter(info, [&]() -> Napi::Value {
    requireReady();
    auto job = newJob(info);
    InputBatch input = inputOf(info[0]);
    float* logits = outputOf(*job, info[1], std::int64_t{input.batch} * graph_.outputs());
    job->run = [input = std::move(input), logits](ModelState& state) {
      std::vector<double> values;
      state.setBatch(input);
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
    InputBatch input = inputOf(info[0]);
    const std::string of = info[1].ToString().Utf8Value();
    if (of != "logits" && of != "softmax") failInterface("\"logits\" or \"softmax\"");
    const JacobianOf what = of == "logits" ? JacobianOf::kLogits : JacobianOf::kSoftmax;
    float* target =
        outputOf(*job, info[2], std::int64_t{input.batch} * graph_.outputs() * adapter_.parameters);
    job->run = [input = std::move(input), what, target](ModelState& state) {
      state.setBatch(input);
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
    const auto slot = slotOf(info[0]);
    InputBatch input = inputOf(info[1]);
    const int outputs = graph_.outputs();
    float* logits = outputOf(*job, info[3], std::int64_t{input.batch} * outputs);
    const auto result = std::make_shared<StepResult>();
    Targets targets = targetsOf(info[2], input.batch, outputs);
    const std::optional<StepControl> control =
        info[4].IsUndefined() ? std::nullopt : std::make_optional(readStepControl(info[4]));
    job->run = [slot, input = std::move(input), targets = std::move(targets), control, logits,
                result](ModelState& state) {
      state.setBatch(input);
      *result = state.step(slot, targets, control);
      toFloat(result->logits, logits);
    };
    job->resolve = [result, kalman = slot->kalman](Napi::Env env) -> Napi::Value {
      return toObject(env, *result, kalman);
    };
    return thread_->start(std::move(job));
  });
}

Napi::Value Session::describeOptimizerState(const Napi::CallbackInfo& info) {
  return enter(info, [&]() -> Napi::Value {
    requireReady();
    auto job = newJob(info);
    const auto entries = std::make_shared<std::vector<StateEntry>>();
    job->run = [slot = slotOf(info[0]), entries](ModelState& state) {
      *entries = state.describeOptimizerState(slot);
    };
    job->resolve = [entries](Napi::Env env) -> Napi::Value { return toArray(env, *entries); };
    return thread_->start(std::move(job));
  });
}

Napi::Value Session::readOptimizerState(const Napi::CallbackInfo& info) {
  return enter(info, [&]() -> Napi::Value {
    requireReady();
    auto job = newJob(info);
    const auto size =
        static_cast<std::int64_t>(typedArray<double>(info[1], "an output").ElementLength());
    double* target = outputOf<double>(*job, info[1], size);
    job->run = [slot = slotOf(info[0]), target, size](ModelState& state) {
      const std::vector<double> values = state.readOptimizerState(slot);
      LOKO_CHECK(static_cast<std::int64_t>(values.size()) == size, "a state of another size");
      std::copy(values.begin(), values.end(), target);
    };
    return thread_->start(std::move(job));
  });
}

Napi::Value Session::writeOptimizerState(const Napi::CallbackInfo& info) {
  return enter(info, [&]() -> Napi::Value {
    requireReady();
    auto job = newJob(info);
    const auto source = typedArray<double>(info[1], "a state");
    job->run = [slot = slotOf(info[0]), values = std::vector<double>(
                                            source.Data(), source.Data() + source.ElementLength())](
                   ModelState& state) { state.writeOptimizerState(slot, values); };
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
