#pragma once

// What the machine offers CUDA, in words that a user can act on. Without nvcc at build time,
// native/cuda/absent answers for all of it.

#include <cstddef>
#include <string>
#include <vector>

#include "cuda/cublaslt_library.h"

namespace loko::cuda {

struct DeviceFacts {
  std::string name;
  int computeCapability = 0;  // 90 is 9.0
  std::size_t memoryBytes = 0;
  int multiprocessors = 0;
};

struct DeviceReport {
  enum class Reason {
    kNone,
    kNotCompiled,
    kNoDriver,
    kDriverTooOld,
    kNoDevice,
  };

  bool available = false;
  Reason reason = Reason::kNone;  // why not
  std::string message;            // the reason in a sentence; empty where available
  int driver = 0;             // newest CUDA version that the driver serves: 13000 is 13.0; 0: none
  int runtime = 0;            // CUDA version in this binary; 0: not compiled
  std::string architectures;  // in this binary: "80-real,86-real,89-real,90"
  std::vector<DeviceFacts> devices;
};

/// "noDriver"; "" for kNone.
const char* reasonName(DeviceReport::Reason reason);

/// Never throws. The first call costs about 15 ms.
DeviceReport deviceReport();

/// Which of the four reasons holds, from what the runtime says. 35 (cudaErrorInsufficientDriver) stands
/// both for no driver and for an old one, so the versions decide.
DeviceReport::Reason reasonOf(int countStatus, int count, int driver, int runtime);

/// The reason in a sentence; `detail` is what the runtime says of it.
std::string reasonMessage(const DeviceReport& report, const std::string& detail = "");

/// The cuBLASLt that a model on device 0 would use. Opens the library (0.5 GB; 50 ms), and tests it where
/// there is a device. Never throws.
SearchReport cublasLtReport();

}  // namespace loko::cuda
