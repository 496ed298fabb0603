#pragma once

// The one error type of the native code. Everything below the Node-API boundary throws loko::Error;
// native/addon maps it to a JavaScript LokoError in one place. Nothing here exits or aborts: the
// process belongs to the user.

#include <stdexcept>
#include <string>
#include <utility>

namespace loko {

/// Stable codes; the strings are the public `LokoError.code` values of lib/errors.ts.
enum class ErrorCode {
  kFileRead,
  kWeightMissing,
  kWeightShape,
  kWeightNotFinite,
  kShapeMismatch,
  kInputNotFinite,
  kLabelRange,
  kOption,
  kUnsupported,
  kDeviceUnavailable,
  kDeviceFailed,
  kCublasUnavailable,
  kNoTrainableParameters,
  kDisposed,
  kModelBusy,
  kOutOfMemory,
  kInternal,
};

/// The public spelling of a code, for example "ERR_FILE_READ".
const char* codeName(ErrorCode code);

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

/// For invariants that only a bug in this library can break; the message names the expression.
[[noreturn]] void failCheck(const char* expression, const char* file, int line,
                            const std::string& detail);

}  // namespace loko

#define LOKO_CHECK(condition, detail)                                            \
  do {                                                                           \
    if (!(condition)) ::loko::failCheck(#condition, __FILE__, __LINE__, detail); \
  } while (false)
