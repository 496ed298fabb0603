#pragma once

// NativeDeviceInfo and NativeCublasLt of lib/native/addon.ts. None throws: what is missing is in the facts.

#include <napi.h>

namespace loko::addon {

Napi::Object describeDevices(Napi::Env env);

/// Opens the library, 0.5 GB, where there is one.
Napi::Object describeCublasLt(Napi::Env env);

}  // namespace loko::addon
