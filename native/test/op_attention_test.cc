#include "op_harness.h"

namespace loko::test {

namespace {

struct Shape {
  int queries, keys, heads, width;
};
// Full attention and the first token alone; head widths below, at and beyond a vector.
constexpr Shape kShapes[] = {{1, 1, 1, 1},   {5, 5, 3, 7},   {17, 17, 1, 48}, {1, 17, 5, 16},
                             {1, 65, 3, 26}, {65, 65, 3, 8}, {5, 17, 1, 130}, {17, 17, 5, 32}};

Attention attention(OpCase& op, const Shape& shape, Role outputs, bool probs, bool masked = false) {
  const int cols = shape.heads * shape.width;
  Attention step;
  step.heads = shape.heads;
  step.scale = 1 / std::sqrt(static_cast<float>(shape.width));
  step.q = op.read(Axis::kSamples, shape.queries, cols);
  step.k = op.read(Axis::kSamples, shape.keys, cols);
  step.v = op.read(Axis::kSamples, shape.keys, cols);
  step.o = op.operand(Axis::kSamples, outputs, shape.queries, cols);
  if (probs) {
    step.probs = op.operand(Axis::kSamples, outputs, shape.heads * shape.queries, shape.keys);
  }
  if (masked) step.mask = op.mask(shape.keys);
  return step;
}

/// `wanted` has a bit for each of dq, dk, dv.
OpCase backwardCase(const Shape& shape, int batch, int rows, Layout layout, int wanted, bool probs,
                    bool masked = false) {
  OpCase op(batch, rows, layout);
  const int cols = shape.heads * shape.width;
  const Attention forward = attention(op, shape, Role::kRead, true, masked);
  op.fill(forward);
  AttentionBackward step;
  step.heads = forward.heads;
  step.scale = forward.scale;
  step.q = forward.q;
  step.k = forward.k;
  step.v = forward.v;
  step.o = forward.o;
  if (probs) step.probs = forward.probs;
  step.mask = forward.mask;
  step.dout = op.read(Axis::kSegments, shape.queries, cols);
  if (wanted & 1) step.dq = op.target(false, shape.queries, cols);
  if (wanted & 2) step.dk = op.target(false, shape.keys, cols);
  if (wanted & 4) step.dv = op.target(false, shape.keys, cols);
  op.step = step;
  return op;
}

}  // namespace

TEST_CASE("Attention agrees with the specification, with and without kept probabilities") {
  for (const Shape& shape : kShapes) {
    for (const Layout layout : kLayouts) {
      for (const int batch : {1, 3}) {
        for (const bool probs : {false, true}) {
          OpCase op(batch, 1, layout);
          op.step = attention(op, shape, Role::kWritten, probs);
          checkStep(op);
        }
      }
    }
  }
}

TEST_CASE("Attention over the keys that a mask leaves agrees with the specification") {
  for (const Shape& shape : kShapes) {
    for (const Layout layout : kLayouts) {
      for (const bool probs : {false, true}) {
        OpCase op(3, 1, layout);
        op.step = attention(op, shape, Role::kWritten, probs, true);
        checkStep(op);
        checkStep(backwardCase(shape, 3, 2, layout, 7, probs, true));
      }
    }
  }
}

TEST_CASE("a masked key has probability 0 and no influence, to the bit") {
  // Whatever stands in the rows of k and v that are hidden, all other results are the same bits. What
  // is not hidden must lie in the same places, since the order of a sum depends on them.
  for (const Candidate& candidate : candidates()) {
    CAPTURE(candidate.name);
    OpCase op(2, 1);
    const Attention step = attention(op, {5, 17, 3, 7}, Role::kWritten, true, true);
    op.step = step;
    OpCase other = op;
    for (int s = 0; s < 2; ++s) {
      for (int j = 0; j < step.k.rows; ++j) {
        if (op.input[static_cast<std::size_t>(step.mask.offset + s * step.mask.sampleStride + j)] ==
            0) {
          continue;
        }
        for (const View& view : {step.k, step.v}) {
          for (int c = 0; c < view.cols; ++c) {
            other.scratch[static_cast<std::size_t>(view.offset + s * view.sampleStride +
                                                   j * view.ld + c)] = 100.0f + 10.0f * j;
          }
        }
      }
    }
    Runner runner(candidate, 1, op);
    const Outcome first = runner.run(op, 0), second = runner.run(other, 0);
    for (std::size_t i = 0; i < first.scratch.size(); ++i) {
      if (op.isOutput(i)) CHECK(sameBits(first.scratch[i], second.scratch[i]));
    }
    for (int s = 0; s < 2; ++s) {
      for (int t = 0; t < step.probs.rows; ++t) {
        for (int j = 0; j < step.k.rows; ++j) {
          const bool hidden = op.input[static_cast<std::size_t>(
                                  step.mask.offset + s * step.mask.sampleStride + j)] < 0;
          const double prob = first.scratch[static_cast<std::size_t>(
              step.probs.offset + s * step.probs.sampleStride + t * step.probs.ld + j)];
          CHECK((prob == 0) == hidden);
        }
      }
    }
  }
}

TEST_CASE("Attention survives scores beyond the range of exp") {
  OpCase op(1, 1);
  Attention step = attention(op, {5, 17, 1, 16}, Role::kWritten, true);
  step.scale = 512;  // scores of several thousand: exp overflows unless the maximum is taken off
  for (float& value : op.scratch) value = std::round(value);  // exact scores
  op.step = step;
  checkStep(op);
}

TEST_CASE("AttentionBackward agrees with the specification for every set of wanted cotangents") {
  int variant = 0;
  for (const auto& [batch, rows] : kSegments) {
    for (const Shape& shape : kShapes) {
      for (int wanted = 1; wanted < 8; ++wanted, ++variant) {
        checkStep(
            backwardCase(shape, batch, rows, kLayouts[variant % 3], wanted, variant % 2 == 0));
      }
    }
  }
}

TEST_CASE("Attention over more tokens than a cache holds is exact to the same bound") {
  // The CPU backend takes queries in blocks beyond 65,536 probabilities, and cotangent rows in chunks
  // beyond 131,072; the CUDA backend keeps 128 or 512 scores of a row in registers.
  for (const Shape& shape :
       {Shape{300, 300, 1, 4}, Shape{1, 300, 1, 4}, Shape{130, 130, 2, 4}, Shape{3, 513, 1, 4}}) {
    for (const bool probs : {false, true}) {
      OpCase op(1, 1, Layout::kMixed);
      op.step = attention(op, shape, Role::kWritten, probs);
      checkStep(op);
      checkStep(backwardCase(shape, 1, 9, Layout::kMixed, 7, probs));
      checkStep(backwardCase(shape, 2, 2, Layout::kSliced, 7, probs));
      checkStep(backwardCase(shape, 2, 2, Layout::kDense, 7, probs, true));
    }
  }
}

}  // namespace loko::test
