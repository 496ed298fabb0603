#include "addon/optimizer_handle.h"

#include <utility>

#include "core/status.h"

namespace loko::addon {

namespace {
// Node-API would unwrap any object of any addon; the tag makes a wrong one an error.
constexpr napi_type_tag kTypeTag = {0x6c6f6b6f2d6f7074, 0x9d1f4b7a20c3e856};
}  // namespace

Napi::Function OptimizerHandle::define(Napi::Env env) {
  return DefineClass(env, "NativeOptimizer", {});
}

OptimizerHandle::OptimizerHandle(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<OptimizerHandle>(info) {
  info.This().As<Napi::Object>().TypeTag(&kTypeTag);
}

OptimizerHandle::~OptimizerHandle() {
  if (slot_ != nullptr) slot_->abandoned = true;
}

void OptimizerHandle::bind(std::shared_ptr<OptimizerSlot> slot, std::weak_ptr<const void> session) {
  slot_ = std::move(slot);
  session_ = std::move(session);
}

std::shared_ptr<OptimizerSlot> OptimizerHandle::slotOf(const Napi::Value& value,
                                                       const std::shared_ptr<const void>& session) {
  if (value.IsObject() && value.As<Napi::Object>().CheckTypeTag(&kTypeTag)) {
    const OptimizerHandle* handle = Unwrap(value.As<Napi::Object>());
    if (handle->session_.lock() == session) return handle->slot_;
  }
  throw Error(ErrorCode::kInternal, "Native interface: expected an optimizer of this session");
}

}  // namespace loko::addon
