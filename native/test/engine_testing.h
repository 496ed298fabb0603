#pragma once

// What the tests of the engine have in common, whatever the model takes.

#include <algorithm>
#include <cmath>
#include <variant>
#include <vector>

#include "core/engine.h"
#include "core/rng.h"

namespace loko {

/// The steps of one kind, in order.
template <class Operation>
std::vector<Operation> only(const std::vector<Step>& steps) {
  std::vector<Operation> found;
  for (const Step& step : steps) {
    if (const auto* operation = std::get_if<Operation>(&step)) found.push_back(*operation);
  }
  return found;
}

struct TestBatch {
  std::vector<float> values;
  int batch = 1;
  int tokens = 0;
};

inline std::vector<float> pixels(const Engine& engine, int batch, std::uint64_t seed) {
  const ImageNode& image = engine.graph().imageInput();
  std::vector<float> values(
      static_cast<std::size_t>(batch * image.channels * image.height * image.width));
  const RandomStream random(seed, "pixels");
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = random.normal(i);
  return values;
}

inline std::vector<double> logitsOf(Engine& engine, const TestBatch& input) {
  std::vector<double> logits;
  engine.setBatch(input.values.data(), input.batch, input.tokens);
  engine.forward(logits);
  return logits;
}

/// The largest |J - difference| / (1 + |difference|) over every `stride`-th parameter, on a backend that
/// computes in double.
///
/// Central differences in float64, extrapolated over h and 2h (Richardson): their error is about
/// h^4 |f^(5)| / 30, 1e-12 to 1e-8 here even where attention bends sharply. theta is exchanged as
/// float32, so it is first rounded to a grid on which theta +- h is exact; the Jacobian comes back
/// as float32, which adds 6e-8 of its size.
///
/// With ReLU or a maximum, h may cross a kink. Where they are the only bends, the logits are linear in each
/// parameter of LoRA between two kinks, so that the differences over h and 2h agree to the rounding of
/// logits over h, 1e-10, unless there is one: with `smoothShare`, h is small, derivatives beside a kink
/// do not count, and the share of those that do is returned.
inline double worstDerivative(Engine& engine, const TestBatch& input, std::size_t stride,
                              double* smoothShare = nullptr) {
  std::vector<float> theta(static_cast<std::size_t>(engine.parameters()));
  engine.readTheta(theta.data());
  for (float& value : theta) value = std::round(value * 0x1p12F) * 0x1p-12F;
  engine.writeTheta(theta.data());
  engine.setBatch(input.values.data(), input.batch, input.tokens);
  const std::vector<float> jacobian = engine.jacobianOf(JacobianOf::kLogits);
  const float kStep = smoothShare != nullptr ? 0x1p-16F : 0x1p-10F;
  double worst = 0;
  int smooth = 0, all = 0;
  for (std::size_t j = 0; j < theta.size(); j += stride) {
    const auto at = [&](float offset) {
      std::vector<float> moved = theta;
      moved[j] += offset;
      engine.writeTheta(moved.data());
      return logitsOf(engine, input);
    };
    const auto up = at(kStep), down = at(-kStep), up2 = at(2 * kStep), down2 = at(-2 * kStep);
    for (std::size_t out = 0; out < up.size(); ++out) {
      const double near = (up[out] - down[out]) / (2.0 * kStep);
      const double far = (up2[out] - down2[out]) / (4.0 * kStep);
      ++all;
      if (smoothShare != nullptr && std::abs(near - far) > 1e-8 * (1 + std::abs(near))) continue;
      ++smooth;
      const double expected =
          (8 * (up[out] - down[out]) - (up2[out] - down2[out])) / (12.0 * kStep);
      const double error = std::abs(jacobian[out * theta.size() + j] - expected);
      worst = std::max(worst, std::isnan(error) ? INFINITY : error / (1 + std::abs(expected)));
    }
  }
  engine.writeTheta(theta.data());
  if (smoothShare != nullptr) *smoothShare = static_cast<double>(smooth) / all;
  return worst;
}

/// max over rows of ||a - b|| / ||b||
inline double worstRow(const std::vector<float>& a, const std::vector<float>& b, std::int64_t n) {
  double worst = 0;
  for (std::size_t row = 0; row * static_cast<std::size_t>(n) < a.size(); ++row) {
    double difference = 0, reference = 0;
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
      const std::size_t at = row * static_cast<std::size_t>(n) + i;
      difference += (static_cast<double>(a[at]) - b[at]) * (static_cast<double>(a[at]) - b[at]);
      reference += static_cast<double>(b[at]) * b[at];
    }
    worst = std::max(worst, std::sqrt(difference / reference));
  }
  return worst;
}

}  // namespace loko
