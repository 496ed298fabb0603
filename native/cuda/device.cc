#include "cuda/device.h"

#include <cuda_runtime.h>

#include "core/status.h"
#include "cuda/cublaslt.h"

namespace loko::cuda {

namespace {

// Only the build with nvcc has machine code.
#ifndef LOKO_CUDA_ARCHITECTURES
#define LOKO_CUDA_ARCHITECTURES ""
#endif

constexpr int kOldestCapability = 80;  // of the machine code in this binary

DeviceFacts factsOf(int device) {
  DeviceFacts facts;
  cudaDeviceProp properties = {};
  if (cudaGetDeviceProperties(&properties, device) != cudaSuccess) return facts;
  facts.name = properties.name;
  facts.computeCapability = properties.major * 10 + properties.minor;
  facts.memoryBytes = properties.totalGlobalMem;
  facts.multiprocessors = properties.multiProcessorCount;
  return facts;
}

DeviceReport query() {
  DeviceReport report;
  report.architectures = LOKO_CUDA_ARCHITECTURES;
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  cudaDriverGetVersion(&report.driver);
  cudaRuntimeGetVersion(&report.runtime);
  report.reason = reasonOf(status, count, report.driver, report.runtime);
  std::string detail =
      status == cudaSuccess || status == cudaErrorNoDevice ? "" : cudaGetErrorString(status);
  if (report.reason == DeviceReport::Reason::kNone) {
    for (int device = 0; device < count; ++device) report.devices.push_back(factsOf(device));
    // Device 0 is the one that models use.
    const DeviceFacts& first = report.devices.front();
    if (first.computeCapability < kOldestCapability) {
      report.reason = DeviceReport::Reason::kNoDevice;
      detail = first.name + " has compute capability " +
               std::to_string(first.computeCapability / 10) + "." +
               std::to_string(first.computeCapability % 10) + ", 8.0 or newer is needed";
    }
  }
  report.message = reasonMessage(report, detail);
  report.available = report.reason == DeviceReport::Reason::kNone;
  cudaGetLastError();  // a failed query is no error of what comes next
  return report;
}

}  // namespace

DeviceReport deviceReport() {
  // Drivers and devices do not come and go. Leaked, so that a session that ends late can still ask.
  static const auto* report = new DeviceReport(query());
  return *report;
}

SearchReport cublasLtReport() {
  SearchReport report;
  try {
    if (deviceReport().available) {
      CublasLt::find(&report);
    } else {
      searchCublasLt(SearchEnvironment::ofThisProcess(), report,
                     [](const CublasLtApi&, const std::string&, std::string&) { return true; });
    }
  } catch (const Error&) {
    // The report has the attempts.
  }
  return report;
}

}  // namespace loko::cuda
