#pragma once

// Backward operations of the specification against differences of its forward operations.
//
// Everything runs in long double with the step h = eps^(1/3), which balances the truncation h^2
// against the rounding eps / h. Both are then eps^(2/3) times values and third derivatives of order
// 1 to 1000, hence the tolerance 1000 eps^(2/3): 2e-10 on x86-64 (eps = 1.1e-19), 4e-8 where long
// double is double.

#include <limits>
#include <utility>
#include <vector>

#include "op_harness.h"

namespace loko::test {

using Real = long double;
inline const Real kEpsilon = std::numeric_limits<Real>::epsilon();
inline const Real kStep = std::cbrt(kEpsilon);
inline const Real kTolerance = 1000 * kStep * kStep;

/// Forward steps with one output, the backward steps that belong to them, and what those
/// differentiate with respect to.
struct Chain {
  Chain(int batch, int rows) : op(batch, rows) {}

  View input(int rows, int cols) { return op.read(Axis::kSamples, rows, cols); }
  View cotangent(int rows, int cols) { return op.read(Axis::kSegments, rows, cols); }
  ParameterOffset block(std::int64_t count) {
    blocks.emplace_back(op.parameters(count), count);
    return blocks.back().first;
  }
  LoraSite site(int rank, int in, int outBegin, int outEnd, int hBegin) {
    const LoraSite result = op.site(rank, in, outBegin, outEnd, hBegin);
    blocks.emplace_back(result.a, std::int64_t{rank} * in);
    blocks.emplace_back(result.b, std::int64_t{outEnd - outBegin} * rank);
    return result;
  }

  OpCase op;
  std::vector<Step> forward, backward;
  View output, seed;                          // seed [segments, rows, cols]: cotangent of output
  std::vector<std::pair<View, View>> inputs;  // an activation and its cotangent
  std::vector<std::pair<ParameterOffset, std::int64_t>> blocks;  // in theta and in the Jacobian
  bool accumulates = false;  // backward adds to what the cotangents of the inputs held before
};

/// Runs forward; <seed, output> of every segment.
inline std::vector<Real> evaluate(const Chain& chain, ref::Memory<Real>& memory) {
  const Frame& frame = chain.op.frame;
  for (const Step& step : chain.forward) runSpecification(step, frame, memory);
  const auto y = memory(chain.output, frame.batch), dy = memory(chain.seed, frame.segments());
  std::vector<Real> sums(static_cast<std::size_t>(frame.segments()));
  for (int s = 0; s < frame.segments(); ++s) {
    for (int t = 0; t < y.rows(); ++t) {
      for (int c = 0; c < y.cols(); ++c) {
        sums[static_cast<std::size_t>(s)] += dy(s, t, c) * y(s % frame.batch, t, c);
      }
    }
  }
  return sums;
}

/// Derivative of evaluate() with respect to a number inside `memory`.
inline std::vector<Real> differentiate(const Chain& chain, ref::Memory<Real>& memory,
                                       Real& number) {
  const Real held = number;
  number = held + kStep;
  std::vector<Real> slope = evaluate(chain, memory);
  number = held - kStep;
  const std::vector<Real> below = evaluate(chain, memory);
  number = held;
  for (std::size_t s = 0; s < slope.size(); ++s) slope[s] = (slope[s] - below[s]) / (2 * kStep);
  return slope;
}

inline Real worstError(const Chain& chain) {
  const Frame& frame = chain.op.frame;
  ref::Memory<Real> start = specificationMemory<Real>(chain.op), memory = start;
  for (const Step& step : chain.forward) runSpecification(step, frame, memory);
  for (const Step& step : chain.backward) runSpecification(step, frame, memory);

  Real worst = 0;
  const auto compare = [&](Real found, Real expected) {
    const Real error = std::fabs(found - expected) / (1 + std::fabs(expected));
    worst = error <= worst ? worst : error;  // NaN becomes the worst
  };
  for (const auto& [input, gradient] : chain.inputs) {
    const auto number = start(input, frame.batch), held = start(gradient, frame.segments());
    const auto found = memory(gradient, frame.segments());
    for (int b = 0; b < frame.batch; ++b) {
      for (int t = 0; t < input.rows; ++t) {
        for (int c = 0; c < input.cols; ++c) {
          const std::vector<Real> slope = differentiate(chain, start, number(b, t, c));
          for (int s = 0; s < frame.segments(); ++s) {
            const Real expected = slope[static_cast<std::size_t>(s)];
            if (s % frame.batch != b) {
              compare(0, expected);  // samples do not meet
            } else {
              compare(found(s, t, c), expected + (chain.accumulates ? held(s, t, c) : 0));
            }
          }
        }
      }
    }
  }
  for (const auto& [offset, count] : chain.blocks) {
    for (ParameterOffset i = offset; i < offset + count; ++i) {
      const std::vector<Real> slope =
          differentiate(chain, start, start.theta[static_cast<std::size_t>(i)]);
      Real sum = 0;
      for (int s = 0; s < frame.segments(); ++s) {
        sum += slope[static_cast<std::size_t>(s)];
        if (!frame.reduce) {
          compare(*memory.jacobianBlock(frame, s, i, 1), slope[static_cast<std::size_t>(s)]);
        }
      }
      if (frame.reduce) compare(*memory.jacobianBlock(frame, 0, i, 1), sum);
    }
  }
  return worst;
}

/// One and several samples and cotangent rows, kept apart and reduced.
template <class Build>
void checkGradients(const Build& build) {
  for (const Segments& size : {Segments{1, 1}, Segments{1, 3}, Segments{3, 2}}) {
    for (const bool reduce : {false, true}) {
      Chain chain(size.batch, size.rows);
      build(chain);
      if (reduce) chain.op.reduce();
      CAPTURE(size.batch);
      CAPTURE(size.rows);
      CAPTURE(reduce);
      CHECK(static_cast<double>(worstError(chain)) <= static_cast<double>(kTolerance));
    }
  }
}

}  // namespace loko::test
