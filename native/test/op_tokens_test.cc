#include "op_harness.h"

namespace loko::test {

TEST_CASE("Patchify moves every pixel to its place, for one channel and for three") {
  struct Shape {
    int channels, height, width, patch;
  };
  for (const Shape shape : {Shape{1, 4, 4, 4}, Shape{3, 8, 12, 4}, Shape{1, 28, 28, 7},
                            Shape{3, 5, 5, 1}, Shape{2, 32, 16, 16}, Shape{3, 224, 224, 16}}) {
    for (const int batch : {1, 3}) {
      for (const Layout layout : kLayouts) {
        OpCase op(batch, 1, layout, Values::kExact);
        Patchify step;
        step.channels = shape.channels;
        step.height = shape.height;
        step.width = shape.width;
        step.patch = shape.patch;
        step.image = op.operand(Axis::kSamples, Role::kRead, shape.channels * shape.height,
                                shape.width, Space::kInput);
        const int count = shape.height / shape.patch * (shape.width / shape.patch);
        step.patches =
            op.written(Axis::kSamples, count, shape.channels * shape.patch * shape.patch);
        op.step = step;
        checkStep(op);
      }
    }
  }
}

TEST_CASE("AssembleTokens puts the class token first and adds the position embeddings") {
  for (const int rows : {1, 5, 16, 196}) {
    for (const int cols : {1, 7, 48, 192}) {
      for (const Layout layout : kLayouts) {
        OpCase op(3, 1, layout, Values::kExact);
        AssembleTokens step;
        step.patches = op.read(Axis::kSamples, rows, cols);
        step.tokens = op.written(Axis::kSamples, 1 + rows, cols);
        step.cls = op.vector(cols);
        step.pos = op.vector(std::int64_t{1 + rows} * cols);
        op.step = step;
        checkStep(op);
      }
    }
  }
}

TEST_CASE("EmbedTokens adds the rows of three tables") {
  for (const int tokens : {1, 5, 17}) {
    for (const int cols : {1, 7, 48, 130}) {
      for (const Layout layout : kLayouts) {
        OpCase op(3, 1, layout, Values::kExact);
        EmbedTokens step;
        step.vocabulary = 29;
        step.positionCount = 23;
        step.typeCount = 2;
        step.ids = op.indices(tokens, step.vocabulary);
        step.positionIds = op.indices(tokens, step.positionCount);
        step.typeIds = op.indices(tokens, step.typeCount);
        step.out = op.written(Axis::kSamples, tokens, cols);
        step.words = op.table(step.vocabulary, cols);
        step.positions = op.table(step.positionCount, cols);
        step.types = op.table(step.typeCount, cols);
        op.step = step;
        checkStep(op);
      }
    }
  }
}

TEST_CASE("AddRows adds whole cotangents, or their first rows only") {
  for (const auto& [batch, rows] : kSegments) {
    for (const Layout layout : kLayouts) {
      for (const int cols : {1, 7, 48, 130}) {
        for (const int sourceRows : {1, 5}) {
          OpCase op(batch, rows, layout);
          op.step = AddRows{op.read(Axis::kSegments, sourceRows, cols), op.target(true, 5, cols)};
          checkStep(op);
        }
      }
    }
  }
}

TEST_CASE("ClearRows zeroes every row of a cotangent and nothing beside it") {
  for (const auto& [batch, rows] : kSegments) {
    for (const Layout layout : kLayouts) {
      for (const int cols : {1, 7, 48, 130}) {
        OpCase op(batch, rows, layout);
        op.step = ClearRows{op.target(false, 5, cols)};
        checkStep(op);
      }
    }
  }
}

TEST_CASE("AddRows and ClearRows share large cotangents between threads") {
  OpCase add(1, 2);
  add.step = AddRows{add.read(Axis::kSegments, 197, 768), add.target(true, 197, 768)};
  checkStep(add);
  OpCase clear(1, 2);
  clear.step = ClearRows{clear.target(false, 197, 768)};
  checkStep(clear);
}

}  // namespace loko::test
