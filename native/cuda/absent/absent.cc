// The CUDA backend of a build without nvcc.

#include "core/status.h"
#include "cuda/cuda_backend.h"
#include "cuda/device.h"

namespace loko::cuda {

DeviceReport deviceReport() {
  DeviceReport report;
  report.reason = DeviceReport::Reason::kNotCompiled;
  report.message = reasonMessage(report);
  return report;
}

SearchReport cublasLtReport() {
  return {};
}

std::unique_ptr<Backend> makeCudaBackend(const CudaOptions&) {
  throw Error(ErrorCode::kDeviceUnavailable,
              "device \"cuda\" is not available: " + deviceReport().message);
}

}  // namespace loko::cuda
