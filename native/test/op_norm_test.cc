#include "op_harness.h"

namespace loko::test {

namespace {

struct Extent {
  int rows, cols;
};
// The last two are longer than a block of the CUDA backend keeps, with few threads and with many.
constexpr Extent kExtents[] = {{1, 1},   {5, 1},    {5, 7},    {1, 48},  {17, 64},
                               {5, 130}, {65, 768}, {3, 1030}, {2, 2053}};

}  // namespace

TEST_CASE("LayerNorm agrees with the specification, with and without what backward keeps") {
  for (const auto& [rows, cols] : kExtents) {
    for (const Layout layout : kLayouts) {
      for (int options = 0; options < 8; ++options) {
        OpCase op(2, 1, layout);
        LayerNorm step;
        step.eps = 1e-6f;
        step.x = op.read(Axis::kSamples, rows, cols);
        step.y = op.written(Axis::kSamples, rows, cols);
        if (options & 1) step.xhat = op.written(Axis::kSamples, rows, cols);
        if (options & 2) step.rstd = op.written(Axis::kSamples, rows, 1);
        step.gamma = op.vector(cols);
        if (options & 4) {
          step.trainedBeta = op.parameters(cols);
        } else {
          step.beta = op.vector(cols);
        }
        op.step = step;
        checkStep(op);
      }
    }
  }
}

TEST_CASE("LayerNorm keeps its accuracy where the mean is far larger than the spread") {
  // One pass over sum and sum of squares would lose everything here: (1000 / 1)^2 eps = 0.06.
  OpCase op(1, 1);
  LayerNorm step;
  step.eps = 1e-6f;
  step.x = op.read(Axis::kSamples, 5, 64);
  for (float& value : op.scratch) value += 1000;
  step.y = op.written(Axis::kSamples, 5, 64);
  step.xhat = op.written(Axis::kSamples, 5, 64);
  step.rstd = op.written(Axis::kSamples, 5, 1);
  step.gamma = op.vector(64);
  step.beta = op.vector(64);
  op.step = step;
  checkStep(op);
}

TEST_CASE("LayerNormBackward agrees with the specification, written or accumulated") {
  for (const auto& [batch, rows] : kSegments) {
    for (const auto& [tokens, cols] : kExtents) {
      for (const bool accumulate : {false, true}) {
        OpCase op(batch, rows, kLayouts[(batch + rows + tokens) % 3]);
        LayerNorm forward;
        forward.eps = 1e-5f;
        forward.x = op.read(Axis::kSamples, tokens, cols);
        forward.y = op.read(Axis::kSamples, tokens, cols);
        forward.xhat = op.read(Axis::kSamples, tokens, cols);
        forward.rstd = op.read(Axis::kSamples, tokens, 1);
        forward.gamma = op.vector(cols);
        forward.beta = op.vector(cols);
        op.fill(forward);

        LayerNormBackward step;
        step.accumulate = accumulate;
        step.dy = op.read(Axis::kSegments, tokens, cols);
        step.dx = op.target(accumulate, tokens, cols);
        step.xhat = forward.xhat;
        step.rstd = forward.rstd;
        step.gamma = forward.gamma;
        op.step = step;
        checkStep(op);
      }
    }
  }
}

}  // namespace loko::test
