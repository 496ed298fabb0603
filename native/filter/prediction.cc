#include "filter/prediction.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/status.h"

namespace loko {

const char* skipReasonName(SkipReason reason) {
  switch (reason) {
    case SkipReason::kNone:
      return "";
    case SkipReason::kNonFiniteLogits:
      return "non-finite-logits";
    case SkipReason::kNonFiniteJacobian:
      return "non-finite-jacobian";
    case SkipReason::kNonFiniteGain:
      return "non-finite-gain";
    case SkipReason::kNonFiniteGradient:
      return "non-finite-gradient";
    case SkipReason::kZeroJacobian:
      return "zero-jacobian";
    case SkipReason::kFactorisationFailed:
      return "factorisation-failed";
  }
  return "";
}

bool allFinite(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
}

void checkTargets(const Targets& targets, int batch, int outputs) {
  const auto size = [](const auto& list) { return std::to_string(list.size()); };
  if (targets.labels.empty() == targets.values.empty()) {
    throw Error(ErrorCode::kShapeMismatch, "Targets must be either labels or values; got " +
                                               size(targets.labels) + " labels and " +
                                               size(targets.values) + " values.");
  }
  if (!targets.labels.empty()) {
    if (targets.labels.size() != static_cast<std::size_t>(batch)) {
      throw Error(ErrorCode::kShapeMismatch, "Expected " + std::to_string(batch) +
                                                 " labels, one per sample; got " +
                                                 size(targets.labels) + ".");
    }
    for (std::size_t b = 0; b < targets.labels.size(); ++b) {
      if (targets.labels[b] < 0 || targets.labels[b] >= outputs) {
        throw Error(ErrorCode::kLabelRange,
                    "Label " + std::to_string(targets.labels[b]) + " of sample " +
                        std::to_string(b) + " is out of range: the model has " +
                        std::to_string(outputs) + " classes, numbered from 0.");
      }
    }
    return;
  }
  const std::size_t expected = static_cast<std::size_t>(batch) * static_cast<std::size_t>(outputs);
  if (targets.values.size() != expected) {
    throw Error(ErrorCode::kShapeMismatch, "Expected " + std::to_string(expected) +
                                               " target values [" + std::to_string(batch) + ", " +
                                               std::to_string(outputs) + "]; got " +
                                               size(targets.values) + ".");
  }
  if (!allFinite(targets.values)) {
    throw Error(ErrorCode::kInputNotFinite, "Target values hold NaN or infinity.");
  }
}

void softmaxInnovation(const double* pi, int outputs, int label, double* innovation) {
  double others = 0;
  for (int c = 0; c < outputs; ++c) {
    innovation[c] = -pi[c];
    if (c != label) others += pi[c];
  }
  innovation[label] = others;
}

void reportPrediction(const Targets& targets, int batch, int outputs, StepResult& result) {
  result.predicted.resize(static_cast<std::size_t>(batch));
  result.correct = 0;
  result.loss = 0;
  std::vector<double> pi(static_cast<std::size_t>(outputs));
  for (int b = 0; b < batch; ++b) {
    const double* z = result.logits.data() + static_cast<std::ptrdiff_t>(b) * outputs;
    const int predicted = static_cast<int>(std::max_element(z, z + outputs) - z);
    result.predicted[static_cast<std::size_t>(b)] = predicted;
    if (!targets.labels.empty()) {
      const int label = targets.labels[static_cast<std::size_t>(b)];
      result.correct += predicted == label ? 1 : 0;
      result.loss += (softmax(z, outputs, pi.data()) - z[label]) / batch;
    } else {
      const double* y = targets.values.data() + static_cast<std::ptrdiff_t>(b) * outputs;
      for (int c = 0; c < outputs; ++c) {
        result.loss += (z[c] - y[c]) * (z[c] - y[c]) / (static_cast<double>(batch) * outputs);
      }
    }
  }
}

}  // namespace loko
