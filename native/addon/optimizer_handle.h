#pragma once

// The JavaScript handle of an optimizer: nothing but a reference to its slot (model_state.h). Its
// finalizer runs on Node's thread, so it only marks the slot; the session's thread frees the state.

#include <napi.h>

#include <memory>

#include "addon/model_state.h"

namespace loko::addon {

class OptimizerHandle : public Napi::ObjectWrap<OptimizerHandle> {
 public:
  static Napi::Function define(Napi::Env env);

  explicit OptimizerHandle(const Napi::CallbackInfo& info);
  ~OptimizerHandle() override;

  void bind(std::shared_ptr<OptimizerSlot> slot, std::weak_ptr<const void> session);
  /// The slot of a handle that `session` has created; throws kInternal for any other value.
  static std::shared_ptr<OptimizerSlot> slotOf(const Napi::Value& value,
                                               const std::shared_ptr<const void>& session);

 private:
  std::shared_ptr<OptimizerSlot> slot_;
  std::weak_ptr<const void> session_;  // compared, never followed
};

}  // namespace loko::addon
