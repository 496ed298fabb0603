#pragma once

// Small convolutional nets with drawn weights: the shapes of LeNet, ResNet and DenseNet, with the windows
// of the real ones.

#include <string>
#include <vector>

#include "test/tiny_model.h"

namespace loko {

class TinyConvBuilder : public TinyModelBuilder {
 protected:
  explicit TinyConvBuilder(std::uint64_t seed) : TinyModelBuilder(seed) {}

  struct ConvOptions {
    int kernel = 3, stride = 1, padding = 0, groups = 1;
    bool bias = false, norm = false;
    Activation activation = Activation::kNone;
    ValueId residual = kNoValue;
  };

  /// The variances are drawn around 0 with a small spread, so eps keeps them positive.
  BatchNormSpec normSpec(const std::string& name, int channels) {
    drawn(name + ".weight", {channels}, 1);
    drawn(name + ".bias", {channels}, 0.3);
    drawn(name + ".running_mean", {channels}, 0.3);
    drawn(name + ".running_var", {channels}, 0.05);
    return {name + ".weight", name + ".bias", name + ".running_mean", name + ".running_var", 0.5};
  }

  ValueId conv(ValueId x, const std::string& module, int out, const ConvOptions& options) {
    const int in = graph_.shape(x).cols / options.groups, kernel = options.kernel;
    drawn(module + ".weight", {out, in, kernel, kernel},
          1.5 / std::sqrt(static_cast<double>(in * kernel * kernel)));
    ConvNode node;
    node.input = x;
    node.residual = options.residual;
    node.activation = options.activation;
    node.groups = options.groups;
    node.part.module = module;
    node.part.weight = module + ".weight";
    node.part.out = out;
    if (options.bias) {
      node.part.bias = module + ".bias";
      drawn(node.part.bias, {out}, 0.1);
    }
    if (options.norm) node.norm = normSpec(module + "_norm", out);
    node.window.kernel = {kernel, kernel};
    node.window.stride = {options.stride, options.stride};
    node.window.padding = {options.padding, options.padding};
    return graph_.conv2d(std::move(node));
  }

  ValueId batchNorm(ValueId x, const std::string& name, bool relu) {
    return graph_.batchNorm(x, normSpec(name, graph_.shape(x).cols), relu);
  }

  static Window pooling(int kernel, int stride, int padding) {
    Window window;
    window.kernel = {kernel, kernel};
    window.stride = {stride, stride};
    window.padding = {padding, padding};
    return window;
  }

  void classify(ValueId x, int labels) {
    graph_.setOutput(graph_.linear(x, {part("classifier", labels, graph_.shape(x).cols)})[0]);
  }
};

/// Stem with max pooling, a basic block, a bottleneck with a strided shortcut and groups.
class TinyResNetBuilder : public TinyConvBuilder {
 public:
  TinyResNetBuilder() : TinyConvBuilder(21) {
    constexpr Activation kRelu = Activation::kRelu, kNone = Activation::kNone;
    const ValueId image = graph_.image(3, 17, 15);
    ValueId x = conv(graph_.patchify(image, 1), "stem.convolution", 6,
                     {7, 2, 3, 1, false, true, kRelu, kNoValue});
    x = graph_.maxPool(x, pooling(3, 2, 1), false);
    ValueId y = conv(x, "basic.first.convolution", 6, {3, 1, 1, 1, false, true, kRelu, kNoValue});
    x = conv(y, "basic.second.convolution", 6, {3, 1, 1, 1, false, true, kRelu, x});
    const ValueId shortcut =
        conv(x, "bottleneck.shortcut.convolution", 12, {1, 2, 0, 1, false, true, kNone, kNoValue});
    y = conv(x, "bottleneck.first.convolution", 4, {1, 1, 0, 1, false, true, kRelu, kNoValue});
    y = conv(y, "bottleneck.second.convolution", 4, {3, 2, 1, 2, false, true, kRelu, kNoValue});
    x = conv(y, "bottleneck.third.convolution", 12, {1, 1, 0, 1, true, true, kRelu, shortcut});
    classify(graph_.meanRows(x, 0), 4);
  }
};

/// Two dense blocks of three layers with a transition between them.
class TinyDenseNetBuilder : public TinyConvBuilder {
 public:
  /// `pairwise`: each concatenation takes the one before it, not all features anew.
  explicit TinyDenseNetBuilder(bool pairwise = false) : TinyConvBuilder(22), pairwise_(pairwise) {
    const ValueId image = graph_.image(2, 9, 10);
    ValueId x = conv(graph_.patchify(image, 1), "conv0", 6,
                     {3, 1, 1, 1, false, true, Activation::kRelu, kNoValue});
    x = block(x, "block1.");
    x = conv(batchNorm(x, "transition.norm", true), "transition.conv", 7, {1, 1, 0});
    x = block(graph_.avgPool(x, pooling(2, 2, 0), false, true), "block2.");
    classify(graph_.meanRows(batchNorm(x, "norm5", true), 0), 4);
  }

 private:
  ValueId block(ValueId x, const std::string& path) {
    std::vector<ValueId> features{x};
    for (int layer = 0; layer < 3; ++layer) {
      const std::string name = path + std::to_string(layer) + ".";
      ValueId y = batchNorm(x, name + "norm1", true);
      y = conv(y, name + "conv1", 8, {1, 1, 0, 1, false, true, Activation::kRelu, kNoValue});
      features.push_back(conv(y, name + "conv2", 5, {3, 1, 1}));
      x = pairwise_ ? graph_.concat({x, features.back()}) : graph_.concat(features);
    }
    return x;
  }

  bool pairwise_;
};

/// Convolutions with biases and tanh, average pooling, a flattened image.
class TinyLeNetBuilder : public TinyConvBuilder {
 public:
  TinyLeNetBuilder() : TinyConvBuilder(23) {
    const ValueId image = graph_.image(1, 14, 14);
    ValueId x = conv(graph_.patchify(image, 1), "conv1", 4,
                     {5, 1, 2, 1, true, false, Activation::kTanh, kNoValue});
    x = graph_.avgPool(x, pooling(2, 2, 0), false, true);
    x = conv(x, "conv2", 6, {5, 1, 0, 1, true, false, Activation::kRelu, kNoValue});
    x = graph_.flatten(graph_.maxPool(x, pooling(2, 2, 0), false));
    x = graph_.linear(x, {part("fc1", 9, graph_.shape(x).cols)}, Activation::kRelu)[0];
    classify(x, 3);
  }
};

/// A ReLU whose output goes two ways, of which backward takes the one without a product last.
class TinyForkBuilder : public TinyConvBuilder {
 public:
  TinyForkBuilder() : TinyConvBuilder(25) {
    const ValueId image = graph_.image(2, 5, 4);
    const ValueId x = conv(graph_.patchify(image, 1), "conv1", 6,
                           {3, 1, 1, 1, true, false, Activation::kRelu, kNoValue});
    const ValueId mean = graph_.meanRows(x, 0);
    const ValueId y = conv(x, "conv2", 5, {3, 1, 1});
    classify(graph_.concat({mean, graph_.meanRows(y, 0)}), 3);
  }
};

/// Projected patches, a layer scale, and the class token beside the mean of the patches: DINOv2's head.
class TinyDinoBuilder : public TinyConvBuilder {
 public:
  TinyDinoBuilder() : TinyConvBuilder(24) {
    const int d = 12;
    const ValueId image = graph_.image(2, 6, 9);
    const ValueId patches = graph_.patchify(image, 3);
    drawn("cls", {1, 1, d}, 0.5);
    drawn("pos", {1, 7, d}, 0.5);
    ValueId x =
        graph_.assembleTokens(graph_.linear(patches, {part("projection", d, 18)})[0], "cls", "pos");
    for (const std::string layer : {"layer.0.", "layer.1."}) {
      ValueId y = graph_.linear(norm(x, layer + "norm"), {part(layer + "fc1", 20, d)},
                                Activation::kGelu)[0];
      LinearPart scaled = part(layer + "fc2", d, 20);
      scaled.outputScale = layer + "scale";
      drawn(scaled.outputScale, {d}, 1);
      x = graph_.linear(y, {scaled}, Activation::kNone, x)[0];
    }
    x = norm(x, "norm");
    classify(graph_.concat({graph_.selectFirst(x), graph_.meanRows(x, 1)}), 4);
  }
};

}  // namespace loko
