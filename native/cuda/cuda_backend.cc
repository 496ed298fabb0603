#include "cuda/cuda_backend.h"

#include "core/status.h"
#include "cuda/device.h"

namespace loko::cuda {

std::unique_ptr<Backend> makeCudaBackend(const CudaOptions&) {
  const DeviceReport report = deviceReport();
  if (report.available) {
    throw Error(ErrorCode::kUnsupported, "the CUDA backend has no kernels yet");
  }
  throw Error(ErrorCode::kDeviceUnavailable, "device \"cuda\" is not available: " + report.message);
}

}  // namespace loko::cuda
