#pragma once

// What is folded into frozen weights when they are packed: the batch norm behind a convolution, the layer
// scale behind a linear map. Both are y = scale * z + shift for each output column, so that
// W' = scale W and b' = scale b + shift. Computed in double, rounded once.

#include <string>
#include <vector>

#include "core/graph.h"
#include "core/weights.h"

namespace loko {

/// The weights of a part behind which something is folded, or of a convolution.
class FoldedWeights {
 public:
  /// A linear part with an output scale.
  FoldedWeights(WeightTable& table, const LinearPart& part, int in)
      : table_(table), part_(part), in_(in) {}
  FoldedWeights(WeightTable& table, const ConvNode& conv, int channels)
      : table_(table),
        part_(conv.part),
        norm_(conv.norm ? &*conv.norm : nullptr),
        in_(channels / conv.groups * conv.window.taps()),
        taps_(conv.window.taps()),
        groups_(conv.groups) {}

  /// [out / groups, taps * channels / groups], (tap, channel) along a row, scale included.
  WeightId matrix(int group) const;
  /// kNoWeight where nothing is added.
  WeightId bias() const;
  /// [out]; kNoWeight where nothing is multiplied.
  WeightId scale() const;

 private:
  bool scaled() const { return norm_ != nullptr || !part_.outputScale.empty(); }
  std::vector<std::string> scaleNames() const;
  std::vector<double> scaleOf(const WeightStore& store) const;
  std::vector<double> shiftOf(const WeightStore& store) const;

  WeightTable& table_;
  const LinearPart& part_;
  const BatchNormSpec* norm_ = nullptr;
  int in_ = 0, taps_ = 1, groups_ = 1;
};

/// The vectors of a batch norm that stands alone: y = scale * x + shift.
WeightId normScale(WeightTable& table, const BatchNormSpec& norm);
WeightId normShift(WeightTable& table, const BatchNormSpec& norm);

}  // namespace loko
