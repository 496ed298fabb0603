#include <algorithm>

#include "core/lowering.h"
#include "core/status.h"
#include "doctest/doctest.h"
#include "ref/ref_backend.h"
#include "test/engine_testing.h"
#include "test/tiny_conv.h"

namespace loko {

namespace {

template <class Builder>
Plan lowerTiny(Builder builder, const std::vector<std::string>& targets, bool training = true) {
  const auto store = builder.takeStore();
  store->open();
  const auto backend = ref::makeRefBackend();
  WeightTable table(*store, *backend);
  const Adapter adapter = makeAdapter(builder.graph(), targets, 2, {});
  return lower(builder.graph(), adapter, table, {1, 0, false, training, 0});
}

}  // namespace

TEST_CASE("a dense block is one buffer: no concatenation copies, forward or back") {
  for (const bool pairwise : {false, true}) {
    const Plan plan = lowerTiny(TinyDenseNetBuilder(pairwise), {"conv0", "conv1", "conv2"});
    CHECK(only<CopyRows>(plan.forward).empty());
    CHECK(only<AddRows>(plan.backward).empty());
    CHECK(only<ClearRows>(plan.backward).empty());
    // Each batch norm reads a longer prefix of the buffer that the convolutions write into.
    const std::vector<BatchNorm> norms = only<BatchNorm>(plan.forward);
    REQUIRE(norms.size() == 3 + 1 + 3 + 1);
    for (int i = 0; i < 4; ++i) {
      const View& x = norms[static_cast<std::size_t>(i)].x;
      CHECK(x.offset == norms[0].x.offset);
      CHECK(x.cols == 6 + 5 * i);
      CHECK(x.ld == 6 + 5 * 3);
    }
    const std::vector<Conv2d> convs = only<Conv2d>(plan.forward);
    CHECK(convs[1].y.offset == norms[0].x.offset + 6);
    CHECK(convs[1].y.cols == 5);
    // Their cotangents are collected in place: the longest prefix writes, the others add.
    const std::vector<BatchNormBackward> back = only<BatchNormBackward>(plan.backward);
    REQUIRE(back.size() == 8);
    for (std::size_t i = 0; i < back.size(); ++i) {
      // norm5 of the second block; the transition of the first
      CHECK(back[i].accumulate == (i != 0 && i != 4));
    }
    CHECK(back[4].dx.cols == 21);
    CHECK(back[5].dx.offset == back[4].dx.offset);
    CHECK(back[5].dx.buffer == back[4].dx.buffer);
  }
}

TEST_CASE("values that cannot lie side by side are copied") {
  const Plan plan = lowerTiny(TinyDinoBuilder(), {"fc1"});
  const std::vector<CopyRows> copies = only<CopyRows>(plan.forward);
  REQUIRE(copies.size() == 2);  // the class token is a row of what the mean is taken of
  CHECK(copies[0].dst.buffer == copies[1].dst.buffer);
  CHECK(copies[1].dst.offset == copies[0].dst.offset + 12);
}

TEST_CASE("the ReLU of a residual block is folded into the product that ends its cotangent") {
  const Plan plan = lowerTiny(TinyResNetBuilder(), {"convolution"});
  // Only the last block's ReLU has no product above it; the stem's lies under a pooling.
  CHECK(only<ActivationBackward>(plan.backward).size() == 2);
  std::vector<FoldedDerivative> folded;
  for (const Conv2dBackward& step : only<Conv2dBackward>(plan.backward)) {
    if (step.derivative.present()) folded.push_back(step.derivative);
  }
  for (const LinearBackward& step : only<LinearBackward>(plan.backward)) {
    if (step.derivative.present()) folded.push_back(step.derivative);
  }
  CHECK(folded.size() == 4);
  CHECK(std::all_of(folded.begin(), folded.end(),
                    [](const FoldedDerivative& derivative) { return derivative.ofRelu; }));
  // The output of the basic block goes two ways.
  CHECK(std::count_if(folded.begin(), folded.end(),
                      [](const FoldedDerivative& derivative) { return derivative.ofSum; }) == 1);
}

TEST_CASE("backward of a convolutional net stops at its lowest adapted convolution") {
  const Plan plan = lowerTiny(TinyResNetBuilder(), {"bottleneck.third.convolution"});
  CHECK(only<Conv2dBackward>(plan.backward).empty());
  CHECK(only<LinearBackward>(plan.backward).size() == 1);  // the classifier
  CHECK(only<MaxPoolBackward>(plan.backward).empty());
  for (const MaxPool& pool : only<MaxPool>(plan.forward)) CHECK(!pool.index.present());
}

TEST_CASE("a convolution of single pixels is a linear map, any other gathers") {
  const Plan plan = lowerTiny(TinyResNetBuilder(), {}, false);
  CHECK(only<Linear>(plan.forward).size() == 2 + 1);
  const std::vector<Conv2d> convs = only<Conv2d>(plan.forward);
  CHECK(convs.size() == 5);  // with the strided shortcut
}

TEST_CASE("the first convolution of a net gathers patches of few channels, others spread u") {
  const Plan plan = lowerTiny(TinyResNetBuilder(), {"convolution"});
  const std::vector<ConvLoraBackward> steps = only<ConvLoraBackward>(plan.backward);
  REQUIRE(steps.size() == 5);
  CHECK(!steps.back().spread.present());
  CHECK(std::all_of(steps.begin(), steps.end() - 1,
                    [](const ConvLoraBackward& step) { return step.spread.present(); }));
}

TEST_CASE("a graph refuses windows, groups and concatenations that do not fit") {
  Graph graph;
  const ValueId pixels = graph.patchify(graph.image(4, 6, 6), 1);
  ConvNode conv;
  conv.input = pixels;
  conv.part.module = "conv";
  conv.part.out = 6;
  const auto refuses = [&](const ConvNode& node, const char* what) {
    CHECK_THROWS_WITH_AS(graph.conv2d(node), doctest::Contains(what), Error);
  };
  ConvNode wrong = conv;
  wrong.window.kernel = {9, 3};
  refuses(wrong, "a kernel that fits in 6x6 pixels with a padding of 0x0 but received 9x3");
  wrong = conv;
  wrong.groups = 4;
  refuses(wrong, "groups that divides 4 and 6 channels of conv");
  wrong = conv;
  wrong.window.stride = {0, 1};
  refuses(wrong, "a positive kernel, stride and dilation");
  wrong = conv;
  wrong.window.padding = {1 << 30, 0};
  refuses(wrong, "less than 2^30 pixels");
  wrong = conv;
  wrong.window.kernel = {1 << 20, 1 << 20};
  refuses(wrong, "2^24 taps");
  wrong = conv;
  wrong.residual = pixels;
  refuses(wrong, "a residual of shape [36, 6]");
  wrong = conv;
  wrong.part.out = 2147483646;
  wrong.window.padding = {100, 100};
  CHECK_THROWS_WITH_AS(graph.conv2d(wrong), doctest::Contains("2^40"), Error);

  const ValueId y = graph.conv2d(conv);
  CHECK(graph.shape(y).grid->height == 6);
  Window pool;
  pool.kernel = {2, 2};
  pool.padding = {2, 0};
  CHECK_THROWS_WITH_AS(graph.maxPool(y, pool, false), doctest::Contains("half the kernel"), Error);
  pool.padding = {0, 0};
  pool.stride = {4, 4};
  pool.kernel = {3, 3};
  const ValueId pooled = graph.avgPool(y, pool, true, false);
  CHECK(graph.shape(pooled).rows == 4);  // the second window begins inside and ends outside
  pool.kernel = {1, 1};
  CHECK(graph.shape(graph.maxPool(y, pool, true)).rows == 4);  // a third one would begin outside
  CHECK_THROWS_WITH_AS(graph.concat({y, pooled}), doctest::Contains("values of 36 rows"), Error);
  CHECK_THROWS_WITH_AS(graph.concat({}), doctest::Contains("at least one value"), Error);
  CHECK_THROWS_WITH_AS(graph.meanRows(y, 36), doctest::Contains("at least one row"), Error);
  CHECK_THROWS_WITH_AS(graph.maxPool(graph.flatten(y), pool, false),
                       doctest::Contains("a value with pixels"), Error);
  CHECK_THROWS_WITH_AS(graph.image(1 << 20, 1 << 20, 1 << 20), doctest::Contains("2^31"), Error);
}

}  // namespace loko
