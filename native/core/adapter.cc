#include "core/adapter.h"

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
