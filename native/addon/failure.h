#pragma once

// The one place where a C++ exception becomes a JavaScript error with a `code`.
//
// Rule: no exception leaves a function that Node calls, and no function here calls the user's
// JavaScript; rethrowing what a script threw can end the process.

#include <napi.h>

#include <string>

namespace loko::addon {

/// What a caught exception says, in a form that can cross from the session's thread to Node's.
struct Failure {
  const char* code = nullptr;  // a literal
  std::string message;

  /// Describes the exception being handled; call it in a catch block only.
  static Failure current() noexcept;
};

/// An Error object with `code` and `message`; lib/errors.ts turns it into a LokoError.
Napi::Error toError(Napi::Env env, const Failure& failure);

/// Runs the body of a JavaScript-callable function and throws its exceptions into JavaScript.
template <class Body>
auto guarded(Napi::Env env, Body&& body) -> decltype(body()) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;  // node-addon-api hands it to JavaScript
  } catch (...) {
    throw toError(env, Failure::current());
  }
}

}  // namespace loko::addon
