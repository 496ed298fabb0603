#include "core/status.h"

namespace loko {

const char* codeName(ErrorCode code) {
  switch (code) {
    case ErrorCode::kFileRead:
      return "ERR_FILE_READ";
    case ErrorCode::kWeightMissing:
      return "ERR_WEIGHT_MISSING";
    case ErrorCode::kWeightShape:
      return "ERR_WEIGHT_SHAPE";
    case ErrorCode::kWeightNotFinite:
      return "ERR_WEIGHT_NOT_FINITE";
    case ErrorCode::kShapeMismatch:
      return "ERR_SHAPE_MISMATCH";
    case ErrorCode::kInputNotFinite:
      return "ERR_INPUT_NOT_FINITE";
    case ErrorCode::kLabelRange:
      return "ERR_LABEL_RANGE";
    case ErrorCode::kOption:
      return "ERR_OPTION";
    case ErrorCode::kUnsupported:
      return "ERR_UNSUPPORTED";
    case ErrorCode::kDeviceUnavailable:
      return "ERR_DEVICE_UNAVAILABLE";
    case ErrorCode::kDeviceFailed:
      return "ERR_DEVICE_FAILED";
    case ErrorCode::kCublasUnavailable:
      return "ERR_CUBLAS_UNAVAILABLE";
    case ErrorCode::kNoTrainableParameters:
      return "ERR_NO_TRAINABLE_PARAMETERS";
    case ErrorCode::kDisposed:
      return "ERR_DISPOSED";
    case ErrorCode::kModelBusy:
      return "ERR_MODEL_BUSY";
    case ErrorCode::kOutOfMemory:
      return "ERR_OUT_OF_MEMORY";
    case ErrorCode::kInternal:
      return "ERR_INTERNAL";
  }
  return "ERR_INTERNAL";
}

void failCheck(const char* expression, const char* file, int line, const std::string& detail) {
  throw Error(ErrorCode::kInternal, std::string("Internal check failed: ") + expression + " (" +
                                        detail + ") at " + file + ":" + std::to_string(line) +
                                        ". This is a bug in loko; please report it.");
}

}  // namespace loko
