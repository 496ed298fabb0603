// Convolutional nets end to end, on every backend.

#include "core/engine.h"

#include <functional>

#include "core/rng.h"
#include "core/status.h"
#include "cpu/cpu_backend.h"
#include "cuda/cuda_backend.h"
#include "doctest/doctest.h"
#include "ref/ref_backend.h"
#include "test/engine_testing.h"
#include "test/tiny_conv.h"

namespace loko {

namespace {

struct Net {
  const char* name;
  std::function<std::unique_ptr<TinyModelBuilder>()> build;
  bool kinks;                                     // bends nowhere else
  std::vector<std::vector<std::string>> targets;  // of several adapters
};

/// Adapters of everything, of the lowest module alone, and of one in the middle.
const std::vector<Net>& nets() {
  static const std::vector<Net> all{
      {"LeNet",
       [] { return std::make_unique<TinyLeNetBuilder>(); },
       false,
       {{"conv1", "conv2", "fc1"}, {"conv1"}, {"conv2"}}},
      {"ResNet",
       [] { return std::make_unique<TinyResNetBuilder>(); },
       true,
       {{"convolution"}, {"stem.convolution"}, {"second.convolution"}, {"shortcut.convolution"}}},
      {"DenseNet",
       [] { return std::make_unique<TinyDenseNetBuilder>(false); },
       true,
       {{"conv0", "conv1", "conv2", "transition.conv"}, {"conv0"}, {"block1.1.conv2"}, {"conv1"}}},
      {"DenseNet, pairwise",
       [] { return std::make_unique<TinyDenseNetBuilder>(true); },
       true,
       {{"conv1", "conv2"}}},
      {"two ways", [] { return std::make_unique<TinyForkBuilder>(); }, true, {{"conv1", "conv2"}}},
      {"DINOv2",
       [] { return std::make_unique<TinyDinoBuilder>(); },
       false,
       {{"projection", "fc1", "fc2"}, {"fc2"}}},
  };
  return all;
}

std::unique_ptr<Engine> makeEngine(const Net& net, std::unique_ptr<Backend> backend,
                                   const std::vector<std::string>& targets) {
  const auto builder = net.build();
  const Adapter adapter = makeAdapter(builder->graph(), targets, 2, {"classifier"});
  auto engine = builder->engine(std::move(backend));
  engine->setAdapter(adapter);
  return engine;
}

TestBatch images(const Engine& engine, int batch, std::uint64_t seed) {
  return {pixels(engine, batch, seed), batch, 0};
}

}  // namespace

TEST_CASE("the Jacobian of a convolutional net is the derivative of its logits") {
  for (const Net& net : nets()) {
    CAPTURE(net.name);
    for (const auto& targets : net.targets) {
      CAPTURE(targets[0]);
      const auto engine = makeEngine(net, ref::makeRefBackend(), targets);
      double smooth = 1;
      CHECK(worstDerivative(*engine, images(*engine, 2, 1), targets.size() > 1 ? 7 : 3,
                            net.kinks ? &smooth : nullptr) < 1e-6);
      CHECK(smooth > 0.9);
    }
  }
}

TEST_CASE("convolutional nets agree with the reference, on every instruction set and with CUDA") {
  // As for the transformers: a few hundred roundings of 6e-8 through each net.
  for (const Net& net : nets()) {
    CAPTURE(net.name);
    for (const auto& targets : net.targets) {
      CAPTURE(targets[0]);
      const auto reference = makeEngine(net, ref::makeRefBackend(), targets);
      const TestBatch input = images(*reference, 3, 2);
      const std::vector<double> expected = logitsOf(*reference, input);
      const std::vector<float> jacobian = reference->jacobianOf(JacobianOf::kLogits);
      std::vector<std::unique_ptr<Backend>> backends;
      for (const cpu::Isa isa : cpu::availableIsas()) {
        backends.push_back(cpu::makeCpuBackend(2, isa));
      }
      backends.push_back(cuda::makeCudaBackend({}));
      for (std::unique_ptr<Backend>& backend : backends) {
        const auto engine = makeEngine(net, std::move(backend), targets);
        const std::vector<double> actual = logitsOf(*engine, input);
        for (std::size_t i = 0; i < expected.size(); ++i) {
          CHECK(std::abs(actual[i] - expected[i]) < 1e-5 * (1 + std::abs(expected[i])));
        }
        CHECK(worstRow(engine->jacobianOf(JacobianOf::kLogits), jacobian, engine->parameters()) <
              5e-5);
        std::vector<double> inference;
        engine->predict(inference);
        CHECK(inference == actual);
      }
    }
  }
}

TEST_CASE(
    "rows of a convolutional net together, in passes, or on other threads are the same bits") {
  for (const Net& net : nets()) {
    CAPTURE(net.name);
    std::vector<float> first;
    for (const int threads : {1, 2, 3}) {
      for (const int passRows : {0, 1, 2}) {
        const auto engine = makeEngine(net, cpu::makeCpuBackend(threads), net.targets[0]);
        engine->limitPassRows(passRows);
        const TestBatch input = images(*engine, 2, 3);
        engine->setBatch(input.values.data(), 2);
        const std::vector<float> jacobian = engine->jacobianOf(JacobianOf::kLogits);
        if (first.empty()) first = jacobian;
        CHECK(jacobian == first);
      }
    }
  }
}

TEST_CASE("the gradient of a convolutional net is the sum of cotangents times Jacobians") {
  for (const Net& net : nets()) {
    CAPTURE(net.name);
    const auto engine = makeEngine(net, cpu::makeCpuBackend(2), net.targets[0]);
    const TestBatch input = images(*engine, 3, 5);
    logitsOf(*engine, input);
    const std::vector<float> jacobian = engine->jacobianOf(JacobianOf::kLogits);
    const auto n = static_cast<std::size_t>(engine->parameters());
    const RandomStream random(6, "cotangents");
    std::vector<double> cotangents(static_cast<std::size_t>(3 * engine->outputs()));
    for (std::size_t i = 0; i < cotangents.size(); ++i) cotangents[i] = random.normal(i);
    logitsOf(*engine, input);
    engine->gradient(cotangents);
    std::vector<float> gradient(n), expected(n);
    engine->backend().read(Space::kJacobian, 0, gradient.data(), engine->parameters());
    for (std::size_t i = 0; i < n; ++i) {
      double sum = 0;
      for (std::size_t row = 0; row < cotangents.size(); ++row) {
        sum += cotangents[row] * jacobian[row * n + i];
      }
      expected[i] = static_cast<float>(sum);
    }
    CHECK(worstRow(gradient, expected, engine->parameters()) < 1e-5);
  }
}

TEST_CASE("an adapter of convolutions merges into their weights, before the norms behind them") {
  for (const Net& net : nets()) {
    if (std::string(net.name) == "ResNet") continue;  // has groups, see below
    CAPTURE(net.name);
    const auto engine = makeEngine(net, cpu::makeCpuBackend(2), net.targets[0]);
    const TestBatch input = images(*engine, 2, 8);
    const std::vector<double> adapted = logitsOf(*engine, input);
    engine->mergeAdapter();
    std::vector<double> merged;
    engine->setBatch(input.values.data(), 2);
    engine->predict(merged);
    for (std::size_t i = 0; i < adapted.size(); ++i) {
      CHECK(std::abs(merged[i] - adapted[i]) < 1e-5 * (1 + std::abs(adapted[i])));
    }
  }
}

TEST_CASE("an adapter of a convolution with groups cannot be merged, and stays as it was") {
  const Net& net = nets()[1];
  const auto engine = makeEngine(net, cpu::makeCpuBackend(1), {"second.convolution"});
  const TestBatch input = images(*engine, 1, 9);
  const std::vector<double> before = logitsOf(*engine, input);
  CHECK_THROWS_WITH_AS(engine->mergeAdapter(),
                       doctest::Contains("bottleneck.second.convolution is a convolution with 2"),
                       Error);
  CHECK(logitsOf(*engine, input) == before);
}

TEST_CASE("what is folded into frozen weights is refused by name where it should be trained") {
  const auto builder = nets()[1].build();
  Adapter adapter = makeAdapter(builder->graph(), {"stem.convolution"}, 2, {"classifier"});
  auto engine = builder->engine(cpu::makeCpuBackend(1));
  const auto refuses = [&](const Adapter& wrong, const char* what) {
    CHECK_THROWS_WITH_AS(engine->setAdapter(wrong), doctest::Contains(what), Error);
  };
  Adapter wrong = adapter;
  wrong.trained.push_back({"stem.convolution", 0, kNoParameter});
  refuses(wrong, "stem.convolution is a convolution");
  wrong = adapter;
  wrong.biases.push_back({"bottleneck.third.convolution.bias", 0});
  refuses(wrong, "a bias of the convolution bottleneck.third.convolution");
  wrong = makeAdapter(builder->graph(), {"bottleneck.second.convolution"}, 1, {});
  wrong.lora[0].rank = 3;
  wrong.parameters *= 2;
  refuses(wrong, "multiple of the 2 groups");
  engine->setAdapter(adapter);
}

}  // namespace loko
