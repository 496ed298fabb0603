#include "core/folded_weights.h"

#include <cmath>

#include "core/status.h"

namespace loko {

namespace {

std::vector<double> readDouble(const WeightStore& store, const std::string& name) {
  const std::vector<float> values = store.read(name);
  return {values.begin(), values.end()};
}

std::vector<double> scaleOfNorm(const WeightStore& store, const BatchNormSpec& norm) {
  std::vector<double> scale = readDouble(store, norm.weight);
  const std::vector<double> variance = readDouble(store, norm.variance);
  LOKO_CHECK(scale.size() == variance.size(), norm.variance + " has an unexpected size");
  for (std::size_t c = 0; c < scale.size(); ++c) {
    if (!(variance[c] + norm.eps > 0)) {
      throw Error(ErrorCode::kWeightNotFinite,
                  "Expected variances above -eps but the weight " + norm.variance + " holds " +
                      std::to_string(variance[c]) + " at element " + std::to_string(c) +
                      "; the checkpoint is broken");
    }
    scale[c] /= std::sqrt(variance[c] + norm.eps);
  }
  return scale;
}

/// bias - scale * mean
std::vector<double> shiftOfNorm(const WeightStore& store, const BatchNormSpec& norm) {
  const std::vector<double> scale = scaleOfNorm(store, norm), mean = readDouble(store, norm.mean);
  std::vector<double> shift = readDouble(store, norm.bias);
  LOKO_CHECK(shift.size() == scale.size() && mean.size() == scale.size(),
             norm.bias + " and " + norm.mean + " have unexpected sizes");
  for (std::size_t c = 0; c < shift.size(); ++c) shift[c] -= scale[c] * mean[c];
  return shift;
}

WeightId addVector(Backend& backend, const std::vector<double>& values) {
  const std::vector<float> rounded(values.begin(), values.end());
  return backend.addVector(rounded.data(), static_cast<std::int64_t>(rounded.size()));
}

/// The rules by which packed copies are told apart also hold eps: two norms may share their vectors.
std::string ruleOf(const char* rule, const BatchNormSpec* norm) {
  return norm == nullptr ? rule : std::string(rule) + " eps " + std::to_string(norm->eps * 1e12);
}

}  // namespace

std::vector<std::string> FoldedWeights::scaleNames() const {
  if (norm_ != nullptr) return {norm_->weight, norm_->variance};
  if (!part_.outputScale.empty()) return {part_.outputScale};
  return {};
}

std::vector<double> FoldedWeights::scaleOf(const WeightStore& store) const {
  std::vector<double> scale = norm_ != nullptr ? scaleOfNorm(store, *norm_)
                              : scaled()       ? readDouble(store, part_.outputScale)
                                               : std::vector<double>();
  if (!scaled()) scale.assign(static_cast<std::size_t>(part_.out), 1.0);
  LOKO_CHECK(static_cast<int>(scale.size()) == part_.out,
             "the output of " + part_.module + " is scaled by a vector of another size");
  return scale;
}

std::vector<double> FoldedWeights::shiftOf(const WeightStore& store) const {
  if (norm_ != nullptr) return shiftOfNorm(store, *norm_);
  return std::vector<double>(static_cast<std::size_t>(part_.out), 0.0);
}

WeightId FoldedWeights::matrix(int group) const {
  std::vector<std::string> names{part_.weight};
  for (std::string& name : scaleNames()) names.push_back(std::move(name));
  const std::string rule = ruleOf("folded", norm_) + " " + std::to_string(group);
  return table_.derived(rule, names, [&](const WeightStore& store, Backend& backend) {
    const std::vector<float> weight = store.read(part_.weight);
    const std::vector<double> scale = scaleOf(store);
    const int out = part_.out / groups_, channels = in_ / taps_;
    LOKO_CHECK(static_cast<std::int64_t>(weight.size()) == std::int64_t{part_.out} * in_,
               part_.weight + " has an unexpected size");
    std::vector<float> matrix(static_cast<std::size_t>(std::int64_t{out} * in_));
    float* target = matrix.data();
    for (int o = group * out; o < (group + 1) * out; ++o) {
      const float* row = weight.data() + std::int64_t{o} * in_;
      for (int tap = 0; tap < taps_; ++tap) {
        for (int c = 0; c < channels; ++c) {
          *target++ = static_cast<float>(scale[static_cast<std::size_t>(o)] *
                                         row[std::int64_t{c} * taps_ + tap]);
        }
      }
    }
    return backend.addMatrix(matrix.data(), out, in_);
  });
}

WeightId FoldedWeights::bias() const {
  if (part_.bias.empty() && norm_ == nullptr) return kNoWeight;
  std::vector<std::string> names = scaleNames();
  if (!part_.bias.empty()) names.push_back(part_.bias);
  if (norm_ != nullptr) names.insert(names.end(), {norm_->bias, norm_->mean});
  return table_.derived(
      ruleOf("folded bias", norm_), names, [&](const WeightStore& store, Backend& backend) {
        std::vector<double> values = shiftOf(store);
        if (!part_.bias.empty()) {
          const std::vector<double> bias = readDouble(store, part_.bias);
          const std::vector<double> scale = scaleOf(store);
          LOKO_CHECK(bias.size() == values.size(), part_.bias + " has an unexpected size");
          for (std::size_t o = 0; o < bias.size(); ++o) {
            values[o] += scale[o] * bias[o];
          }
        }
        return addVector(backend, values);
      });
}

WeightId FoldedWeights::scale() const {
  if (!scaled()) return kNoWeight;
  return table_.derived(ruleOf("folded scale", norm_), scaleNames(),
                        [&](const WeightStore& store, Backend& backend) {
                          return addVector(backend, scaleOf(store));
                        });
}

WeightId normScale(WeightTable& table, const BatchNormSpec& norm) {
  return table.derived(ruleOf("norm scale", &norm), {norm.weight, norm.variance},
                       [&](const WeightStore& store, Backend& backend) {
                         return addVector(backend, scaleOfNorm(store, norm));
                       });
}

WeightId normShift(WeightTable& table, const BatchNormSpec& norm) {
  return table.derived(ruleOf("norm shift", &norm),
                       {norm.weight, norm.bias, norm.mean, norm.variance},
                       [&](const WeightStore& store, Backend& backend) {
                         return addVector(backend, shiftOfNorm(store, norm));
                       });
}

}  // namespace loko
