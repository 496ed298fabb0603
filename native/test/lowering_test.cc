#include "core/lowering.h"

#include <algorithm>
#include <numeric>

#include "core/status.h"
#include "doctest/doctest.h"
#include "ref/ref_backend.h"
#include "test/engine_testing.h"
#include "test/tiny_vit.h"

namespace loko {

namespace {

struct Lowered {
  Plan plan;
  Graph graph;
};

Lowered lowerTiny(const TinyVit& shape, const std::vector<std::string>& targets,
                  const std::vector<std::string>& trained, bool training = true) {
  TinyVitBuilder builder(shape);
  const auto store = builder.takeStore();
  store->open();
  const auto backend = ref::makeRefBackend();
  WeightTable table(*store, *backend);
  const Adapter adapter = makeAdapter(builder.graph(), targets, 2, trained);
  return {lower(builder.graph(), adapter, table, {1, 0, false, training, 0}), builder.graph()};
}

}  // namespace

TEST_CASE("where the head reads the first token, the last block computes nothing else") {
  const TinyVit shape;
  const Plan plan = lowerTiny(shape, {"query", "value"}, {"classifier"}).plan;
  const std::vector<Linear> linears = only<Linear>(plan.forward);
  // Patch projection; two whole blocks of four products; the last block: key and value over all
  // rows, query, output, fc1, fc2 over one; the classifier.
  REQUIRE(linears.size() == 1 + 2 * 4 + 5 + 1);
  CHECK(std::count_if(linears.begin(), linears.end(),
                      [](const Linear& linear) { return linear.y.rows == 1; }) == 5);
  const Linear& keyValue = linears[9];
  CHECK(keyValue.y.rows == 10);
  CHECK(keyValue.y.cols == 2 * shape.hidden);
  const Attention last = only<Attention>(plan.forward).back();
  CHECK(last.q.rows == 1);
  CHECK(last.k.rows == 10);
  CHECK(last.o.rows == 1);
}

TEST_CASE("backward stops at the lowest trained module") {
  const TinyVit shape;
  const Plan plan = lowerTiny(shape, {"query", "value"}, {"classifier"}).plan;
  // Lowest block: out, fc2, fc1 but not q/k/v; middle: all four; last: key+value apart from query.
  CHECK(only<LinearBackward>(plan.backward).size() == 3 + 4 + 5 + 1);
  CHECK(only<LayerNormBackward>(plan.backward).size() == 1 + 2 * 3 - 1);
  const std::vector<AttentionBackward> attention = only<AttentionBackward>(plan.backward);
  REQUIRE(attention.size() == 3);
  CHECK(attention[0].dk.present());
  CHECK(!attention[2].dk.present());  // nothing below needs it, and the key is not adapted
  CHECK(attention[2].dq.present());

  const Plan upper = lowerTiny(shape, {"layer.2.query"}, {}).plan;
  CHECK(only<AttentionBackward>(upper.backward).size() == 1);
  CHECK(only<LoraBackward>(upper.backward).size() == 1);
  CHECK(!only<AttentionBackward>(upper.backward)[0].dv.present());
  const Plan head = lowerTiny(shape, {}, {"classifier"}).plan;
  CHECK(head.backward.size() == 2);  // WeightBackward and its Gram
}

TEST_CASE("the derivative of an activation is folded into the product above it") {
  const Plan plan = lowerTiny({}, {"query"}, {}).plan;
  CHECK(only<ActivationBackward>(plan.backward).empty());
  const std::vector<LinearBackward> linears = only<LinearBackward>(plan.backward);
  CHECK(std::count_if(linears.begin(), linears.end(),
                      [](const LinearBackward& step) { return step.derivative.present(); }) == 3);
}

TEST_CASE("every parameter belongs to exactly one Gram range") {
  for (const auto& targets : std::vector<std::vector<std::string>>{
           {"query", "value"}, {"query", "key", "value", "output", "fc1", "fc2"}, {"fc1"}}) {
    const Lowered lowered = lowerTiny({}, targets, {"classifier"});
    const std::int64_t n = makeAdapter(lowered.graph, targets, 2, {"classifier"}).parameters;
    std::vector<int> covered(static_cast<std::size_t>(n), 0);
    for (const Gram& gram : only<Gram>(lowered.plan.backward)) {
      for (std::int64_t i = gram.begin; i < gram.end; ++i) ++covered[static_cast<std::size_t>(i)];
    }
    CHECK(std::all_of(covered.begin(), covered.end(), [](int times) { return times == 1; }));
  }
}

TEST_CASE("inference keeps nothing for backward") {
  const Plan plan = lowerTiny({}, {"query"}, {"classifier"}, false).plan;
  CHECK(plan.backward.empty());
  for (const LayerNorm& norm : only<LayerNorm>(plan.forward)) CHECK(!norm.xhat.present());
  for (const Attention& attention : only<Attention>(plan.forward)) {
    CHECK(!attention.probs.present());
  }
  for (const Linear& linear : only<Linear>(plan.forward)) CHECK(!linear.actGrad.present());
  CHECK(plan.scratchElements < lowerTiny({}, {"query"}, {"classifier"}).plan.scratchElements);
}

TEST_CASE("frozen linear products keep no activation: only adapted ones share h with backward") {
  const Plan plan = lowerTiny({}, {"value"}, {}).plan;
  CHECK(only<LoraDown>(plan.forward).size() == 3);
  CHECK(only<LoraBackward>(plan.backward).size() == 3);
}

TEST_CASE("a graph refuses operands that do not fit, and says which shapes came") {
  Graph graph;
  const ValueId image = graph.image(3, 10, 10);
  CHECK_THROWS_WITH_AS(graph.patchify(image, 4), doctest::Contains("divides the image 10x10"),
                       Error);
  const ValueId patches = graph.patchify(image, 5);
  LinearPart part;
  part.module = "wide";
  part.out = 6;
  const ValueId wide = graph.linear(patches, {part})[0];
  CHECK_THROWS_WITH_AS(graph.attention(wide, wide, wide, 4, 1), doctest::Contains("divides"),
                       Error);
  CHECK_THROWS_WITH_AS(graph.linear(wide, {part}, Activation::kNone, patches),
                       doctest::Contains("[4, 75]"), Error);
  CHECK_THROWS_WITH_AS(graph.setOutput(wide), doctest::Contains("one row"), Error);
}

}  // namespace loko
