// The engine on models of text: sequences of any length, masks, trained biases, merging.

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/status.h"
#include "cpu/cpu_backend.h"
#include "doctest/doctest.h"
#include "ref/ref_backend.h"
#include "test/engine_testing.h"
#include "test/recording_backend.h"
#include "test/tiny_bert.h"
#include "test/tiny_vit.h"

namespace loko {

namespace {

const std::vector<std::string> kQueryValue{"query", "value"};
const std::vector<std::string> kAllLinear{"query", "key", "value", "output",
                                          "fc1",   "fc2", "pooler"};

enum class Biases : std::uint8_t { kNone, kOfTargets, kAll };

/// As lib/models/parameters.ts places them: behind the factors, in the order of the graph.
void addBiases(const Graph& graph, Adapter& adapter, Biases which) {
  const auto add = [&](const std::string& parameter) {
    adapter.biases.push_back({parameter, adapter.parameters});
    adapter.parameters += graph.biasSize(parameter);
  };
  for (const Node& node : graph.nodes()) {
    if (const auto* norm = std::get_if<LayerNormNode>(&node)) {
      if (which == Biases::kAll) add(norm->bias);
    } else if (const auto* linear = std::get_if<LinearNode>(&node)) {
      for (const LinearPart& part : linear->parts) {
        if (adapter.trainedOf(part.module) != nullptr) continue;
        if (which == Biases::kAll || adapter.loraOf(part.module) != nullptr) add(part.bias);
      }
    }
  }
}

std::unique_ptr<Engine> makeText(std::unique_ptr<Backend> backend,
                                 const std::vector<std::string>& targets,
                                 Biases biases = Biases::kNone) {
  TinyBertBuilder builder({});
  Adapter adapter = makeAdapter(builder.graph(), targets, 2, {"classifier"}, LoraInit::kRandom);
  if (biases != Biases::kNone) addBiases(builder.graph(), adapter, biases);
  auto engine = builder.engine(std::move(backend));
  engine->setAdapter(adapter);
  return engine;
}

TestBatch texts(const std::vector<int>& lengths, std::uint64_t seed = 1) {
  const int tokens = *std::max_element(lengths.begin(), lengths.end());
  return {tinyTexts({}, lengths, tokens, seed), static_cast<int>(lengths.size()), tokens};
}

class CountingBackend final : public RecordingBackend {
 public:
  CountingBackend(std::unique_ptr<Backend> inner, std::vector<WorkspaceHint>& hints, int& weights)
      : RecordingBackend(std::move(inner), hints), weights_(weights) {}
  WeightId addMatrix(const float* data, int out, int in) override {
    ++weights_;
    return RecordingBackend::addMatrix(data, out, in);
  }
  WeightId addVector(const float* data, std::int64_t size) override {
    ++weights_;
    return RecordingBackend::addVector(data, size);
  }
  WeightId addTable(int rows, int cols, std::function<void(int, float*)> readRow) override {
    ++weights_;
    return RecordingBackend::addTable(rows, cols, std::move(readRow));
  }

 private:
  int& weights_;
};

}  // namespace

TEST_CASE("the Jacobian of a text model is the derivative of its logits, padded and not") {
  for (const Biases biases : {Biases::kNone, Biases::kOfTargets, Biases::kAll}) {
    for (const bool wide : {false, true}) {
      const auto engine = makeText(ref::makeRefBackend(), wide ? kAllLinear : kQueryValue, biases);
      CHECK(worstDerivative(*engine, texts({7}), 11) < 1e-6);
      CHECK(worstDerivative(*engine, texts({7, 1, 4}), 17) < 1e-6);
      CHECK(worstDerivative(*engine, texts({1}), 11) < 1e-6);
    }
  }
}

TEST_CASE("the bias of the patches of an image is trained through the class token's sum") {
  TinyVitBuilder builder({});
  Adapter adapter = makeAdapter(builder.graph(), {"query"}, 2, {"classifier"}, LoraInit::kRandom);
  addBiases(builder.graph(), adapter, Biases::kAll);
  const auto engine = builder.engine(ref::makeRefBackend());
  engine->setAdapter(adapter);
  const ImageNode& image = engine->graph().imageInput();
  std::vector<float> pixels(
      static_cast<std::size_t>(2 * image.channels * image.height * image.width));
  const RandomStream random(3, "pixels");
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = random.normal(i);
  CHECK(worstDerivative(*engine, {pixels, 2, 0}, 5) < 1e-6);
}

TEST_CASE("the CPU engine agrees with the reference engine on padded texts") {
  // Relative errors of float32 products of width ~40 through 3 blocks: a few hundred roundings of
  // 6e-8 each.
  const TestBatch input = texts({9, 3, 19, 1}, 4);
  const auto reference = makeText(ref::makeRefBackend(), kAllLinear, Biases::kAll);
  const std::vector<double> expected = logitsOf(*reference, input);
  const std::vector<float> jacobian = reference->jacobianOf(JacobianOf::kSoftmax);
  for (const cpu::Isa isa : cpu::availableIsas()) {
    for (const int threads : {1, 2}) {
      const auto engine = makeText(cpu::makeCpuBackend(threads, isa), kAllLinear, Biases::kAll);
      const std::vector<double> actual = logitsOf(*engine, input);
      for (std::size_t i = 0; i < expected.size(); ++i) {
        CHECK(std::abs(actual[i] - expected[i]) < 1e-5 * (1 + std::abs(expected[i])));
      }
      CHECK(worstRow(engine->jacobianOf(JacobianOf::kSoftmax), jacobian, engine->parameters()) <
            1e-4);
    }
  }
}

TEST_CASE("padding and neighbours in a batch do not change what a text gives") {
  const std::vector<int> lengths{9, 3, 19, 1};
  const auto engine = makeText(ref::makeRefBackend(), kQueryValue);
  const std::vector<double> together = logitsOf(*engine, texts(lengths, 7));
  for (std::size_t b = 0; b < lengths.size(); ++b) {
    const std::vector<double> alone = logitsOf(*engine, texts({lengths[b]}, 7 + b));
    for (std::size_t c = 0; c < alone.size(); ++c) {
      // Sums over keys run in another order: a few hundred roundings of 1e-16.
      CHECK(std::abs(together[b * alone.size() + c] - alone[c]) < 1e-13);
    }
  }
}

TEST_CASE("a stream of all lengths packs no weight twice and equals engines of their own") {
  std::vector<WorkspaceHint> hints;
  int weights = 0;
  const auto engine = makeText(
      std::make_unique<CountingBackend>(cpu::makeCpuBackend(2), hints, weights), kQueryValue);
  int afterFirst = 0;
  for (int pass = 0; pass < 3; ++pass) {
    for (int length = 1; length <= 19; ++length) {
      const TestBatch input = texts({length}, static_cast<std::uint64_t>(length));
      const std::vector<double> logits = logitsOf(*engine, input);
      const std::vector<float> jacobian = engine->jacobianOf(JacobianOf::kLogits);
      if (afterFirst == 0) afterFirst = weights;
      CHECK(weights == afterFirst);
      const auto fresh = makeText(cpu::makeCpuBackend(2), kQueryValue);
      CHECK(logits == logitsOf(*fresh, input));
      CHECK(jacobian == fresh->jacobianOf(JacobianOf::kLogits));
    }
  }
}

TEST_CASE("merging leaves the logits as they were, and no adapter") {
  for (const Biases biases : {Biases::kNone, Biases::kAll}) {
    const auto engine = makeText(ref::makeRefBackend(), kAllLinear, biases);
    const TestBatch input = texts({9, 3}, 5);
    const std::vector<double> before = logitsOf(*engine, input);
    std::vector<float> theta(static_cast<std::size_t>(engine->parameters()));
    engine->readTheta(theta.data());
    const Adapter adapter = engine->adapter();
    double largest = 0;
    for (const AdaptedModule& lora : adapter.lora) {
      const Graph::Module module = engine->graph().module(lora.module);
      for (int o = 0; o < module.part->out; ++o) {
        for (int i = 0; i < module.in; ++i) {
          double change = 0;
          for (int r = 0; r < lora.rank; ++r) {
            change +=
                static_cast<double>(theta[static_cast<std::size_t>(lora.b + o * lora.rank + r)]) *
                theta[static_cast<std::size_t>(lora.a + std::int64_t{r} * module.in + i)];
          }
          largest = std::max(largest, std::abs(lora.scale * change));
        }
      }
    }

    const MergeResult result = engine->mergeAdapter();
    CHECK(result.largestChange == doctest::Approx(largest).epsilon(1e-6));
    CHECK(engine->parameters() == 0);
    std::vector<double> after;
    engine->setBatch(input.values.data(), input.batch, input.tokens);
    engine->predict(after);
    // W + scale B A is rounded to float32 once, 6e-8 of each weight.
    for (std::size_t i = 0; i < before.size(); ++i) CHECK(std::abs(after[i] - before[i]) < 2e-6);

    // A second adapter that starts at zero changes nothing, and trains.
    Adapter second = makeAdapter(engine->graph(), {"query"}, 3, {"classifier"}, LoraInit::kKaiming);
    engine->setAdapter(second);
    const std::vector<double> again = logitsOf(*engine, input);
    for (std::size_t i = 0; i < after.size(); ++i) CHECK(std::abs(after[i] - again[i]) < 1e-13);
  }
}

TEST_CASE("numbers outside the tables, and texts that are all padding, never reach a backend") {
  const auto engine = makeText(ref::makeRefBackend(), kQueryValue);
  const TestBatch good = texts({5});
  const auto refuse = [&](std::size_t at, float value) {
    TestBatch bad = good;
    bad.values[at] = value;
    CHECK_THROWS_AS(engine->setBatch(bad.values.data(), bad.batch, bad.tokens), Error);
  };
  for (const float value : {-1.0F, 23.0F, 1e9F, 0.5F, NAN, INFINITY}) refuse(2, value);
  refuse(5, 19.0F);
  refuse(10, 2.0F);
  refuse(15, -1.0F);
  TestBatch hidden = good;
  std::fill(hidden.values.begin() + 15, hidden.values.end(), -INFINITY);
  CHECK_THROWS_AS(engine->setBatch(hidden.values.data(), 1, 5), Error);
  CHECK_THROWS_AS(engine->setBatch(good.values.data(), 1, 20), Error);
  CHECK_THROWS_AS(engine->setBatch(good.values.data(), 1, 0), Error);
}

}  // namespace loko
