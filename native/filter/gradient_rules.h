#pragma once

// The element-wise formulas of torch.optim (single-tensor path, PyTorch 2.x), once, for every
// backend. Each line keeps PyTorch's order of operations and rounds hyper-parameters
// to T where PyTorch does, so that float32 here follows PyTorch's float32.

#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/backend.h"
#include "core/status.h"

#ifdef __CUDACC__
#define LOKO_HOST_DEVICE __host__ __device__
#else
#define LOKO_HOST_DEVICE
#endif

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

/// The memory of the state arrays, for a backend whose arrays are `State`; throws where they are not those of
/// the rule and of n parameters.
template <class State>
std::array<float*, 3> stateValues(const GradientUpdate& update,
                                  const std::vector<StateArray*>& state, std::int64_t n) {
  std::array<float*, 3> values{};
  LOKO_CHECK(state.size() <= values.size() && static_cast<int>(state.size()) == stateArrays(update),
             std::to_string(state.size()) + " state arrays");
  for (std::size_t i = 0; i < state.size(); ++i) {
    LOKO_CHECK(state[i]->size() == n, "a state array of another size than theta");
    values[i] = dynamic_cast<State&>(*state[i]).values();
  }
  return values;
}

/// Their names in torch.optim, in the same order.
struct StateName {
  const char* name;
  bool ofSquares = false;
};

inline std::vector<StateName> stateNames(const GradientUpdate& update) {
  std::vector<StateName> names;
  switch (update.rule) {
    case GradientUpdate::Rule::kSgd:
      if (update.momentum != 0) names = {{"momentum_buffer"}};
      break;
    case GradientUpdate::Rule::kAdaGrad:
      names = {{"sum", true}};
      break;
    case GradientUpdate::Rule::kRmsProp:
      names = {{"square_avg", true}};
      if (update.centered) names.push_back({"grad_avg"});
      if (update.momentum > 0) names.push_back({"momentum_buffer"});
      break;
    case GradientUpdate::Rule::kAdam:
    case GradientUpdate::Rule::kAdamW:
      names = {{"exp_avg"}, {"exp_avg_sq", true}};
      if (update.amsgrad) names.push_back({"max_exp_avg_sq", true});
      break;
  }
  return names;
}

namespace gradient_rules {

/// torch.lerp: the form that is exact at the nearer end.
template <class T>
LOKO_HOST_DEVICE inline T lerp(T start, T end, T weight) {
  const T difference = end - start;
  return weight < T(0.5) ? start + weight * difference : end - difference * (T(1) - weight);
}

// A rule holds what a step has in common; apply() updates element i of theta and of its state.

template <class T>
struct Sgd {
  explicit Sgd(const GradientUpdate& u)
      : rate(T(-u.learningRate)),
        decay(T(u.weightDecay)),
        mu(T(u.momentum)),
        keep(T(1 - u.dampening)),
        decays(u.weightDecay != 0),
        first(u.step == 1),
        nesterov(u.nesterov) {}

  LOKO_HOST_DEVICE void apply(std::int64_t i, T* theta, const T* grad, T* momentum) const {
    T g = decays ? grad[i] + decay * theta[i] : grad[i];
    if (momentum != nullptr) {
      // PyTorch's buffer starts as a copy of the first gradient, without dampening.
      momentum[i] = first ? g : momentum[i] * mu + keep * g;
      g = nesterov ? g + mu * momentum[i] : momentum[i];
    }
    theta[i] += rate * g;
  }

  T rate, decay, mu, keep;
  bool decays, first, nesterov;
};

template <class T>
struct AdaGrad {
  explicit AdaGrad(const GradientUpdate& u)
      : rate(T(-u.learningRate / (1 + static_cast<double>(u.step - 1) * u.learningRateDecay))),
        decay(T(u.weightDecay)),
        eps(T(u.eps)),
        decays(u.weightDecay != 0) {}

  LOKO_HOST_DEVICE void apply(std::int64_t i, T* theta, const T* grad, T* sum) const {
    const T g = decays ? grad[i] + decay * theta[i] : grad[i];
    sum[i] += g * g;
    theta[i] += rate * g / (std::sqrt(sum[i]) + eps);
  }

  T rate, decay, eps;
  bool decays;
};

template <class T>
struct RmsProp {
  explicit RmsProp(const GradientUpdate& u)
      : rate(T(-u.learningRate)),
        decay(T(u.weightDecay)),
        eps(T(u.eps)),
        alpha(T(u.alpha)),
        rest(T(1 - u.alpha)),
        mu(T(u.momentum)),
        decays(u.weightDecay != 0) {}

  LOKO_HOST_DEVICE void apply(std::int64_t i, T* theta, const T* grad, T* square, T* average,
                              T* momentum) const {
    const T g = decays ? grad[i] + decay * theta[i] : grad[i];
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

  T rate, decay, eps, alpha, rest, mu;
  bool decays;
};

/// Adam and, with decoupled weight decay, AdamW.
template <class T>
struct Adam {
  explicit Adam(const GradientUpdate& u)
      : rate(T(-u.learningRate / (1 - std::pow(u.beta1, static_cast<double>(u.step))))),
        correction(T(std::sqrt(1 - std::pow(u.beta2, static_cast<double>(u.step))))),
        shrink(T(1 - u.learningRate * u.weightDecay)),
        decay(T(u.weightDecay)),
        rest1(T(1 - u.beta1)),
        beta2(T(u.beta2)),
        rest2(T(1 - u.beta2)),
        eps(T(u.eps)),
        decays(u.weightDecay != 0),
        decoupled(u.rule == GradientUpdate::Rule::kAdamW) {}

  LOKO_HOST_DEVICE void apply(std::int64_t i, T* theta, const T* grad, T* first, T* second,
                              T* largest) const {
    T g = grad[i];
    if (decays) {
      if (decoupled) {
        theta[i] *= shrink;
      } else {
        g += decay * theta[i];
      }
    }
    first[i] = lerp(first[i], g, rest1);
    second[i] = second[i] * beta2 + rest2 * g * g;
    T variance = second[i];
    if (largest != nullptr) {
      variance = largest[i] = largest[i] < second[i] ? second[i] : largest[i];
    }
    theta[i] += rate * first[i] / (std::sqrt(variance) / correction + eps);
  }

  T rate, correction, shrink, decay, rest1, beta2, rest2, eps;
  bool decays, decoupled;
};

}  // namespace gradient_rules

/// Calls run(rule, theta, grad, its state arrays...): rule.apply(i, the same arrays...) updates element i.
/// Elements are independent, so any split of them (threads, blocks) gives the same bits. `state` holds
/// stateArrays(update) arrays.
template <class T, class Run>
void withRule(const GradientUpdate& update, T* theta, const T* grad, T* const* state, Run run) {
  using Rule = GradientUpdate::Rule;
  switch (update.rule) {
    case Rule::kSgd:
      return run(gradient_rules::Sgd<T>(update), theta, grad,
                 update.momentum != 0 ? state[0] : nullptr);
    case Rule::kAdaGrad:
      return run(gradient_rules::AdaGrad<T>(update), theta, grad, state[0]);
    case Rule::kRmsProp:
      return run(gradient_rules::RmsProp<T>(update), theta, grad, state[0],
                 update.centered ? state[1] : nullptr,
                 update.momentum > 0 ? state[update.centered ? 2 : 1] : nullptr);
    case Rule::kAdam:
    case Rule::kAdamW:
      return run(gradient_rules::Adam<T>(update), theta, grad, state[0], state[1],
                 update.amsgrad ? state[2] : nullptr);
  }
}

/// Updates theta[begin, end) and the state on the host.
template <class T>
void applyRule(const GradientUpdate& update, std::int64_t begin, std::int64_t end, T* theta,
               const T* grad, T* const* state) {
  withRule(update, theta, grad, state, [&](const auto& rule, auto*... arrays) {
    for (std::int64_t i = begin; i < end; ++i) rule.apply(i, arrays...);
  });
}

}  // namespace loko
