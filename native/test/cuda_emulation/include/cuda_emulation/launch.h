#pragma once

// How a kernel is launched: its arguments are copied, as CUDA copies them, and used each time the
// launch is executed (at once for a stream, at every launch of the graph for a capture).

#include <functional>
#include <tuple>
#include <utility>

#include "runtime_types.h"

namespace loko::emulation {

/// `kernel` is the function's address, `thread` runs it for the current thread.
cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel,
                   std::function<void()> thread);

}  // namespace loko::emulation

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments), "wrong number of kernel arguments");
  std::tuple<Parameters...> values(std::forward<Arguments>(arguments)...);
  return loko::emulation::launch(*config, reinterpret_cast<const void*>(kernel),
                                 [kernel, values] { std::apply(kernel, values); });
}

template <typename... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute, int value) {
  return kernel == nullptr || value < 0 ? cudaErrorInvalidValue : cudaSuccess;
}
