#pragma once

// Logits and targets of one batch: checks, probabilities, innovations, losses. float64.

#include <vector>

#include "core/softmax.h"
#include "filter/optimizer.h"

namespace loko {

/// Throws kShapeMismatch, kLabelRange or kInputNotFinite unless `targets` holds `batch` labels below
/// `outputs`, or batch*outputs finite values.
void checkTargets(const Targets& targets, int batch, int outputs);

bool allFinite(const std::vector<double>& values);

/// e = onehot(label) - pi. The entry of the label is the sum of the other probabilities, which keeps
/// its relative precision when pi[label] rounds to 1.
void softmaxInnovation(const double* pi, int outputs, int label, double* innovation);

/// Fills predicted, correct and the loss of `result` from result.logits: cross entropy for labels,
/// mean squared error for values.
void reportPrediction(const Targets& targets, int batch, int outputs, StepResult& result);

}  // namespace loko
