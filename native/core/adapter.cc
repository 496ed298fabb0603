#include "core/adapter.h"

#include "core/status.h"

namespace loko {

namespace {
template <class Entry>
const Entry* find(const std::vector<Entry>& entries, const std::string& module) {
  for (const Entry& entry : entries) {
    if (entry.module == module) return &entry;
  }
  return nullptr;
}
}  // namespace

void requireRank(const AdaptedModule& lora, int groups) {
  if (lora.rank % groups == 0) return;
  throw Error(ErrorCode::kUnsupported,
              "Expected a rank that is a multiple of the " + std::to_string(groups) +
                  " groups of the convolution " + lora.module + " but received " +
                  std::to_string(lora.rank) + "; choose another rank or leave it out");
}

const AdaptedModule* Adapter::loraOf(const std::string& module) const {
  return find(lora, module);
}

const TrainedModule* Adapter::trainedOf(const std::string& module) const {
  return find(trained, module);
}

ParameterOffset Adapter::biasOf(const std::string& parameter) const {
  for (const TrainedBias& bias : biases) {
    if (bias.parameter == parameter) return bias.offset;
  }
  return kNoParameter;
}

}  // namespace loko
