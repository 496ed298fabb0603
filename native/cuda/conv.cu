// Convolutions: not yet on this device.

#include "cuda/context.h"

namespace loko::cuda {

namespace {

[[noreturn]] void refuse() {
  throw Error(ErrorCode::kUnsupported,
              "Convolutional nets do not run on device \"cuda\" yet; use device \"cpu\"");
}

}  // namespace

void run(const ConvLoraDown&, const Frame&, Context&) {
  refuse();
}
void run(const Conv2d&, const Frame&, Context&) {
  refuse();
}
void run(const ConvLoraBackward&, const Frame&, Context&) {
  refuse();
}
void run(const Conv2dBackward&, const Frame&, Context&) {
  refuse();
}

}  // namespace loko::cuda
