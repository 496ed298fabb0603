// The backward operations of the specification against differences of its forward operations. The
// other backends are compared with the specification, so this is where the chain rule is proved.

#include "op_chain.h"

namespace loko::test {

TEST_CASE("LoraBackward and LinearBackward are the derivative of a fused linear with two sites") {
  for (const bool accumulate : {false, true}) {
    checkGradients([&](Chain& chain) {
      const int rows = 3, in = 5, out = 7;
      LoraDown down;
      Linear linear;
      down.x = linear.x = chain.input(rows, in);
      down.h = linear.h = chain.input(rows, 5);
      down.sites = linear.sites = {chain.site(2, in, 0, 3, 0), chain.site(3, in, 4, 7, 2)};
      linear.y = chain.output = chain.input(rows, out);
      linear.weight = chain.op.matrix(out, in);
      linear.bias = chain.op.vector(out);
      chain.forward = {down, linear};

      chain.seed = chain.cotangent(rows, out);
      LoraBackward lora;
      LinearBackward back;
      lora.dy = back.dy = chain.seed;
      lora.x = down.x;
      lora.h = down.h;
      lora.u = back.u = chain.cotangent(rows, 5);
      lora.sites = back.sites = down.sites;
      back.dx = chain.cotangent(rows, in);
      back.accumulate = chain.accumulates = accumulate;
      back.weight = chain.op.matrix(out, in);
      auto& weights = chain.op.weights;
      weights[static_cast<std::size_t>(back.weight)].values =
          weights[static_cast<std::size_t>(linear.weight)].values;
      chain.backward = {lora, back};
      chain.inputs = {{linear.x, back.dx}};
    });
  }
}

TEST_CASE("WeightBackward is the derivative with respect to a trained weight and bias") {
  checkGradients([](Chain& chain) {
    const int rows = 4, in = 3, out = 5;
    Linear linear;
    linear.x = chain.input(rows, in);
    linear.y = chain.output = chain.input(rows, out);
    linear.trainedWeight = chain.block(out * in);
    linear.trainedBias = chain.block(out);
    chain.forward = {linear};
    chain.seed = chain.cotangent(rows, out);
    LinearBackward back;
    back.dy = chain.seed;
    back.dx = chain.cotangent(rows, in);
    back.trainedWeight = linear.trainedWeight;
    chain.backward = {
        WeightBackward{chain.seed, linear.x, linear.trainedWeight, linear.trainedBias}, back};
    chain.inputs = {{linear.x, back.dx}};
  });
}

TEST_CASE("actGrad is the derivative of every activation, folded into LinearBackward or apart") {
  for (const Activation activation :
       {Activation::kNone, Activation::kGelu, Activation::kGeluTanh, Activation::kRelu,
        Activation::kQuickGelu, Activation::kTanh}) {
    CAPTURE(static_cast<int>(activation));
    for (const bool fused : {false, true}) {
      checkGradients([&](Chain& chain) {
        const int rows = 3, in = 4, hidden = 6, out = 5;
        Linear first, second;
        first.x = chain.input(rows, in);
        first.y = second.x = chain.input(rows, hidden);
        first.trainedWeight = chain.block(hidden * in);
        first.activation = activation;
        first.actGrad = chain.input(rows, hidden);
        first.residual = chain.input(rows, hidden);
        second.y = chain.output = chain.input(rows, out);
        second.trainedWeight = chain.block(out * hidden);
        chain.forward = {first, second};

        chain.seed = chain.cotangent(rows, out);
        LinearBackward secondBack, firstBack;
        secondBack.dy = chain.seed;
        secondBack.dx = firstBack.dy = chain.cotangent(rows, hidden);
        secondBack.trainedWeight = second.trainedWeight;
        firstBack.trainedWeight = first.trainedWeight;
        firstBack.dx = chain.cotangent(rows, in);
        chain.backward.push_back(
            WeightBackward{chain.seed, second.x, second.trainedWeight, kNoParameter});
        if (fused) secondBack.derivative.factor = first.actGrad;
        chain.backward.push_back(secondBack);
        if (!fused) chain.backward.push_back(ActivationBackward{firstBack.dy, {first.actGrad}});
        chain.backward.push_back(
            WeightBackward{firstBack.dy, first.x, first.trainedWeight, kNoParameter});
        chain.backward.push_back(firstBack);
        // The cotangent of the residual is that of the pre-activation.
        chain.inputs = {{first.x, firstBack.dx}, {first.residual, firstBack.dy}};
      });
    }
  }
}

TEST_CASE("LayerNormBackward is the derivative of LayerNorm, written or accumulated") {
  for (const bool accumulate : {false, true}) {
    for (const int cols : {1, 2, 7}) {
      checkGradients([&](Chain& chain) {
        LayerNorm norm;
        norm.eps = 0.1f;  // not negligible: it must enter the derivative too
        norm.x = chain.input(3, cols);
        norm.y = chain.output = chain.input(3, cols);
        norm.xhat = chain.input(3, cols);
        norm.rstd = chain.input(3, 1);
        norm.gamma = chain.op.vector(cols);
        norm.beta = chain.op.vector(cols);
        chain.forward = {norm};
        chain.seed = chain.cotangent(3, cols);
        LayerNormBackward back;
        back.dy = chain.seed;
        back.dx = chain.cotangent(3, cols);
        back.xhat = norm.xhat;
        back.rstd = norm.rstd;
        back.gamma = norm.gamma;
        back.accumulate = chain.accumulates = accumulate;
        chain.backward = {back};
        chain.inputs = {{norm.x, back.dx}};
      });
    }
  }
}

TEST_CASE("WeightBackward is the derivative with respect to the beta of a layer norm") {
  checkGradients([](Chain& chain) {
    LayerNorm norm;
    norm.eps = 1e-5f;
    norm.x = chain.input(3, 5);
    norm.y = chain.output = chain.input(3, 5);
    norm.gamma = chain.op.vector(5);
    norm.trainedBeta = chain.block(5);
    chain.forward = {norm};
    chain.seed = chain.cotangent(3, 5);
    chain.backward = {WeightBackward{chain.seed, View{}, kNoParameter, norm.trainedBeta}};
  });
}

TEST_CASE("AttentionBackward is the derivative of Attention, for all tokens and for the first") {
  struct Shape {
    int queries, keys, heads, width;
    bool masked = false;
  };
  for (const Shape& shape : {Shape{4, 4, 2, 3}, Shape{1, 5, 3, 2}, Shape{1, 1, 1, 1},
                             Shape{4, 4, 2, 3, true}, Shape{1, 5, 3, 2, true}}) {
    for (const bool kept : {false, true}) {
      checkGradients([&](Chain& chain) {
        const int cols = shape.heads * shape.width;
        Attention attention;
        attention.heads = shape.heads;
        attention.scale = 0.625f;
        attention.q = chain.input(shape.queries, cols);
        attention.k = chain.input(shape.keys, cols);
        attention.v = chain.input(shape.keys, cols);
        attention.o = chain.output = chain.input(shape.queries, cols);
        if (kept) attention.probs = chain.input(shape.heads * shape.queries, shape.keys);
        if (shape.masked) attention.mask = chain.op.mask(shape.keys);
        chain.forward = {attention};
        chain.seed = chain.cotangent(shape.queries, cols);
        AttentionBackward back;
        back.heads = attention.heads;
        back.scale = attention.scale;
        back.q = attention.q;
        back.k = attention.k;
        back.v = attention.v;
        back.o = attention.o;
        back.probs = attention.probs;
        back.mask = attention.mask;
        back.dout = chain.seed;
        back.dq = chain.cotangent(shape.queries, cols);
        back.dk = chain.cotangent(shape.keys, cols);
        back.dv = chain.cotangent(shape.keys, cols);
        chain.backward = {back};
        chain.inputs = {{attention.q, back.dq}, {attention.k, back.dk}, {attention.v, back.dv}};
      });
    }
  }
}

TEST_CASE("AddRows is the derivative of reading only the first row of a value twice") {
  // y = W x[first row]; the residual stream hands dy W to row 0 and passes its own cotangent on.
  checkGradients([](Chain& chain) {
    const int rows = 4, cols = 3;
    Linear linear;
    const View x = chain.input(rows, cols);
    linear.x = x;
    linear.x.rows = 1;
    linear.residual = linear.x;
    linear.y = chain.output = chain.input(1, cols);
    linear.trainedWeight = chain.block(cols * cols);
    chain.forward = {linear};
    chain.seed = chain.cotangent(1, cols);
    LinearBackward back;
    back.dy = chain.seed;
    const View dx = chain.cotangent(rows, cols);
    back.dx = dx;
    back.dx.rows = 1;
    back.trainedWeight = linear.trainedWeight;
    back.accumulate = true;
    chain.backward = {ClearRows{dx}, back, AddRows{chain.seed, dx},
                      WeightBackward{chain.seed, linear.x, linear.trainedWeight, kNoParameter}};
    chain.inputs = {{x, dx}};
  });
}

}  // namespace loko::test
