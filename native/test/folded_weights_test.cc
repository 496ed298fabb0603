// What is folded into frozen weights, against the formulas of torch.nn.BatchNorm2d and of DINOv2's layer
// scale written out: every other test compares two readers of the same folded weights.

#include <cmath>

#include "core/folded_weights.h"
#include "core/status.h"
#include "doctest/doctest.h"
#include "ref/ref_backend.h"
#include "test/engine_testing.h"
#include "test/tiny_conv.h"

namespace loko {

namespace {

/// One pixel of two channels through one operation to three outputs.
class OnePixel : public TinyConvBuilder {
 public:
  OnePixel() : TinyConvBuilder(31), pixel_(graph_.patchify(graph_.image(2, 1, 1), 1)) {}

  void convolve() { graph_.setOutput(conv(pixel_, "conv", 3, {1, 1, 0, 1, true, true})); }
  void normalise() { graph_.setOutput(batchNorm(pixel_, "norm", false)); }
  void scaleLinear() {
    LinearPart scaled = part("fc", 3, 2);
    scaled.outputScale = "scale";
    drawn("scale", {3}, 1);
    graph_.setOutput(graph_.linear(pixel_, {scaled})[0]);
  }

 private:
  ValueId pixel_;
};

const TestBatch kPixel{{0.75F, -1.5F}, 1, 0};

std::vector<double> outputsOf(Engine& engine) {
  std::vector<double> outputs;
  engine.setBatch(kPixel.values.data(), 1);
  engine.predict(outputs);
  return outputs;
}

double normalised(Engine& engine, const std::string& name, double x, std::size_t c) {
  const auto of = [&](const char* what) -> double { return engine.readWeight(name + what)[c]; };
  return (x - of(".running_mean")) / std::sqrt(of(".running_var") + 0.5) * of(".weight") +
         of(".bias");
}

// Weights and biases are rounded to float32 once when they are packed, and added up in double: an
// error of at most 6e-8 of each of the terms, which are of order 1.
constexpr double kTolerance = 1e-6;

}  // namespace

TEST_CASE("a batch norm behind a convolution is that of PyTorch in eval mode") {
  OnePixel builder;
  builder.convolve();
  const auto engine = builder.engine(ref::makeRefBackend());
  const std::vector<double> outputs = outputsOf(*engine);
  const std::vector<float> weight = engine->readWeight("conv.weight");
  const std::vector<float> bias = engine->readWeight("conv.bias");
  for (std::size_t o = 0; o < 3; ++o) {
    const double z =
        double{weight[2 * o]} * 0.75 - double{weight[2 * o + 1]} * 1.5 + double{bias[o]};
    CHECK(std::abs(outputs[o] - normalised(*engine, "conv_norm", z, o)) < kTolerance);
  }
}

TEST_CASE("a batch norm that stands alone is that of PyTorch in eval mode") {
  OnePixel builder;
  builder.normalise();
  const auto engine = builder.engine(ref::makeRefBackend());
  const std::vector<double> outputs = outputsOf(*engine);
  for (std::size_t c = 0; c < 2; ++c) {
    CHECK(std::abs(outputs[c] - normalised(*engine, "norm", double{kPixel.values[c]}, c)) <
          kTolerance);
  }
}

TEST_CASE("a layer scale multiplies the output of a linear map, bias included") {
  OnePixel builder;
  builder.scaleLinear();
  const auto engine = builder.engine(ref::makeRefBackend());
  const std::vector<double> outputs = outputsOf(*engine);
  const std::vector<float> weight = engine->readWeight("fc.weight");
  const std::vector<float> bias = engine->readWeight("fc.bias"),
                           scale = engine->readWeight("scale");
  for (std::size_t o = 0; o < 3; ++o) {
    const double z =
        double{weight[2 * o]} * 0.75 - double{weight[2 * o + 1]} * 1.5 + double{bias[o]};
    CHECK(std::abs(outputs[o] - double{scale[o]} * z) < kTolerance);
  }
}

TEST_CASE("a variance that has no root is refused with its place") {
  OnePixel builder;
  builder.normalise();
  const auto store = builder.takeStore();
  store->replace("norm.running_var", {1.0F, -0.75F});
  const auto backend = ref::makeRefBackend();
  WeightTable table(*store, *backend);
  const BatchNormSpec norm{"norm.weight", "norm.bias", "norm.running_mean", "norm.running_var",
                           0.5};
  CHECK_THROWS_WITH_AS(normScale(table, norm),
                       doctest::Contains("norm.running_var holds -0.750000 at element 1"), Error);
}

}  // namespace loko
