#pragma once

// What is trained: LoRA factors and trained copies of whole linear modules, each with its place in
// theta. The order of theta is decided in TypeScript (lib/lora), which also owns PEFT's names.

#include <cstdint>
#include <string>
#include <vector>

#include "core/op.h"

namespace loko {

enum class LoraInit : std::uint8_t {
  kKaiming,   // A ~ U(-1/sqrt(in), 1/sqrt(in)), B = 0: PEFT's init_lora_weights = true
  kGaussian,  // A ~ N(0, 1/r^2), B = 0: PEFT's "gaussian" (std = 1/r)
  kRandom,    // both as kKaiming (fan-in of each): PEFT's false, for tests
};

struct AdaptedModule {
  std::string module;
  int rank = 0;
  float scale = 1;
  ParameterOffset a = kNoParameter;  // [rank, in], of a convolution [rank, in, kh, kw]
  ParameterOffset b = kNoParameter;  // [out, rank / groups]
};

struct TrainedModule {
  std::string module;
  ParameterOffset weight = kNoParameter;  // [out, in]
  ParameterOffset bias = kNoParameter;    // [out], or kNoParameter
};

/// Throws kUnsupported unless the rank is a multiple of a convolution's groups (PEFT's rule, too).
void requireRank(const AdaptedModule& lora, int groups);

/// A bias that is trained while the weight beside it stays frozen.
struct TrainedBias {
  std::string parameter;  // its name in the graph, of a linear part or a layer norm
  ParameterOffset offset = kNoParameter;
};

struct Adapter {
  std::vector<AdaptedModule> lora;
  std::vector<TrainedModule> trained;
  std::vector<TrainedBias> biases;
  std::int64_t parameters = 0;  // n
  LoraInit init = LoraInit::kKaiming;

  const AdaptedModule* loraOf(const std::string& module) const;
  const TrainedModule* trainedOf(const std::string& module) const;
  /// Where the bias of that name is trained, or kNoParameter.
  ParameterOffset biasOf(const std::string& parameter) const;
};

}  // namespace loko
