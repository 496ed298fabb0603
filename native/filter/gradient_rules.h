#pragma once

// The element-wise formulas of torch.optim (single-tensor path, PyTorch 2.x), once, for every backend
// that runs on the host. Each line keeps PyTorch's order of operations and rounds hyper-parameters
// to T where PyTorch does, so that float32 here follows PyTorch's float32.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/backend.h"

namespace loko {

/// How many state arrays a rule owns, in the order that applyRule reads them: SGD [momentum],
/// AdaGrad [sum of squares], RMSProp [square average, (gradient average when centered), (momentum)],
/// Adam and AdamW [first moment, second moment, (its running maximum with amsgrad)].
inline int stateArrays(const GradientUpdate& update) {
  switch (update.rule) {
    case GradientUpdate::Rule::kSgd:
      return update.momentum != 0 ? 1 : 0;
    case GradientUpdate::Rule::kAdaGrad:
      return 1;
    case GradientUpdate::Rule::kRmsProp:
      return 1 + (update.centered ? 1 : 0) + (update.momentum > 0 ? 1 : 0);
    case GradientUpdate::Rule::kAdam:
    case GradientUpdate::Rule::kAdamW:
      return update.amsgrad ? 3 : 2;
  }
  return 0;
}

/// Their names in torch.optim, in the same order.
inline std::vector<const char*> stateNames(const GradientUpdate& update) {
  std::vector<const char*> names;
  switch (update.rule) {
    case GradientUpdate::Rule::kSgd:
      if (update.momentum != 0) names = {"momentum_buffer"};
      break;
    case GradientUpdate::Rule::kAdaGrad:
      names = {"sum"};
      break;
    case GradientUpdate::Rule::kRmsProp:
      names = {"square_avg"};
      if (update.centered) names.push_back("grad_avg");
      if (update.momentum > 0) names.push_back("momentum_buffer");
      break;
    case GradientUpdate::Rule::kAdam:
    case GradientUpdate::Rule::kAdamW:
      names = {"exp_avg", "exp_avg_sq"};
      if (update.amsgrad) names.push_back("max_exp_avg_sq");
      break;
  }
  return names;
}

namespace gradient_rules {

/// torch.lerp: the form that is exact at the nearer end.
template <class T>
inline T lerp(T start, T end, T weight) {
  const T difference = end - start;
  return weight < T(0.5) ? start + weight * difference : end - difference * (T(1) - weight);
}

template <class T>
void sgd(const GradientUpdate& u, std::int64_t begin, std::int64_t end, T* theta, const T* grad,
         T* momentum) {
  const T rate = T(-u.learningRate), decay = T(u.weightDecay), mu = T(u.momentum);
  const T keep = T(1 - u.dampening);
  for (std::int64_t i = begin; i < end; ++i) {
    T g = u.weightDecay != 0 ? grad[i] + decay * theta[i] : grad[i];
    if (momentum != nullptr) {
      // PyTorch's buffer starts as a copy of the first gradient, without dampening.
      momentum[i] = u.step == 1 ? g : momentum[i] * mu + keep * g;
      g = u.nesterov ? g + mu * momentum[i] : momentum[i];
    }
    theta[i] += rate * g;
  }
}

template <class T>
void adaGrad(const GradientUpdate& u, std::int64_t begin, std::int64_t end, T* theta, const T* grad,
             T* sum) {
  const T rate = T(-u.learningRate / (1 + static_cast<double>(u.step - 1) * u.learningRateDecay));
  const T decay = T(u.weightDecay), eps = T(u.eps);
  for (std::int64_t i = begin; i < end; ++i) {
    const T g = u.weightDecay != 0 ? grad[i] + decay * theta[i] : grad[i];
    sum[i] += g * g;
    theta[i] += rate * g / (std::sqrt(sum[i]) + eps);
  }
}

template <class T>
void rmsProp(const GradientUpdate& u, std::int64_t begin, std::int64_t end, T* theta, const T* grad,
             T* square, T* average, T* momentum) {
  const T rate = T(-u.learningRate), decay = T(u.weightDecay), eps = T(u.eps);
  const T alpha = T(u.alpha), rest = T(1 - u.alpha), mu = T(u.momentum);
  for (std::int64_t i = begin; i < end; ++i) {
    const T g = u.weightDecay != 0 ? grad[i] + decay * theta[i] : grad[i];
    square[i] = square[i] * alpha + rest * g * g;
    T variance = square[i];
    if (average != nullptr) {
      average[i] = lerp(average[i], g, rest);
      variance = square[i] - average[i] * average[i];
    }
    const T denominator = std::sqrt(variance) + eps;
    if (momentum != nullptr) {
      momentum[i] = momentum[i] * mu + g / denominator;
      theta[i] += rate * momentum[i];
    } else {
      theta[i] += rate * g / denominator;
    }
  }
}

/// Adam and, with decoupled weight decay, AdamW.
template <class T>
void adam(const GradientUpdate& u, std::int64_t begin, std::int64_t end, T* theta, const T* grad,
          T* first, T* second, T* largest) {
  const bool decoupled = u.rule == GradientUpdate::Rule::kAdamW;
  const double steps = static_cast<double>(u.step);
  const T rate = T(-u.learningRate / (1 - std::pow(u.beta1, steps)));
  const T correction = T(std::sqrt(1 - std::pow(u.beta2, steps)));
  const T shrink = T(1 - u.learningRate * u.weightDecay), decay = T(u.weightDecay);
  const T rest1 = T(1 - u.beta1), beta2 = T(u.beta2), rest2 = T(1 - u.beta2), eps = T(u.eps);
  for (std::int64_t i = begin; i < end; ++i) {
    T g = grad[i];
    if (u.weightDecay != 0) {
      if (decoupled) {
        theta[i] *= shrink;
      } else {
        g += decay * theta[i];
      }
    }
    first[i] = lerp(first[i], g, rest1);
    second[i] = second[i] * beta2 + rest2 * g * g;
    T variance = second[i];
    if (largest != nullptr) variance = largest[i] = std::max(largest[i], second[i]);
    theta[i] += rate * first[i] / (std::sqrt(variance) / correction + eps);
  }
}

}  // namespace gradient_rules

/// Updates theta[begin, end) and the state in place. Elements are independent, so any split into
/// ranges (threads) gives the same bits. `state` holds stateArrays(update) arrays.
template <class T>
void applyRule(const GradientUpdate& update, std::int64_t begin, std::int64_t end, T* theta,
               const T* grad, T* const* state) {
  using Rule = GradientUpdate::Rule;
  switch (update.rule) {
    case Rule::kSgd:
      gradient_rules::sgd(update, begin, end, theta, grad,
                          update.momentum != 0 ? state[0] : nullptr);
      return;
    case Rule::kAdaGrad:
      gradient_rules::adaGrad(update, begin, end, theta, grad, state[0]);
      return;
    case Rule::kRmsProp: {
      T* average = update.centered ? state[1] : nullptr;
      T* momentum = update.momentum > 0 ? state[update.centered ? 2 : 1] : nullptr;
      gradient_rules::rmsProp(update, begin, end, theta, grad, state[0], average, momentum);
      return;
    }
    case Rule::kAdam:
    case Rule::kAdamW:
      gradient_rules::adam(update, begin, end, theta, grad, state[0], state[1],
                           update.amsgrad ? state[2] : nullptr);
      return;
  }
}

}  // namespace loko
