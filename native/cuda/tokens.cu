// Operations that move rows: image to patches to tokens, and whole rows of cotangents.

#include <algorithm>

#include "cuda/activation.cuh"
#include "cuda/element.cuh"

namespace loko::cuda {

namespace {

struct PatchifyElement {
  Rows image, patches;
  int height, side, across;

  __device__ void operator()(int b, int patch, int feature) const {
    const int x = feature % side, y = feature / side % side, channel = feature / (side * side);
    const int row = channel * height + patch / across * side + y;
    patches.at(b, patch)[feature] = image.at(b, row)[patch % across * side + x];
  }
};

struct AssembleElement {
  Rows patches, tokens;
  const float* cls;
  const float* pos;
  int cols;

  __device__ void operator()(int b, int t, int c) const {
    const float value = t == 0 ? cls[c] : patches.at(b, t - 1)[c];
    tokens.at(b, t)[c] = value + pos[static_cast<std::int64_t>(t) * cols + c];
  }
};

struct EmbedElement {
  Rows ids, positionIds, typeIds, out;
  const float* words;
  const float* positions;
  const float* types;
  int cols;

  __device__ void operator()(int b, int t, int c) const {
    const auto element = [&](const float* table, const Rows& numbers) {
      return table[static_cast<std::int64_t>(numbers.at(b, 0)[t]) * cols + c];
    };
    out.at(b, t)[c] =
        element(words, ids) + element(types, typeIds) + element(positions, positionIds);
  }
};

struct CopyElement {
  Rows src, dst;
  __device__ void operator()(int s, int t, int c) const { dst.at(s, t)[c] = src.at(s, t)[c]; }
};

struct AddElement {
  Rows src, dst;
  __device__ void operator()(int s, int t, int c) const { dst.at(s, t)[c] += src.at(s, t)[c]; }
};

struct ClearElement {
  Rows dst;
  __device__ void operator()(int s, int t, int c) const { dst.at(s, t)[c] = 0; }
};

struct DerivativeElement {
  Rows dy, factor;
  bool ofRelu;
  __device__ void operator()(int s, int t, int c) const {
    float& value = dy.at(s, t)[c];
    value = timesDerivative(ofRelu, value, factor.at(s, t)[c]);
  }
};

}  // namespace

void run(const Patchify& op, const Frame& frame, Context& context) {
  const int down = op.height / op.patch, across = op.width / op.patch;
  const int features = op.channels * op.patch * op.patch;
  expectShape(op.image, op.channels * op.height, op.width, "image");
  expectShape(op.patches, down * across, features, "patches");
  const PatchifyElement element{context.rows(op.image, frame.batch),
                                context.rows(op.patches, frame.batch), op.height, op.patch, across};
  forEachElement("patchify", frame.batch, down * across, features, element, context);
}

void run(const AssembleTokens& op, const Frame& frame, Context& context) {
  const int rows = op.patches.rows, cols = op.patches.cols;
  expectShape(op.tokens, 1 + rows, cols, "tokens");
  const AssembleElement element{context.rows(op.patches, frame.batch),
                                context.rows(op.tokens, frame.batch), context.vector(op.cls, cols),
                                context.vector(op.pos, std::int64_t{1 + rows} * cols), cols};
  forEachElement("assemble tokens", frame.batch, 1 + rows, cols, element, context);
}

void run(const EmbedTokens& op, const Frame& frame, Context& context) {
  const int tokens = op.out.rows, cols = op.out.cols, batch = frame.batch;
  expectShape(op.ids, 1, tokens, "ids");
  expectShape(op.positionIds, 1, tokens, "positionIds");
  expectShape(op.typeIds, 1, tokens, "typeIds");
  const EmbedElement element{context.rows(op.ids, batch),
                             context.rows(op.positionIds, batch),
                             context.rows(op.typeIds, batch),
                             context.rows(op.out, batch),
                             context.vector(op.words, std::int64_t{op.vocabulary} * cols),
                             context.vector(op.positions, std::int64_t{op.positionCount} * cols),
                             context.vector(op.types, std::int64_t{op.typeCount} * cols),
                             cols};
  forEachElement("embed tokens", batch, tokens, cols, element, context);
}

void run(const CopyRows& op, const Frame& frame, Context& context) {
  expectShape(op.dst, op.src.rows, op.src.cols, "dst");
  const CopyElement element{context.rows(op.src, frame.batch), context.rows(op.dst, frame.batch)};
  forEachElement("copy rows", frame.batch, op.src.rows, op.src.cols, element, context);
}

void run(const AddRows& op, const Frame& frame, Context& context) {
  LOKO_CHECK(op.src.rows <= op.dst.rows && op.src.cols == op.dst.cols, "src does not fit dst");
  const int segments = frame.segments();
  const AddElement element{context.rows(op.src, segments), context.rows(op.dst, segments)};
  forEachElement("add rows", segments, op.src.rows, op.src.cols, element, context);
}

void run(const ClearRows& op, const Frame& frame, Context& context) {
  const int segments = frame.segments();
  const ClearElement element{context.rows(op.dst, segments)};
  forEachElement("clear rows", segments, op.dst.rows, op.dst.cols, element, context);
}

void run(const ActivationBackward& op, const Frame& frame, Context& context) {
  expectShape(op.derivative.factor, op.dy.rows, op.dy.cols, "derivative");
  const int segments = frame.segments();
  const DerivativeElement element{context.rows(op.dy, segments),
                                  context.rows(op.derivative.factor, frame.batch),
                                  op.derivative.ofRelu};
  forEachElement("activation cotangent", segments, op.dy.rows, op.dy.cols, element, context);
}

}  // namespace loko::cuda
