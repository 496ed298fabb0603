// Images and token numbers to embedded tokens, and whole rows of cotangents. All of it moves memory; nothing is summed
// but single elements.
#include <cstring>

#include "cpu/context.h"

namespace loko::cpu {

void run(const Patchify& op, const Frame& frame, Context& context) {
  const int down = op.height / op.patch, across = op.width / op.patch, side = op.patch;
  expectShape(op.image, op.channels * op.height, op.width, "image");
  expectShape(op.patches, down * across, op.channels * side * side, "patches");
  const RowMap image = context.rows(op.image, frame.batch);
  const MutableRowMap patches = context.writableRows(op.patches, frame.batch);
  context.forEach(std::int64_t{frame.batch} * down * across, 10 * op.patches.cols,
                  [&](std::int64_t i) {
                    const std::int64_t sample = i / (down * across);
                    const int y = static_cast<int>(i / across % down) * side;
                    const int x = static_cast<int>(i % across) * side;
                    float* target = patches.row(i);
                    for (int channel = 0; channel < op.channels; ++channel) {
                      const std::int64_t top = sample * op.image.rows + channel * op.height + y;
                      for (int line = 0; line < side; ++line) {
                        target = std::copy_n(image.row(top + line) + x, side, target);
                      }
                    }
                  });
}

void run(const AssembleTokens& op, const Frame& frame, Context& context) {
  const int rows = op.patches.rows + 1, cols = op.patches.cols;
  expectShape(op.tokens, rows, cols, "tokens");
  const RowMap patches = context.rows(op.patches, frame.batch);
  const MutableRowMap tokens = context.writableRows(op.tokens, frame.batch);
  const float* cls = context.vector(op.cls, cols);
  const float* pos = context.vector(op.pos, std::int64_t{rows} * cols);
  context.forEach(std::int64_t{frame.batch} * rows, 10 * cols, [&](std::int64_t i) {
    const std::int64_t sample = i / rows, t = i % rows;
    const float* source = t == 0 ? cls : patches.row(sample * (rows - 1) + t - 1);
    const float* position = pos + t * cols;
    float* target = tokens.row(i);
    for (int c = 0; c < cols; ++c) target[c] = source[c] + position[c];
  });
}

void run(const EmbedTokens& op, const Frame& frame, Context& context) {
  const int tokens = op.out.rows, cols = op.out.cols;
  expectShape(op.ids, 1, tokens, "ids");
  expectShape(op.positionIds, 1, tokens, "positionIds");
  expectShape(op.typeIds, 1, tokens, "typeIds");
  const RowMap ids = context.rows(op.ids, frame.batch);
  const RowMap positionIds = context.rows(op.positionIds, frame.batch);
  const RowMap typeIds = context.rows(op.typeIds, frame.batch);
  const MutableRowMap out = context.writableRows(op.out, frame.batch);
  RowTable& words = context.table(op.words, op.vocabulary, cols);
  RowTable& positions = context.table(op.positions, op.positionCount, cols);
  RowTable& types = context.table(op.types, op.typeCount, cols);
  const auto load = [&](RowTable& table, const RowMap& numbers) {
    for (int b = 0; b < frame.batch; ++b) {
      for (int t = 0; t < tokens; ++t) table.load(static_cast<int>(numbers.row(b)[t]));
    }
  };
  load(words, ids);
  load(positions, positionIds);
  load(types, typeIds);
  const auto rowOf = [](const RowTable& table, float id) {
    return table.row(static_cast<int>(id));
  };
  context.forEach(std::int64_t{frame.batch} * tokens, 10 * cols, [&](std::int64_t i) {
    const std::int64_t sample = i / tokens, t = i % tokens;
    const float* word = rowOf(words, ids.row(sample)[t]);
    const float* type = rowOf(types, typeIds.row(sample)[t]);
    const float* position = rowOf(positions, positionIds.row(sample)[t]);
    float* target = out.row(i);
    for (int c = 0; c < cols; ++c) target[c] = word[c] + type[c] + position[c];
  });
}

void run(const AddRows& op, const Frame& frame, Context& context) {
  const int rows = op.src.rows, cols = op.src.cols;
  LOKO_CHECK(rows <= op.dst.rows && cols == op.dst.cols, "src does not fit dst");
  View target = op.dst;
  target.rows = rows;
  const RowMap src = context.rows(op.src, frame.segments());
  const MutableRowMap dst = context.writableRows(target, frame.segments());
  context.forEach(std::int64_t{frame.segments()} * rows, 10 * cols, [&](std::int64_t i) {
    context.kernels.axpy(dst.row(i), 1.0f, src.row(i), cols);
  });
}

void run(const ClearRows& op, const Frame& frame, Context& context) {
  const MutableRowMap dst = context.writableRows(op.dst, frame.segments());
  const auto bytes = static_cast<std::size_t>(op.dst.cols) * sizeof(float);
  context.forEach(std::int64_t{frame.segments()} * op.dst.rows, 10 * op.dst.cols,
                  [&](std::int64_t i) { std::memset(dst.row(i), 0, bytes); });
}

}  // namespace loko::cpu
