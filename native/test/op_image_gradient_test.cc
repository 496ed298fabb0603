// The backward operations of convolutional nets against differences of the forward ones.

#include "op_chain.h"
#include "op_windows.h"

namespace loko::test {

namespace {

/// A convolution with a site for each group, its output scaled, and what goes back through it.
void buildConv(Chain& chain, const ConvCase& shape, bool accumulate) {
  const Window& window = shape.window;
  const int rowOfA = shape.in * window.taps(), out = shape.out / shape.groups;
  ConvLoraDown down;
  Conv2d conv;
  down.window = conv.window = window;
  for (int g = 0; g < shape.groups; ++g) {
    conv.sites.push_back(chain.site(2, rowOfA, g * out, (g + 1) * out, 2 * g));
    conv.weights.push_back(chain.op.matrix(out, rowOfA / shape.groups));
  }
  const WeightId scale = chain.op.vector(shape.out);
  for (LoraSite& site : conv.sites) site.outputScale = scale;
  down.sites = conv.sites;
  const int columns = 2 * shape.groups, pixels = window.output.pixels();
  down.x = conv.x = chain.input(window.input.pixels(), shape.in);
  down.h = conv.h = chain.input(pixels, columns);
  conv.y = chain.output = chain.input(pixels, shape.out);
  conv.bias = chain.op.vector(shape.out);
  chain.forward = {down, conv};

  chain.seed = chain.cotangent(pixels, shape.out);
  ConvLoraBackward lora;
  lora.window = window;
  lora.dy = chain.seed;
  lora.x = conv.x;
  lora.h = conv.h;
  lora.u = chain.cotangent(pixels, columns);
  lora.spread = chain.cotangent(window.input.pixels(), window.taps() * columns);
  lora.sites = conv.sites;
  Conv2dBackward back;
  back.window = window;
  back.dy = chain.seed;
  back.dx = chain.cotangent(window.input.pixels(), shape.in);
  back.accumulate = chain.accumulates = accumulate;
  back.weights = conv.weights;
  back.spread = lora.spread;
  back.sites = conv.sites;
  chain.backward = {lora, back};
  chain.inputs = {{conv.x, back.dx}};
}

template <class Forward, class Backward>
void buildPool(Chain& chain, const Window& window, Forward forward, Backward back) {
  const int cols = 3;
  forward.window = back.window = window;
  forward.x = chain.input(window.input.pixels(), cols);
  forward.y = chain.output = chain.input(window.output.pixels(), cols);
  chain.seed = back.dy = chain.cotangent(window.output.pixels(), cols);
  back.dx = chain.cotangent(window.input.pixels(), cols);
  back.accumulate = chain.accumulates = true;
  chain.forward = {forward};
  chain.backward = {back};
  chain.inputs = {{forward.x, back.dx}};
}

}  // namespace

TEST_CASE("the convolution's backward operations are its derivative, with LoRA and groups") {
  const ConvCase cases[] = {
      {makeWindow({4, 3}, {3, 3}, {1, 1}, {1, 1}), 2, 3},
      {makeWindow({5, 4}, {3, 2}, {2, 2}, {1, 1}), 2, 2},
      {makeWindow({5, 6}, {2, 3}, {2, 1}, {2, 2}, {3, 2}), 1, 2},
      {makeWindow({3, 4}, {3, 3}, {2, 1}, {1, 1}), 4, 2, 2},
  };
  for (const ConvCase& shape : cases) {
    for (const bool accumulate : {false, true}) {
      checkGradients([&](Chain& chain) { buildConv(chain, shape, accumulate); });
    }
  }
}

TEST_CASE("the backward operations of batch norm and pooling are their derivatives") {
  for (const bool relu : {false, true}) {
    checkGradients([&](Chain& chain) {
      BatchNorm norm;
      norm.relu = relu;
      norm.x = chain.input(4, 5);
      norm.y = chain.output = chain.input(4, 5);
      norm.scale = chain.op.vector(5);
      norm.shift = chain.op.vector(5);
      chain.forward = {norm};
      chain.seed = chain.cotangent(4, 5);
      BatchNormBackward back;
      back.relu = relu;
      back.dy = chain.seed;
      back.dx = chain.cotangent(4, 5);
      back.x = norm.x;
      back.scale = norm.scale;
      back.shift = norm.shift;
      back.accumulate = chain.accumulates = true;
      chain.backward = {back};
      chain.inputs = {{norm.x, back.dx}};
    });
  }
  for (const Window& window :
       {makeWindow({5, 4}, {3, 2}, {2, 2}, {1, 1}), makeWindow({4, 4}, {2, 2}, {2, 2})}) {
    checkGradients([&](Chain& chain) {
      MaxPool pool;
      MaxPoolBackward back;
      pool.index = back.index = chain.input(window.output.pixels(), 3);
      buildPool(chain, window, pool, back);
    });
    for (const bool countIncludePad : {false, true}) {
      checkGradients([&](Chain& chain) {
        AvgPool pool;
        AvgPoolBackward back;
        pool.countIncludePad = back.countIncludePad = countIncludePad;
        buildPool(chain, window, pool, back);
      });
    }
  }
}

TEST_CASE("the backward operations of the mean of rows and of flattening are their derivatives") {
  checkGradients([](Chain& chain) {
    MeanRows mean;
    mean.skip = 1;
    mean.x = chain.input(4, 3);
    mean.y = chain.output = chain.input(1, 3);
    chain.seed = chain.cotangent(1, 3);
    const View dx = chain.cotangent(4, 3);
    chain.forward = {mean};
    chain.backward = {MeanRowsBackward{chain.seed, dx, false, 1}};
    chain.inputs = {{mean.x, dx}};
  });
  checkGradients([](Chain& chain) {
    const View x = chain.input(4, 3);
    chain.output = chain.input(1, 12);
    chain.seed = chain.cotangent(1, 12);
    const View dx = chain.cotangent(4, 3);
    chain.forward = {Flatten{x, chain.output}};
    chain.backward = {FlattenBackward{chain.seed, dx, false}};
    chain.inputs = {{x, dx}};
  });
}

}  // namespace loko::test
