#pragma once

// NativeSession of lib/native/addon.ts: one model. It checks what could harm the process, copies
// inputs, and hands each call to the session's thread (session_thread.h). Outputs are written straight
// into arrays that TypeScript has allocated and shows to nobody before the promise resolves; it
// allocates them because a failed allocation is an exception there and the end of the process here.

#include <napi.h>

#include <memory>
#include <string>
#include <vector>

#include "addon/model_state.h"
#include "addon/session_thread.h"
#include "core/adapter.h"
#include "core/graph.h"

namespace loko::addon {

class Session : public Napi::ObjectWrap<Session> {
 public:
  static Napi::Function define(Napi::Env env);

  explicit Session(const Napi::CallbackInfo& info);
  ~Session() override;

 private:
  Napi::Value load(const Napi::CallbackInfo& info);
  Napi::Value setAdapter(const Napi::CallbackInfo& info);
  Napi::Value mergeAdapter(const Napi::CallbackInfo& info);
  Napi::Value readWeight(const Napi::CallbackInfo& info);
  Napi::Value forward(const Napi::CallbackInfo& info);
  Napi::Value jacobian(const Napi::CallbackInfo& info);
  Napi::Value readParameters(const Napi::CallbackInfo& info);
  Napi::Value writeParameters(const Napi::CallbackInfo& info);
  Napi::Value createOptimizer(const Napi::CallbackInfo& info);
  Napi::Value step(const Napi::CallbackInfo& info);
  Napi::Value describeOptimizerState(const Napi::CallbackInfo& info);
  Napi::Value readOptimizerState(const Napi::CallbackInfo& info);
  Napi::Value writeOptimizerState(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);
  Napi::Value description(const Napi::CallbackInfo& info);

  template <class Body>
  Napi::Value enter(const Napi::CallbackInfo& info, Body&& body);
  /// A job of this session; throws kDisposed or kModelBusy when it cannot take one.
  std::unique_ptr<Job> newJob(const Napi::CallbackInfo& info);
  void requireReady() const;
  /// The slot of a handle, made for the adapter that the model has now.
  std::shared_ptr<OptimizerSlot> slotOf(const Napi::Value& handle) const;
  /// Makes `value` the array that the job fills, and returns its memory.
  template <class Element = float>
  static Element* outputOf(Job& job, const Napi::Value& value, std::int64_t size);
  /// A copy, because the caller may reuse its array while the session's thread works.
  InputBatch inputOf(const Napi::Value& value) const;

  std::shared_ptr<SessionThread> thread_;
  // Node's copies of what the session's thread has: the graph, and the adapter once it is set.
  Graph graph_;
  Adapter adapter_;
  std::int64_t generation_ = 0;  // counts adapters
  bool loaded_ = false;
  std::string description_;
  std::int64_t weightBytes_ = 0;
};

}  // namespace loko::addon
