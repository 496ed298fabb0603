#include "op_harness.h"
#include "op_windows.h"

namespace loko::test {

namespace {

std::vector<ConvCase> allCases() {
  std::vector<ConvCase> cases = convCases();
  for (const ConvCase& one : largeConvCases()) cases.push_back(one);
  return cases;
}

bool isLarge(const ConvCase& shape) {
  return shape.window.input.pixels() * shape.in * shape.out > 50000;
}

/// A site for each group, of rank 2 times `wide`, or two sites where there are no groups.
std::vector<LoraSite> addSites(OpCase& op, const ConvCase& shape, bool scaled, bool writesBlocks) {
  std::vector<LoraSite> sites;
  const int rowOfA = shape.in * shape.window.taps(), out = shape.out / shape.groups;
  if (shape.groups > 1) {
    for (int g = 0; g < shape.groups; ++g) {
      sites.push_back(op.site(2, rowOfA, g * out, (g + 1) * out, 2 * g, writesBlocks));
    }
  } else {
    sites.push_back(op.site(3, rowOfA, 0, shape.out, 0, writesBlocks));
  }
  if (scaled) {
    const WeightId scale = op.vector(shape.out);
    for (LoraSite& site : sites) site.outputScale = scale;
  }
  return sites;
}

int columnsOf(const std::vector<LoraSite>& sites) {
  return sites.back().hBegin + sites.back().rank;
}

std::vector<WeightId> addWeights(OpCase& op, const ConvCase& shape) {
  std::vector<WeightId> weights;
  for (int g = 0; g < shape.groups; ++g) {
    weights.push_back(
        op.matrix(shape.out / shape.groups, shape.window.taps() * shape.in / shape.groups));
  }
  return weights;
}

}  // namespace

TEST_CASE("ConvLoraDown convolves all channels with A") {
  int variant = 0;
  for (const ConvCase& shape : allCases()) {
    for (const Values values : {Values::kExact, Values::kNormal}) {
      OpCase op(2, 1, kLayouts[variant++ % 3], values);
      ConvLoraDown step;
      step.window = shape.window;
      step.sites = addSites(op, shape, false, false);
      step.x = op.read(Axis::kSamples, shape.window.input.pixels(), shape.in);
      step.h = op.written(Axis::kSamples, shape.window.output.pixels(), columnsOf(step.sites));
      op.step = step;
      checkStep(op);
    }
  }
}

TEST_CASE("Conv2d agrees with the specification for every window and optional operand") {
  int variant = 0;
  for (const ConvCase& shape : allCases()) {
    const int rows = shape.window.output.pixels();
    const int stride = isLarge(shape) ? 7 : 1;
    for (int options = 0; options < 32; options += stride, ++variant) {
      const Activation activation = options & 16  ? Activation::kTanh
                                    : options & 8 ? Activation::kRelu
                                                  : Activation::kNone;
      const bool exact = activation == Activation::kRelu || variant % 2 == 0;
      OpCase op(1 + variant % 3, 1, kLayouts[variant % 3],
                exact && activation != Activation::kTanh ? Values::kExact : Values::kNormal);
      Conv2d step;
      step.window = shape.window;
      step.activation = activation;
      step.x = op.read(Axis::kSamples, shape.window.input.pixels(), shape.in);
      step.y = op.written(Axis::kSamples, rows, shape.out);
      step.weights = addWeights(op, shape);
      if (options & 1) step.bias = op.vector(shape.out);
      if (options & 2) step.residual = op.read(Axis::kSamples, rows, shape.out);
      if (options & 4) {
        step.sites = addSites(op, shape, variant % 2 == 0, false);
        step.h = op.read(Axis::kSamples, rows, columnsOf(step.sites));
      }
      if (options & 16) step.actGrad = op.written(Axis::kSamples, rows, shape.out);
      op.step = step;
      checkStep(op);
    }
  }
}

TEST_CASE("ConvLoraBackward writes u, its spread and both factors, per segment or reduced") {
  int variant = 0;
  for (const auto& [batch, rows] : kSegments) {
    for (const ConvCase& shape : allCases()) {
      for (const bool reduce : {false, true}) {
        for (const bool spread : {false, true}) {
          ++variant;
          if (isLarge(shape) && variant % 3 != 0) continue;
          OpCase op(batch, rows, kLayouts[variant % 3],
                    variant / 4 % 2 == 0 ? Values::kExact : Values::kNormal);
          ConvLoraBackward step;
          step.window = shape.window;
          const int pixels = shape.window.output.pixels();
          step.dy = op.read(Axis::kSegments, pixels, shape.out);
          step.x = op.read(Axis::kSamples, shape.window.input.pixels(), shape.in);
          step.sites = addSites(op, shape, variant / 8 % 2 == 0, true);
          const int columns = columnsOf(step.sites);
          step.h = op.read(Axis::kSamples, pixels, columns);
          step.u = op.written(Axis::kSegments, pixels, columns);
          if (spread) {
            step.spread = op.written(Axis::kSegments, shape.window.input.pixels(),
                                     shape.window.taps() * columns);
          }
          if (reduce) op.reduce();
          op.step = step;
          checkStep(op);
        }
      }
    }
  }
}

TEST_CASE("Conv2dBackward agrees with the specification for every window and optional operand") {
  int variant = 0;
  for (const auto& [batch, rows] : kSegments) {
    for (const ConvCase& shape : allCases()) {
      const int pixels = shape.window.input.pixels();
      // Other options for each shape: over all segments every shape meets nearly all of them.
      const int first = (batch + rows + shape.in) % 5;
      for (int options = first; options < 16; options += isLarge(shape) ? 10 : 5, ++variant) {
        OpCase op(batch, rows, kLayouts[variant % 3],
                  variant % 2 == 0 ? Values::kExact : Values::kNormal);
        Conv2dBackward step;
        step.window = shape.window;
        step.accumulate = (options & 1) != 0;
        step.dy = op.read(Axis::kSegments, shape.window.output.pixels(), shape.out);
        step.dx = op.target(step.accumulate, pixels, shape.in);
        step.weights = addWeights(op, shape);
        if (options & 2) {
          step.derivative.factor = op.read(Axis::kSamples, pixels, shape.in);
          step.derivative.ofRelu = variant % 3 == 0;
          step.derivative.ofSum = variant % 5 < 2;
        }
        if (options & 4) {
          step.sites = addSites(op, shape, false, false);
          step.spread =
              op.read(Axis::kSegments, pixels, shape.window.taps() * columnsOf(step.sites));
          // Zero where the window brings nothing, as ConvLoraBackward leaves it.
          ConvLoraBackward filling;
          filling.window = shape.window;
          filling.dy = step.dy;
          filling.x = op.read(Axis::kSamples, pixels, shape.in);
          filling.h = op.read(Axis::kSamples, shape.window.output.pixels(), columnsOf(step.sites));
          filling.u = op.read(Axis::kSegments, shape.window.output.pixels(), columnsOf(step.sites));
          filling.spread = step.spread;
          filling.sites = step.sites;
          op.fill(filling);
        }
        op.step = step;
        checkStep(op);
      }
    }
  }
}

TEST_CASE("the derivative of a ReLU is folded into a product by the sign of its output") {
  for (const auto& [batch, rows] : kSegments) {
    for (const bool ofSum : {false, true}) {
      for (const bool accumulate : {false, true}) {
        OpCase op(batch, rows, Layout::kMixed, Values::kExact);
        LinearBackward step;
        step.accumulate = accumulate;
        step.dy = op.read(Axis::kSegments, 17, 9);
        step.dx = op.target(accumulate, 17, 37);
        step.weight = op.matrix(9, 37);
        step.derivative = {op.read(Axis::kSamples, 17, 37), true, ofSum};
        op.step = step;
        checkStep(op);
      }
      OpCase op(batch, rows, Layout::kMixed);
      ActivationBackward step;
      step.dy = op.target(true, 17, 37);
      step.derivative = {op.read(Axis::kSamples, 17, 37), true};
      op.step = step;
      checkStep(op);
    }
  }
}

TEST_CASE("a scale of the output multiplies what B gives in a linear map, forward and back") {
  for (const auto& [batch, rows] : kSegments) {
    for (const Values values : {Values::kExact, Values::kNormal}) {
      const int tokens = 17, in = 33, out = 40;
      {
        OpCase op(batch, 1, Layout::kMixed, values);
        Linear step;
        step.x = op.read(Axis::kSamples, tokens, in);
        step.y = op.written(Axis::kSamples, tokens, out);
        step.weight = op.matrix(out, in);
        step.h = op.read(Axis::kSamples, tokens, 3);
        step.sites = {op.site(3, in, 0, out, 0)};
        step.sites[0].outputScale = op.vector(out);
        op.step = step;
        checkStep(op);
      }
      for (const bool reduce : {false, true}) {
        OpCase op(batch, rows, Layout::kMixed, values);
        LoraBackward step;
        step.dy = op.read(Axis::kSegments, tokens, out);
        step.x = op.read(Axis::kSamples, tokens, in);
        step.h = op.read(Axis::kSamples, tokens, 3);
        step.u = op.written(Axis::kSegments, tokens, 3);
        step.sites = {op.site(3, in, 0, out, 0, true)};
        step.sites[0].outputScale = op.vector(out);
        if (reduce) op.reduce();
        op.step = step;
        checkStep(op);
      }
    }
  }
}

}  // namespace loko::test
