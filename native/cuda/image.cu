// Batch norm, pooling, and what moves pixels. Every output element gathers what it is made of, backward
// too, so nothing is added from two sides.

#include <algorithm>

#include "cuda/element.cuh"
#include "cuda/window.cuh"

namespace loko::cuda {

namespace {

__device__ int along(int begin, int kernel, int input, int padding, bool countIncludePad) {
  const int last = countIncludePad ? input + padding : input;
  const int first = countIncludePad || begin > 0 ? begin : 0;
  return (begin + kernel < last ? begin + kernel : last) - first;
}

__device__ float divisorOf(const Window& window, bool countIncludePad, int outputPixel) {
  const int y = outputPixel / window.output.width, x = outputPixel % window.output.width;
  return static_cast<float>(
      along(y * window.stride.height - window.padding.height, window.kernel.height,
            window.input.height, window.padding.height, countIncludePad) *
      along(x * window.stride.width - window.padding.width, window.kernel.width, window.input.width,
            window.padding.width, countIncludePad));
}

struct BatchNormElement {
  Rows x, y;
  const float* scale;
  const float* shift;
  bool relu;
  __device__ void operator()(int b, int t, int c) const {
    const float z = scale[c] * x.at(b, t)[c] + shift[c];
    y.at(b, t)[c] = relu && z < 0 ? 0 : z;  // NaN passes
  }
};

struct BatchNormBackwardElement {
  Rows dy, dx, x;
  const float* scale;
  const float* shift;
  bool relu, accumulate;
  __device__ void operator()(int s, int t, int c) const {
    const bool flat = relu && !(scale[c] * x.at(s, t)[c] + shift[c] > 0);
    float value = flat ? 0 : scale[c] * dy.at(s, t)[c];
    if (accumulate) value += dx.at(s, t)[c];
    dx.at(s, t)[c] = value;
  }
};

struct MaxPoolElement {
  Rows x, y, index;
  Window window;
  __device__ void operator()(int b, int p, int c) const {
    float best = 0;
    int found = -1;
    for (int tap = 0; tap < tapsOf(window); ++tap) {
      const int q = tapPixel(window, p, tap);
      if (q < 0) continue;
      const float value = x.at(b, q)[c];
      if (found < 0 || value > best || value != value) {
        best = value;
        found = tap;
      }
    }
    y.at(b, p)[c] = best;
    if (index.present()) index.at(b, p)[c] = static_cast<float>(found);
  }
};

struct MaxPoolBackwardElement {
  Rows dy, dx, index;
  Window window;
  bool accumulate;
  __device__ void operator()(int s, int q, int c) const {
    float sum = accumulate ? dx.at(s, q)[c] : 0;
    for (int tap = 0; tap < tapsOf(window); ++tap) {
      const int p = outputOfTap(window, q, tap);
      if (p >= 0 && index.at(s, p)[c] == static_cast<float>(tap)) sum += dy.at(s, p)[c];
    }
    dx.at(s, q)[c] = sum;
  }
};

struct AvgPoolElement {
  Rows x, y;
  Window window;
  bool countIncludePad;
  __device__ void operator()(int b, int p, int c) const {
    float sum = 0;
    for (int tap = 0; tap < tapsOf(window); ++tap) {
      const int q = tapPixel(window, p, tap);
      if (q >= 0) sum += x.at(b, q)[c];
    }
    y.at(b, p)[c] = sum / divisorOf(window, countIncludePad, p);
  }
};

struct AvgPoolBackwardElement {
  Rows dy, dx;
  Window window;
  bool countIncludePad, accumulate;
  __device__ void operator()(int s, int q, int c) const {
    float sum = accumulate ? dx.at(s, q)[c] : 0;
    for (int tap = 0; tap < tapsOf(window); ++tap) {
      const int p = outputOfTap(window, q, tap);
      if (p >= 0) sum += dy.at(s, p)[c] / divisorOf(window, countIncludePad, p);
    }
    dx.at(s, q)[c] = sum;
  }
};

struct MeanRowsElement {
  Rows x, y;
  int rows, skip;
  __device__ void operator()(int b, int, int c) const {
    float sum = 0;
    for (int t = skip; t < rows; ++t) sum += x.at(b, t)[c];
    y.at(b, 0)[c] = sum / static_cast<float>(rows - skip);
  }
};

struct MeanRowsBackwardElement {
  Rows dy, dx;
  int rows, skip;
  bool accumulate;
  __device__ void operator()(int s, int t, int c) const {
    float value = t < skip ? 0 : dy.at(s, 0)[c] / static_cast<float>(rows - skip);
    if (accumulate) value += dx.at(s, t)[c];
    dx.at(s, t)[c] = value;
  }
};

struct FlattenElement {
  Rows x, y;
  int rows;
  __device__ void operator()(int b, int t, int c) const {
    y.at(b, 0)[static_cast<std::int64_t>(c) * rows + t] = x.at(b, t)[c];
  }
};

struct FlattenBackwardElement {
  Rows dy, dx;
  int rows;
  bool accumulate;
  __device__ void operator()(int s, int t, int c) const {
    float value = dy.at(s, 0)[static_cast<std::int64_t>(c) * rows + t];
    if (accumulate) value += dx.at(s, t)[c];
    dx.at(s, t)[c] = value;
  }
};

void expectPixels(const Window& window, const View& input, const View& output) {
  expectShape(input, window.input.pixels(), input.cols, "the input of a window");
  expectShape(output, window.output.pixels(), input.cols, "the output of a window");
}

}  // namespace

void run(const BatchNorm& op, const Frame& frame, Context& context) {
  const int rows = op.x.rows, cols = op.x.cols;
  expectShape(op.y, rows, cols, "y");
  const BatchNormElement element{context.rows(op.x, frame.batch), context.rows(op.y, frame.batch),
                                 context.vector(op.scale, cols), context.vector(op.shift, cols),
                                 op.relu};
  forEachElement("batch norm", frame.batch, rows, cols, element, context);
}

void run(const BatchNormBackward& op, const Frame& frame, Context& context) {
  const int rows = op.dy.rows, cols = op.dy.cols, segments = frame.segments();
  expectShape(op.dx, rows, cols, "dx");
  expectShape(op.x, rows, cols, "x");
  const BatchNormBackwardElement element{context.rows(op.dy, segments),
                                         context.rows(op.dx, segments),
                                         context.rows(op.x, frame.batch),
                                         context.vector(op.scale, cols),
                                         context.vector(op.shift, cols),
                                         op.relu,
                                         op.accumulate};
  forEachElement("batch norm cotangent", segments, rows, cols, element, context);
}

void run(const MaxPool& op, const Frame& frame, Context& context) {
  expectPixels(op.window, op.x, op.y);
  if (op.index.present()) expectShape(op.index, op.y.rows, op.y.cols, "index");
  const MaxPoolElement element{context.rows(op.x, frame.batch), context.rows(op.y, frame.batch),
                               context.rows(op.index, frame.batch), op.window};
  forEachElement("max pool", frame.batch, op.y.rows, op.y.cols, element, context);
}

void run(const MaxPoolBackward& op, const Frame& frame, Context& context) {
  expectPixels(op.window, op.dx, op.dy);
  expectShape(op.index, op.dy.rows, op.dy.cols, "index");
  const int segments = frame.segments();
  const MaxPoolBackwardElement element{context.rows(op.dy, segments), context.rows(op.dx, segments),
                                       context.rows(op.index, frame.batch), op.window,
                                       op.accumulate};
  forEachElement("max pool cotangent", segments, op.dx.rows, op.dx.cols, element, context);
}

void run(const AvgPool& op, const Frame& frame, Context& context) {
  expectPixels(op.window, op.x, op.y);
  const AvgPoolElement element{context.rows(op.x, frame.batch), context.rows(op.y, frame.batch),
                               op.window, op.countIncludePad};
  forEachElement("average pool", frame.batch, op.y.rows, op.y.cols, element, context);
}

void run(const AvgPoolBackward& op, const Frame& frame, Context& context) {
  expectPixels(op.window, op.dx, op.dy);
  const int segments = frame.segments();
  const AvgPoolBackwardElement element{context.rows(op.dy, segments), context.rows(op.dx, segments),
                                       op.window, op.countIncludePad, op.accumulate};
  forEachElement("average pool cotangent", segments, op.dx.rows, op.dx.cols, element, context);
}

void run(const MeanRows& op, const Frame& frame, Context& context) {
  expectShape(op.y, 1, op.x.cols, "y");
  const MeanRowsElement element{context.rows(op.x, frame.batch), context.rows(op.y, frame.batch),
                                op.x.rows, op.skip};
  forEachElement("mean of rows", frame.batch, 1, op.y.cols, element, context);
}

void run(const MeanRowsBackward& op, const Frame& frame, Context& context) {
  expectShape(op.dy, 1, op.dx.cols, "dy");
  const int segments = frame.segments();
  const MeanRowsBackwardElement element{context.rows(op.dy, segments),
                                        context.rows(op.dx, segments), op.dx.rows, op.skip,
                                        op.accumulate};
  forEachElement("mean of rows cotangent", segments, op.dx.rows, op.dx.cols, element, context);
}

void run(const Flatten& op, const Frame& frame, Context& context) {
  expectShape(op.y, 1, op.x.rows * op.x.cols, "y");
  const FlattenElement element{context.rows(op.x, frame.batch), context.rows(op.y, frame.batch),
                               op.x.rows};
  forEachElement("flatten", frame.batch, op.x.rows, op.x.cols, element, context);
}

void run(const FlattenBackward& op, const Frame& frame, Context& context) {
  expectShape(op.dy, 1, op.dx.rows * op.dx.cols, "dy");
  const int segments = frame.segments();
  const FlattenBackwardElement element{context.rows(op.dy, segments), context.rows(op.dx, segments),
                                       op.dx.rows, op.accumulate};
  forEachElement("flatten cotangent", segments, op.dx.rows, op.dx.cols, element, context);
}

}  // namespace loko::cuda
