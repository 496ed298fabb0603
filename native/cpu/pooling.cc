// Pooling and the other operations of convolutional nets that only pass over memory. Backward runs over
// input pixels and collects from the windows that hold each one, so that no two threads write one place.
#include <cstring>

#include "cpu/context.h"

namespace loko::cpu {

namespace {

void expectPixels(const Window& window, const View& input, const View& output) {
  expectShape(input, window.input.pixels(), output.cols, "the input of a window");
  expectShape(output, window.output.pixels(), output.cols, "the output of a window");
}

/// Calls visit(tap, input pixel) for every tap of an output pixel inside the image.
template <class Visit>
void forEachTap(const Window& w, int output, Visit visit) {
  const int top = output / w.output.width * w.stride.height - w.padding.height;
  const int left = output % w.output.width * w.stride.width - w.padding.width;
  for (int ky = 0; ky < w.kernel.height; ++ky) {
    const int y = top + ky * w.dilation.height;
    if (y < 0 || y >= w.input.height) continue;
    for (int kx = 0; kx < w.kernel.width; ++kx) {
      const int x = left + kx * w.dilation.width;
      if (x >= 0 && x < w.input.width) visit(ky * w.kernel.width + kx, y * w.input.width + x);
    }
  }
}

/// Calls visit(tap, output pixel) for every output pixel that has an input pixel as a tap.
template <class Visit>
void forEachWindow(const Window& w, int input, Visit visit) {
  const int y = input / w.input.width + w.padding.height;
  const int x = input % w.input.width + w.padding.width;
  for (int ky = 0; ky < w.kernel.height; ++ky) {
    const int down = y - ky * w.dilation.height, oy = down / w.stride.height;
    if (down < 0 || down % w.stride.height != 0 || oy >= w.output.height) continue;
    for (int kx = 0; kx < w.kernel.width; ++kx) {
      const int across = x - kx * w.dilation.width, ox = across / w.stride.width;
      if (across < 0 || across % w.stride.width != 0 || ox >= w.output.width) continue;
      visit(ky * w.kernel.width + kx, oy * w.output.width + ox);
    }
  }
}

/// What the sum of a window is divided by.
int divisorOf(const Window& w, bool countIncludePad, int output) {
  const auto along = [&](int begin, int kernel, int input, int padding) {
    if (!countIncludePad) return std::min(begin + kernel, input) - std::max(begin, 0);
    return std::min(begin + kernel, input + padding) - begin;
  };
  return along(output / w.output.width * w.stride.height - w.padding.height, w.kernel.height,
               w.input.height, w.padding.height) *
         along(output % w.output.width * w.stride.width - w.padding.width, w.kernel.width,
               w.input.width, w.padding.width);
}

/// Runs `collect(row of dx, segment, input pixel)` for every row of dx, cleared first unless it is added to.
template <class Collect>
void forEachInput(const View& dxView, bool accumulate, int taps, const Frame& frame,
                  Context& context, Collect collect) {
  const MutableRowMap dx = context.writableRows(dxView, frame.segments());
  const int pixels = dxView.rows, cols = dxView.cols;
  context.forEach(std::int64_t{frame.segments()} * pixels,
                  std::int64_t{2} * cols * std::min(taps, 16), [&](std::int64_t i) {
                    float* row = dx.row(i);
                    if (!accumulate) std::fill_n(row, cols, 0.0f);
                    collect(row, i / pixels, static_cast<int>(i % pixels));
                  });
}

}  // namespace

void run(const MaxPool& op, const Frame& frame, Context& context) {
  const int cols = op.x.cols, pixels = op.y.rows;
  expectPixels(op.window, op.x, op.y);
  if (op.index.present()) expectShape(op.index, pixels, cols, "index");
  const RowMap x = context.rows(op.x, frame.batch);
  const MutableRowMap y = context.writableRows(op.y, frame.batch);
  const MutableRowMap index = context.writableRows(op.index, frame.batch);
  context.forEach(std::int64_t{frame.batch} * pixels, std::int64_t{2} * cols * op.window.taps(),
                  [&](std::int64_t i) {
                    float* best = y.row(i);
                    float* found = index ? index.row(i) : nullptr;
                    const std::int64_t sample = i / pixels * op.x.rows;
                    bool first = true;
                    forEachTap(op.window, static_cast<int>(i % pixels), [&](int tap, int pixel) {
                      const float* source = x.row(sample + pixel);
                      const auto number = static_cast<float>(tap);
                      if (first) {
                        std::copy_n(source, cols, best);
                        if (found) std::fill_n(found, cols, number);
                        first = false;
                      } else {
                        context.ops.maxUpdate(best, found, source, number, cols);
                      }
                    });
                  });
}

void run(const MaxPoolBackward& op, const Frame& frame, Context& context) {
  const int cols = op.dx.cols, pixels = op.dy.rows;
  expectPixels(op.window, op.dx, op.dy);
  expectShape(op.index, pixels, cols, "index");
  const RowMap dy = context.rows(op.dy, frame.segments()),
               index = context.rows(op.index, frame.batch);
  forEachInput(op.dx, op.accumulate, op.window.taps(), frame, context,
               [&](float* row, std::int64_t segment, int pixel) {
                 forEachWindow(op.window, pixel, [&](int tap, int output) {
                   context.ops.addWhereEqual(row, dy.row(segment * pixels + output),
                                             index.row(segment % frame.batch * pixels + output),
                                             static_cast<float>(tap), cols);
                 });
               });
}

void run(const AvgPool& op, const Frame& frame, Context& context) {
  const int cols = op.x.cols, pixels = op.y.rows;
  expectPixels(op.window, op.x, op.y);
  const RowMap x = context.rows(op.x, frame.batch);
  const MutableRowMap y = context.writableRows(op.y, frame.batch);
  context.forEach(std::int64_t{frame.batch} * pixels, std::int64_t{2} * cols * op.window.taps(),
                  [&](std::int64_t i) {
                    const int output = static_cast<int>(i % pixels);
                    const std::int64_t sample = i / pixels * op.x.rows;
                    float* sum = y.row(i);
                    std::fill_n(sum, cols, 0.0f);
                    forEachTap(op.window, output, [&](int, int pixel) {
                      context.kernels.axpy(sum, 1.0f, x.row(sample + pixel), cols);
                    });
                    const int divisor = divisorOf(op.window, op.countIncludePad, output);
                    context.kernels.scale(sum, 1.0f / static_cast<float>(divisor), sum, cols);
                  });
}

void run(const AvgPoolBackward& op, const Frame& frame, Context& context) {
  const int cols = op.dx.cols, pixels = op.dy.rows;
  expectPixels(op.window, op.dx, op.dy);
  const RowMap dy = context.rows(op.dy, frame.segments());
  forEachInput(op.dx, op.accumulate, op.window.taps(), frame, context,
               [&](float* row, std::int64_t segment, int pixel) {
                 forEachWindow(op.window, pixel, [&](int, int output) {
                   const int divisor = divisorOf(op.window, op.countIncludePad, output);
                   context.kernels.axpy(row, 1.0f / static_cast<float>(divisor),
                                        dy.row(segment * pixels + output), cols);
                 });
               });
}

void run(const MeanRows& op, const Frame& frame, Context& context) {
  constexpr int kColumns = 256;  // of one task
  const int rows = op.x.rows, cols = op.x.cols, tasks = (cols + kColumns - 1) / kColumns;
  expectShape(op.y, 1, cols, "y");
  const RowMap x = context.rows(op.x, frame.batch);
  const MutableRowMap y = context.writableRows(op.y, frame.batch);
  context.forEach(
      std::int64_t{frame.batch} * tasks, std::int64_t{4} * rows * kColumns, [&](std::int64_t i) {
        const std::int64_t sample = i / tasks;
        const int begin = static_cast<int>(i % tasks) * kColumns;
        const int count = std::min(kColumns, cols - begin);
        float* sum = y.row(sample) + begin;
        std::fill_n(sum, count, 0.0f);
        for (int t = op.skip; t < rows; ++t) {
          context.kernels.axpy(sum, 1.0f, x.row(sample * rows + t) + begin, count);
        }
        context.kernels.scale(sum, 1.0f / static_cast<float>(rows - op.skip), sum, count);
      });
}

void run(const MeanRowsBackward& op, const Frame& frame, Context& context) {
  const int rows = op.dx.rows, cols = op.dx.cols;
  expectShape(op.dy, 1, cols, "dy");
  const RowMap dy = context.rows(op.dy, frame.segments());
  const float share = 1.0f / static_cast<float>(rows - op.skip);
  forEachInput(op.dx, op.accumulate, 1, frame, context,
               [&](float* row, std::int64_t segment, int pixel) {
                 if (pixel >= op.skip) context.kernels.axpy(row, share, dy.row(segment), cols);
               });
}

void run(const CopyRows& op, const Frame& frame, Context& context) {
  expectShape(op.dst, op.src.rows, op.src.cols, "dst");
  const RowMap src = context.rows(op.src, frame.batch);
  const MutableRowMap dst = context.writableRows(op.dst, frame.batch);
  context.forEach(std::int64_t{frame.batch} * op.src.rows, 10 * op.src.cols,
                  [&](std::int64_t i) { std::copy_n(src.row(i), op.src.cols, dst.row(i)); });
}

void run(const Flatten& op, const Frame& frame, Context& context) {
  expectShape(op.y, 1, op.x.rows * op.x.cols, "y");
  const float* x = context.at(op.x, frame.batch);
  float* y = context.at(op.y, frame.batch);
  context.forEach(frame.batch, std::int64_t{10} * op.y.cols, [&](std::int64_t b) {
    context.ops.storeTransposed(y + b * op.y.sampleStride, op.x.rows, x + b * op.x.sampleStride,
                                op.x.ld, op.x.rows, op.x.cols, false);
  });
}

void run(const FlattenBackward& op, const Frame& frame, Context& context) {
  expectShape(op.dy, 1, op.dx.rows * op.dx.cols, "dy");
  const float* dy = context.at(op.dy, frame.segments());
  float* dx = context.at(op.dx, frame.segments());
  context.forEach(frame.segments(), std::int64_t{10} * op.dy.cols, [&](std::int64_t s) {
    context.ops.storeTransposed(dx + s * op.dx.sampleStride, op.dx.ld, dy + s * op.dy.sampleStride,
                                op.dx.rows, op.dx.cols, op.dx.rows, op.accumulate);
  });
}

}  // namespace loko::cpu
