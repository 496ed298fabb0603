// The nodes of convolutional nets: their shapes.

#include <algorithm>
#include <limits>
#include <utility>

#include "core/graph.h"
#include "core/status.h"

namespace loko {

namespace {

constexpr std::int64_t kMaxInt = std::numeric_limits<int>::max();

std::string describe(Extent extent) {
  return std::to_string(extent.height) + "x" + std::to_string(extent.width);
}

std::string describe(const ValueShape& shape) {
  return "[" + std::to_string(shape.rows) + ", " + std::to_string(shape.cols) + "]";
}

void require(bool fits, const std::string& expected, const std::string& received) {
  if (!fits) {
    throw Error(ErrorCode::kShapeMismatch, "Expected " + expected + " but received " + received);
  }
}

Extent gridOf(const ValueShape& shape) {
  require(shape.grid.has_value(), "a value with pixels", describe(shape));
  return *shape.grid;
}

enum class Rounding : std::uint8_t { kDown, kUp };

/// Positions of a kernel along one side; at most 0 where it does not fit. Rounded up, the last one must
/// begin inside the image or the padding before it (PyTorch's ceil_mode).
std::int64_t positions(std::int64_t input, std::int64_t kernel, std::int64_t stride,
                       std::int64_t padding, std::int64_t dilation, Rounding rounding) {
  const std::int64_t room = input + 2 * padding - dilation * (kernel - 1) - 1;
  if (room < 0) return 0;
  if (rounding == Rounding::kDown) return room / stride + 1;
  const std::int64_t count = (room + stride - 1) / stride + 1;
  return (count - 1) * stride >= input + padding ? count - 1 : count;
}

/// The window over `input`, with all that follows from it.
Window completed(Window window, Extent input, Rounding rounding) {
  for (const Extent& extent : {window.kernel, window.stride, window.dilation}) {
    require(extent.height > 0 && extent.width > 0, "a positive kernel, stride and dilation",
            describe(extent));
  }
  require(window.padding.height >= 0 && window.padding.width >= 0, "a padding of at least 0",
          describe(window.padding));
  const std::int64_t taps = std::int64_t{window.kernel.height} * window.kernel.width;
  require(taps <= 1 << 24, "a kernel of at most 2^24 taps", describe(window.kernel));
  const std::int64_t height = positions(input.height, window.kernel.height, window.stride.height,
                                        window.padding.height, window.dilation.height, rounding);
  const std::int64_t width = positions(input.width, window.kernel.width, window.stride.width,
                                       window.padding.width, window.dilation.width, rounding);
  require(height > 0 && width > 0,
          "a kernel that fits in " + describe(input) + " pixels with a padding of " +
              describe(window.padding),
          describe(window.kernel) + " with a dilation of " + describe(window.dilation));
  // Positions of taps are computed in int, so the padded image must fit in it, too.
  const auto reach = [](std::int64_t size, std::int64_t padding, std::int64_t kernel,
                        std::int64_t dilation, std::int64_t stride) {
    return size + 2 * padding + dilation * kernel + stride <= kMaxInt / 2;
  };
  require(height <= kMaxInt && width <= kMaxInt && height * width <= kMaxInt &&
              reach(input.height, window.padding.height, window.kernel.height,
                    window.dilation.height, window.stride.height) &&
              reach(input.width, window.padding.width, window.kernel.width, window.dilation.width,
                    window.stride.width),
          "an output and a padded input of less than 2^30 pixels each way and 2^31 in all",
          std::to_string(height) + "x" + std::to_string(width));
  window.input = input;
  window.output = {static_cast<int>(height), static_cast<int>(width)};
  return window;
}

void requireEps(const BatchNormSpec& norm) {
  require(norm.eps >= 0 && norm.eps <= 1, "an eps of a batch norm in [0, 1]",
          std::to_string(norm.eps));
}

}  // namespace

ValueId Graph::conv2d(ConvNode node) {
  const ValueShape x = shape(node.input);
  LinearPart& part = node.part;
  node.window = completed(node.window, gridOf(x), Rounding::kDown);
  require(
      part.out > 0 && node.groups > 0 && part.out % node.groups == 0 && x.cols % node.groups == 0,
      "a number of groups that divides " + std::to_string(x.cols) + " and " +
          std::to_string(part.out) + " channels of " + part.module,
      std::to_string(node.groups));
  // A row of the packed matrix and a row of A are addressed by int.
  require(std::int64_t{x.cols} * node.window.taps() <= kMaxInt,
          "a kernel of " + part.module + " with less than 2^31 weights for each output",
          describe(node.window.kernel) + " of " + std::to_string(x.cols) + " channels");
  if (node.norm) requireEps(*node.norm);
  const ValueShape y{node.window.output.pixels(), part.out, node.window.output};
  if (node.residual != kNoValue) {
    const ValueShape r = shape(node.residual);
    require(r.rows == y.rows && r.cols == y.cols, "a residual of shape " + describe(y),
            describe(r));
  }
  const ValueId output = part.output = add(y);
  nodes_.push_back(std::move(node));
  return output;
}

ValueId Graph::batchNorm(ValueId input, BatchNormSpec norm, bool relu) {
  requireEps(norm);
  const ValueId output = add(shape(input));
  nodes_.push_back(BatchNormNode{input, output, std::move(norm), relu});
  return output;
}

ValueId Graph::pool(PoolNode node, bool ceilMode) {
  const ValueShape x = shape(node.input);
  const Window& window = node.window;
  // So that every window holds at least one pixel (PyTorch's rule).
  require(window.padding.height <= window.kernel.height / 2 &&
              window.padding.width <= window.kernel.width / 2,
          "a padding of at most half the kernel " + describe(window.kernel),
          describe(window.padding));
  // A tap's number travels as float32.
  require(std::int64_t{window.kernel.height} * window.kernel.width <= 1 << 24,
          "a kernel of at most 2^24 taps", describe(window.kernel));
  node.window = completed(window, gridOf(x), ceilMode ? Rounding::kUp : Rounding::kDown);
  node.output = add({node.window.output.pixels(), x.cols, node.window.output});
  nodes_.push_back(node);
  return values() - 1;
}

ValueId Graph::maxPool(ValueId input, const Window& window, bool ceilMode) {
  return pool({input, kNoValue, Pooling::kMax, window}, ceilMode);
}

ValueId Graph::avgPool(ValueId input, const Window& window, bool ceilMode, bool countIncludePad) {
  return pool({input, kNoValue, Pooling::kAverage, window, countIncludePad}, ceilMode);
}

ValueId Graph::meanRows(ValueId input, int skip) {
  const ValueShape x = shape(input);
  require(x.rows != kTokenRows && skip >= 0 && skip < x.rows,
          "at least one row after those skipped of " + describe(x), std::to_string(skip));
  const ValueId output = add({1, x.cols, {}});
  nodes_.push_back(MeanRowsNode{input, output, skip});
  return output;
}

ValueId Graph::concat(std::vector<ValueId> inputs) {
  require(!inputs.empty(), "at least one value to concatenate", "none");
  const ValueShape first = shape(inputs[0]);
  std::int64_t cols = 0;
  for (const ValueId input : inputs) {
    const ValueShape x = shape(input);
    require(x.rows == first.rows, "values of " + std::to_string(first.rows) + " rows", describe(x));
    cols += x.cols;
  }
  require(cols <= kMaxInt, "less than 2^31 columns", std::to_string(cols));
  const ValueId output = add({first.rows, static_cast<int>(cols), first.grid});
  nodes_.push_back(ConcatNode{std::move(inputs), output});
  return output;
}

ValueId Graph::flatten(ValueId input) {
  const ValueShape x = shape(input);
  const std::int64_t cols = std::int64_t{x.rows} * x.cols;
  require(x.rows > 0 && cols <= kMaxInt, "a value of less than 2^31 numbers", describe(x));
  const ValueId output = add({1, static_cast<int>(cols), {}});
  nodes_.push_back(FlattenNode{input, output});
  return output;
}

}  // namespace loko
