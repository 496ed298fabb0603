#include "cuda/device.h"

namespace loko::cuda {

namespace {

constexpr int kErrorNoDevice = 100;  // cudaErrorNoDevice

std::string versionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace

const char* reasonName(DeviceReport::Reason reason) {
  switch (reason) {
    case DeviceReport::Reason::kNone:
      return "";
    case DeviceReport::Reason::kNotCompiled:
      return "notCompiled";
    case DeviceReport::Reason::kNoDriver:
      return "noDriver";
    case DeviceReport::Reason::kDriverTooOld:
      return "driverTooOld";
    case DeviceReport::Reason::kNoDevice:
      return "noDevice";
  }
  return "";
}

DeviceReport::Reason reasonOf(int countStatus, int count, int driver, int runtime) {
  if (runtime == 0) return DeviceReport::Reason::kNotCompiled;
  if (countStatus == 0 && count > 0) return DeviceReport::Reason::kNone;
  if (driver == 0) return DeviceReport::Reason::kNoDriver;
  // A driver serves every minor version of the major version that it serves. What is no device is
  // said before the age of the driver only where the runtime itself says so.
  if (countStatus != 0 && countStatus != kErrorNoDevice && driver / 1000 < runtime / 1000) {
    return DeviceReport::Reason::kDriverTooOld;
  }
  return DeviceReport::Reason::kNoDevice;
}

std::string reasonMessage(const DeviceReport& report, const std::string& detail) {
  switch (report.reason) {
    case DeviceReport::Reason::kNone:
      return "";
    case DeviceReport::Reason::kNotCompiled:
      return "this build has no CUDA backend: it was built without nvcc, or with LOKO_CUDA=OFF";
    case DeviceReport::Reason::kNoDriver:
      return "no NVIDIA driver is installed";
    case DeviceReport::Reason::kDriverTooOld:
      return "the NVIDIA driver is too old: it serves CUDA " + versionText(report.driver) +
             ", and this build needs CUDA " + versionText(report.runtime) +
             (report.runtime >= 13000 ? " (driver R580 or newer)" : "");
    case DeviceReport::Reason::kNoDevice:
      return "the NVIDIA driver finds no device that CUDA can use" +
             (detail.empty() ? "" : " (" + detail + ")");
  }
  return "";
}

}  // namespace loko::cuda
