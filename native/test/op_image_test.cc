// Batch norm, pooling and what moves pixels.

#include "op_harness.h"
#include "op_windows.h"

namespace loko::test {

namespace {

struct Extents {
  int rows, cols;
};
constexpr Extents kExtents[] = {{1, 1}, {5, 7}, {17, 48}, {9, 130}, {49, 600}};

/// Ceil mode with its last window over the edge, a window of each size at a border, overlap and gaps.
std::vector<Window> poolWindows() {
  Window ceil = makeWindow({6, 7}, {3, 2}, {2, 2});
  ceil.output = {3, 4};
  Window paddedCeil = makeWindow({5, 6}, {3, 3}, {2, 2}, {1, 1});
  paddedCeil.output = {3, 4};
  return {makeWindow({8, 8}, {2, 2}, {2, 2}),
          makeWindow({7, 9}, {3, 3}, {2, 2}, {1, 1}),
          makeWindow({5, 4}, {4, 3}, {1, 1}, {2, 1}),
          makeWindow({9, 5}, {2, 1}, {3, 2}),
          makeWindow({1, 1}, {1, 1}),
          makeWindow({4, 3}, {4, 3}, {4, 3}),
          ceil,
          paddedCeil};
}

}  // namespace

TEST_CASE("BatchNorm scales and shifts each column, with and without ReLU") {
  for (const auto& [rows, cols] : kExtents) {
    for (const Layout layout : kLayouts) {
      for (const bool relu : {false, true}) {
        OpCase op(2, 1, layout, relu ? Values::kExact : Values::kNormal);
        BatchNorm step;
        step.relu = relu;
        step.x = op.read(Axis::kSamples, rows, cols);
        step.y = op.written(Axis::kSamples, rows, cols);
        step.scale = op.vector(cols);
        step.shift = op.vector(cols);
        op.step = step;
        checkStep(op);
      }
    }
  }
}

TEST_CASE("BatchNormBackward agrees with the specification, written or accumulated") {
  for (const auto& [batch, rows] : kSegments) {
    for (const auto& [pixels, cols] : kExtents) {
      for (const bool relu : {false, true}) {
        for (const bool accumulate : {false, true}) {
          OpCase op(batch, rows, kLayouts[(batch + rows + pixels) % 3],
                    relu ? Values::kExact : Values::kNormal);
          BatchNormBackward step;
          step.relu = relu;
          step.accumulate = accumulate;
          step.dy = op.read(Axis::kSegments, pixels, cols);
          step.dx = op.target(accumulate, pixels, cols);
          step.x = op.read(Axis::kSamples, pixels, cols);
          step.scale = op.vector(cols);
          step.shift = op.vector(cols);
          op.step = step;
          checkStep(op);
        }
      }
    }
  }
}

TEST_CASE("MaxPool takes the first of equal taps, and its cotangent goes to that one") {
  for (const auto& [batch, rows] : kSegments) {
    int variant = 0;
    for (const Window& window : poolWindows()) {
      for (const int cols : {1, 7, 33}) {
        const Layout layout = kLayouts[variant++ % 3];
        for (const bool kept : {false, true}) {
          OpCase op(batch, 1, layout, Values::kExact);
          MaxPool step;
          step.window = window;
          step.x = op.read(Axis::kSamples, window.input.pixels(), cols);
          step.y = op.written(Axis::kSamples, window.output.pixels(), cols);
          if (kept) step.index = op.written(Axis::kSamples, window.output.pixels(), cols);
          op.step = step;
          checkStep(op);
        }
        for (const bool accumulate : {false, true}) {
          OpCase op(batch, rows, layout, Values::kExact);
          MaxPool forward;
          forward.window = window;
          forward.x = op.read(Axis::kSamples, window.input.pixels(), cols);
          forward.y = op.read(Axis::kSamples, window.output.pixels(), cols);
          forward.index = op.read(Axis::kSamples, window.output.pixels(), cols);
          op.fill(forward);
          MaxPoolBackward step;
          step.window = window;
          step.accumulate = accumulate;
          step.dy = op.read(Axis::kSegments, window.output.pixels(), cols);
          step.dx = op.target(accumulate, window.input.pixels(), cols);
          step.index = forward.index;
          op.step = step;
          checkStep(op);
        }
      }
    }
  }
}

TEST_CASE("AvgPool divides by what its windows hold, with or without padding") {
  for (const auto& [batch, rows] : kSegments) {
    int variant = 0;
    for (const Window& window : poolWindows()) {
      for (const bool countIncludePad : {false, true}) {
        for (const int cols : {1, 7, 33}) {
          const Layout layout = kLayouts[variant++ % 3];
          {
            OpCase op(batch, 1, layout);
            AvgPool step;
            step.window = window;
            step.countIncludePad = countIncludePad;
            step.x = op.read(Axis::kSamples, window.input.pixels(), cols);
            step.y = op.written(Axis::kSamples, window.output.pixels(), cols);
            op.step = step;
            checkStep(op);
          }
          OpCase op(batch, rows, layout);
          AvgPoolBackward step;
          step.window = window;
          step.countIncludePad = countIncludePad;
          step.accumulate = variant % 2 == 0;
          step.dy = op.read(Axis::kSegments, window.output.pixels(), cols);
          step.dx = op.target(step.accumulate, window.input.pixels(), cols);
          op.step = step;
          checkStep(op);
        }
      }
    }
  }
}

TEST_CASE("MeanRows averages the rows that it does not skip, forward and back") {
  for (const auto& [batch, rows] : kSegments) {
    for (const auto& [tokens, cols] : kExtents) {
      for (const int skip : {0, 1}) {
        if (skip >= tokens) continue;
        const Layout layout = kLayouts[(batch + tokens + skip) % 3];
        OpCase op(batch, 1, layout);
        MeanRows step;
        step.skip = skip;
        step.x = op.read(Axis::kSamples, tokens, cols);
        step.y = op.written(Axis::kSamples, 1, cols);
        op.step = step;
        checkStep(op);
        for (const bool accumulate : {false, true}) {
          OpCase back(batch, rows, layout);
          MeanRowsBackward backward;
          backward.skip = skip;
          backward.accumulate = accumulate;
          backward.dy = back.read(Axis::kSegments, 1, cols);
          backward.dx = back.target(accumulate, tokens, cols);
          back.step = backward;
          checkStep(back);
        }
      }
    }
  }
}

TEST_CASE("CopyRows and Flatten move every element to its place") {
  for (const auto& [batch, rows] : kSegments) {
    for (const auto& [pixels, cols] : kExtents) {
      const Layout layout = kLayouts[(batch + rows + pixels) % 3];
      OpCase op(batch, 1, layout);
      CopyRows copy;
      copy.src = op.read(Axis::kSamples, pixels, cols);
      copy.dst = op.written(Axis::kSamples, pixels, cols);
      op.step = copy;
      checkStep(op);

      OpCase flat(batch, 1, layout);
      Flatten flatten;
      flatten.x = flat.read(Axis::kSamples, pixels, cols);
      flatten.y = flat.written(Axis::kSamples, 1, pixels * cols);
      flat.step = flatten;
      checkStep(flat);
      for (const bool accumulate : {false, true}) {
        OpCase back(batch, rows, layout);
        FlattenBackward backward;
        backward.accumulate = accumulate;
        backward.dy = back.read(Axis::kSegments, 1, pixels * cols);
        backward.dx = back.target(accumulate, pixels, cols);
        back.step = backward;
        checkStep(back);
      }
    }
  }
}

}  // namespace loko::test
