#include "addon/failure.h"

#include <new>
#include <stdexcept>
#include <system_error>

#include "core/status.h"

namespace loko::addon {

namespace {

constexpr const char* kOutOfMemory =
    "Not enough memory for this operation; use a smaller batch or model, or free other models";

/// Copying a message can fail itself when memory is short; the code alone must survive that.
Failure makeFailure(ErrorCode code, const char* message) noexcept {
  Failure failure;
  failure.code = codeName(code);
  try {
    failure.message = message;
  } catch (...) {
    failure.message.clear();
  }
  return failure;
}

}  // namespace

Failure Failure::current() noexcept {
  try {
    throw;
  } catch (const Error& error) {
    return makeFailure(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return makeFailure(ErrorCode::kOutOfMemory, kOutOfMemory);
  } catch (const std::length_error&) {
    return makeFailure(ErrorCode::kOutOfMemory, kOutOfMemory);
  } catch (const std::system_error& error) {
    // Only the creation of a thread throws this here, when the system has no room for one more.
    return makeFailure(ErrorCode::kOutOfMemory, error.what());
  } catch (const std::exception& error) {
    return makeFailure(ErrorCode::kInternal, error.what());
  } catch (...) {
    return makeFailure(ErrorCode::kInternal, "An exception of an unknown type");
  }
}

Napi::Error toError(Napi::Env env, const Failure& failure) {
  Napi::Error error = Napi::Error::New(env, failure.message);
  error.Value().Set("code", Napi::String::New(env, failure.code));
  return error;
}

}  // namespace loko::addon
