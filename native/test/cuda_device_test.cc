#include <string>

#include <doctest/doctest.h>

#include "cuda/device.h"

namespace loko::cuda {
namespace {

using Reason = DeviceReport::Reason;

constexpr int kInsufficientDriver = 35, kNoDevice = 100, kInitializationError = 3;

TEST_CASE("each of the four reasons is told from what the runtime says") {
  // Status of cudaGetDeviceCount, devices, version of the driver, version of the runtime.
  CHECK(reasonOf(0, 1, 13000, 13000) == Reason::kNone);
  CHECK(reasonOf(0, 2, 13010, 13000) == Reason::kNone);
  // A driver of the same major version serves a newer minor one.
  CHECK(reasonOf(0, 1, 13000, 13010) == Reason::kNone);
  CHECK(reasonOf(0, 0, 0, 0) == Reason::kNotCompiled);
  // As measured without a driver: the runtime says 35, which by its name is an old driver.
  CHECK(reasonOf(kInsufficientDriver, 0, 0, 13000) == Reason::kNoDriver);
  CHECK(reasonOf(kInsufficientDriver, 0, 12080, 13000) == Reason::kDriverTooOld);
  CHECK(reasonOf(kNoDevice, 0, 13000, 13000) == Reason::kNoDevice);
  CHECK(reasonOf(kNoDevice, 0, 12080, 13000) == Reason::kNoDevice);
  CHECK(reasonOf(kInitializationError, 0, 13000, 13000) == Reason::kNoDevice);
}

TEST_CASE("the reason of an old driver has both versions, and no raw error number") {
  DeviceReport report;
  report.reason = Reason::kDriverTooOld;
  report.driver = 12080;
  report.runtime = 13000;
  CHECK(reasonMessage(report) ==
        "the NVIDIA driver is too old: it serves CUDA 12.8, and this build needs CUDA 13.0 (driver "
        "R580 or newer)");
  report.reason = Reason::kNoDevice;
  CHECK(reasonMessage(report, "initialization error") ==
        "the NVIDIA driver finds no device that CUDA can use (initialization error)");
}

}  // namespace
}  // namespace loko::cuda
