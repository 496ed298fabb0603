// Whole models on the CUDA backend, on an emulated device: against the reference engine, what a step launches
// and allocates, and what is left when it fails.

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/engine.h"
#include "core/rng.h"
#include "core/status.h"
#include "cpu/cpu_backend.h"
#include "cuda/context.h"
#include "cuda/cuda_backend.h"
#include "cuda_emulation/emulation.h"
#include "doctest/doctest.h"
#include "filter/gradient_optimizer.h"
#include "filter/loko_optimizer.h"
#include "ref/ref_backend.h"
#include "test/engine_testing.h"
#include "test/tiny_bert.h"
#include "test/tiny_vit.h"

namespace loko {

namespace {

std::unique_ptr<Backend> cudaBackend(cuda::Precision precision = cuda::Precision::kFloat32,
                                     int multiprocessors = 4) {
  emulation::DeviceModel model;
  model.major = 9;  // kernels overlap
  model.multiprocessors = multiprocessors;
  emulation::setDeviceModel(model);
  cuda::CudaOptions options;
  options.precision = precision;
  return cuda::makeCudaBackend(options);
}

std::unique_ptr<Engine> vitOn(std::unique_ptr<Backend> backend, int layers = 3) {
  TinyVit shape;
  shape.layers = layers;
  TinyVitBuilder builder(shape);
  const Adapter adapter = makeAdapter(builder.graph(), {"query", "value"}, 2, {"classifier"});
  auto engine = builder.engine(std::move(backend));
  engine->setAdapter(adapter);
  return engine;
}

std::unique_ptr<Engine> bertOn(std::unique_ptr<Backend> backend) {
  TinyBertBuilder builder(TinyBert{});
  const Adapter adapter =
      makeAdapter(builder.graph(), {"query", "value", "fc1"}, 2, {"pooler", "classifier"});
  auto engine = builder.engine(std::move(backend));
  engine->setAdapter(adapter);
  return engine;
}

/// Logits and the Jacobian, relative to the size of the expected ones.
void checkAgreement(Engine& engine, Engine& reference, const TestBatch& input, double logits,
                    double jacobian) {
  const std::vector<double> expected = logitsOf(reference, input), found = logitsOf(engine, input);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CHECK(std::abs(found[i] - expected[i]) < logits * (1 + std::abs(expected[i])));
  }
  CHECK(worstRow(engine.jacobianOf(JacobianOf::kLogits), reference.jacobianOf(JacobianOf::kLogits),
                 engine.parameters()) < jacobian);
}

StepResult learn(Optimizer& optimizer, Engine& engine, std::uint64_t step, int batch = 1) {
  const std::vector<float> images = pixels(engine, batch, 100 + step);
  engine.setBatch(images.data(), batch);
  Targets targets;
  targets.labels.assign(static_cast<std::size_t>(batch),
                        static_cast<int>(step % static_cast<std::uint64_t>(engine.outputs())));
  return optimizer.step(engine, targets);
}

std::vector<float> thetaOf(Engine& engine) {
  std::vector<float> theta(static_cast<std::size_t>(engine.parameters()));
  engine.readTheta(theta.data());
  return theta;
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  return worstRow(a, b, static_cast<std::int64_t>(a.size()));
}

using MakeOptimizer = std::function<std::unique_ptr<Optimizer>(Engine&)>;

std::unique_ptr<Optimizer> makeLoko(Engine& engine) {
  return std::make_unique<LokoOptimizer>(engine.backend(), engine.parameters(), engine.outputs(),
                                         LokoOptions{});
}

std::unique_ptr<Optimizer> makeAdamW(Engine& engine) {
  return std::make_unique<GradientOptimizer>(
      engine.backend(), engine.parameters(),
      GradientOptions::defaults(GradientUpdate::Rule::kAdamW));
}

std::vector<float> trained(std::unique_ptr<Backend> backend, const MakeOptimizer& make, int steps) {
  const auto engine = vitOn(std::move(backend));
  const auto optimizer = make(*engine);
  for (int step = 0; step < steps; ++step) {
    CHECK(learn(*optimizer, *engine, static_cast<std::uint64_t>(step)).skipped ==
          SkipReason::kNone);
  }
  return thetaOf(*engine);
}

}  // namespace

TEST_CASE("the CUDA engine agrees with the reference engine in every precision") {
  // float32: as for the CPU (engine_test.cc). The others: both operands of a chain of 20 products are rounded,
  // by at most 4.9e-4 and 3.9e-3 and evenly up to that, which adds up like a random walk to 1.8e-3 and 1.4e-2
  // of the typical size; the largest of 15 is three times that. The Jacobian goes through twice as many.
  struct Bar {
    cuda::Precision precision;
    double logits, jacobian;
  };
  for (const Bar& bar :
       {Bar{cuda::Precision::kFloat32, 1e-5, 5e-5}, Bar{cuda::Precision::kTf32, 6e-3, 1e-2},
        Bar{cuda::Precision::kBfloat16, 5e-2, 8e-2}}) {
    for (const int multiprocessors : {1, 32}) {
      CAPTURE(multiprocessors);
      const auto vit = vitOn(cudaBackend(bar.precision, multiprocessors));
      const auto vitReference = vitOn(ref::makeRefBackend());
      checkAgreement(*vit, *vitReference, {pixels(*vit, 3, 2), 3, 0}, bar.logits, bar.jacobian);
      const auto bert = bertOn(cudaBackend(bar.precision, multiprocessors));
      const auto bertReference = bertOn(ref::makeRefBackend());
      const std::vector<float> texts = tinyTexts(TinyBert{}, {9, 4, 7}, 9, 5);
      checkAgreement(*bert, *bertReference, {texts, 3, 9}, bar.logits, bar.jacobian);
    }
  }
}

TEST_CASE("a model on the CUDA backend learns as on the reference, with LoKO and with AdamW") {
  // float32 rounding of 6e-8 in each step, amplified by 40 steps of learning. Measured: see the bound.
  for (const MakeOptimizer& make : {MakeOptimizer(makeLoko), MakeOptimizer(makeAdamW)}) {
    const std::vector<float> reference = trained(ref::makeRefBackend(), make, 40);
    const std::vector<float> first = trained(cudaBackend(), make, 40);
    CHECK(distance(first, reference) < 2e-4);
    CHECK(trained(cudaBackend(), make, 40) == first);
  }
}

TEST_CASE("kernels overlap where device and driver know how, unless they are told not to") {
  struct Case {
    int generation, driver;
    bool wanted, overlap;
  };
  std::vector<float> first;
  for (const Case& it :
       {Case{9, 12030, true, true}, Case{10, 13000, true, true}, Case{8, 13000, true, false},
        Case{9, 12020, true, false}, Case{9, 13000, false, false}}) {
    CAPTURE(it.generation);
    CAPTURE(it.driver);
    emulation::DeviceModel model;
    model.major = it.generation;
    model.driverVersion = it.driver;
    model.runtimeVersion = 12000;
    emulation::setDeviceModel(model);
    cuda::CudaOptions options;
    options.overlap = it.wanted;
    const std::int64_t before = emulation::counters().overlapping;
    const std::vector<float> theta = trained(cuda::makeCudaBackend(options), makeLoko, 3);
    CHECK((emulation::counters().overlapping > before) == it.overlap);
    if (first.empty()) first = theta;
    CHECK(theta == first);
  }
  emulation::reset();
}

TEST_CASE("no result depends on the order in which the threads of a GPU run") {
  std::vector<float> first;
  for (const emulation::Order order :
       {emulation::Order::kForward, emulation::Order::kReverse, emulation::Order::kShuffled}) {
    emulation::setOrder(order, order, 3);
    const std::vector<float> theta =
        trained(cudaBackend(cuda::Precision::kBfloat16, 16), makeLoko, 3);
    if (first.empty()) first = theta;
    CHECK(theta == first);
  }
  emulation::reset();
}

TEST_CASE("a block of a transformer takes at most 8 kernels forward and 10 backward") {
  const auto kernels = [](int layers, bool backward) {
    const auto engine = vitOn(cudaBackend(), layers);
    const TestBatch input{pixels(*engine, 1, 1), 1, 0};
    logitsOf(*engine, input);
    const std::vector<double> cotangent(static_cast<std::size_t>(engine->outputs()), 0.5);
    if (backward) engine->gradient(cotangent);
    thetaOf(*engine);  // waits for what lies on the stream
    const std::int64_t before = emulation::counters().kernels;
    std::vector<double> logits;
    if (backward) {
      engine->gradient(cotangent);
    } else {
      engine->forward(logits);
    }
    thetaOf(*engine);
    return emulation::counters().kernels - before;
  };
  CHECK(kernels(5, false) - kernels(4, false) <= 8);
  CHECK(kernels(5, true) - kernels(4, true) <= 10);
}

TEST_CASE("from the second step of a shape on, a pass is one graph, and nothing is allocated") {
  const auto engine = vitOn(cudaBackend());
  const auto optimizer = makeLoko(*engine);
  for (std::uint64_t step = 0; step < 6; ++step) learn(*optimizer, *engine, step);
  const emulation::Counters before = emulation::counters();
  for (std::uint64_t step = 6; step < 16; ++step) learn(*optimizer, *engine, step);
  const emulation::Counters after = emulation::counters();
  CHECK(after.graphLaunches - before.graphLaunches >= 18);  // a rank may be met for the first time
  CHECK(after.deviceAllocations == before.deviceAllocations);
  CHECK(after.liveGraphExecs <= 64);
}

TEST_CASE("a pass that cannot be captured runs without a graph, with the same bits") {
  const std::vector<float> expected = trained(cudaBackend(), makeAdamW, 6);
  for (const int nth : {1, 2}) {
    const auto engine = vitOn(cudaBackend());
    const auto optimizer = makeAdamW(*engine);
    emulation::failCapture(nth);
    const emulation::Counters before = emulation::counters();
    for (std::uint64_t step = 0; step < 6; ++step) learn(*optimizer, *engine, step);
    const emulation::Counters after = emulation::counters();
    CHECK(thetaOf(*engine) == expected);
    // Of the other pass, from its second time on: forward, whose first step makes room for backward, one later.
    CHECK(after.graphLaunches - before.graphLaunches == (nth == 1 ? 4 : 5));
    CHECK(after.liveGraphs == 0);
  }
  emulation::reset();
}

TEST_CASE("graphs are captured anew where memory has moved, with the same results") {
  const auto engine = vitOn(cudaBackend());
  const TestBatch one{pixels(*engine, 1, 1), 1, 0}, many{pixels(*engine, 5, 2), 5, 0};
  const std::vector<double> first = logitsOf(*engine, one);
  for (int i = 0; i < 3; ++i) CHECK(logitsOf(*engine, one) == first);
  logitsOf(*engine, many);  // larger spaces
  for (int i = 0; i < 3; ++i) CHECK(logitsOf(*engine, one) == first);
}

TEST_CASE(
    "a recorded pass is not taken for one with other variances at the same address of the host") {
  const auto backend = cudaBackend();
  constexpr int kParameters = 40;
  const std::vector<float> ones(kParameters, 1.0F);
  backend->reserveJacobian(1, kParameters);
  backend->write(Space::kJacobian, 0, ones.data(), kParameters);
  const std::vector<Step> steps{Gram{0, kParameters}};
  WorkspaceHint hint;
  hint.maxGramRows = 1;
  backend->prepare(steps, hint);
  const auto gramOf = [&](const StateArray& weights) {
    double gram = 0;
    Frame frame;
    frame.gram = &gram;
    frame.gramRows = 1;
    frame.gramWeights = &weights;
    backend->runAll(steps, frame);
    return gram;
  };
  std::optional<cuda::State> weights(std::in_place, kParameters);
  backend->fill(*weights, 0, kParameters, 2);
  for (int run = 0; run < 3; ++run) CHECK(gramOf(*weights) == 2 * kParameters);
  weights.reset();
  const auto inItsPlace = backend->makeState(kParameters, 7);
  weights.emplace(kParameters);
  backend->fill(*weights, 0, kParameters, 3);
  for (int run = 0; run < 3; ++run) CHECK(gramOf(*weights) == 3 * kParameters);
}

TEST_CASE("an error of the GPU names the kernel, ends its model and no other") {
  const auto engine = vitOn(cudaBackend());
  const auto optimizer = makeAdamW(*engine);
  learn(*optimizer, *engine, 0);
  emulation::failKernel(20);
  const auto failure = [&] {
    try {
      learn(*optimizer, *engine, 1);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kDeviceFailed);
      return std::string(error.what());
    }
    return std::string();
  };
  const std::string message = failure();
  CAPTURE(message);
  CHECK(message.find("cudaErrorIllegalAddress") != std::string::npos);
  CHECK(failure() == message);

  const auto onCpu = vitOn(cpu::makeCpuBackend(1));
  const auto other = makeAdamW(*onCpu);
  CHECK(learn(*other, *onCpu, 0).skipped == SkipReason::kNone);
  emulation::reset();
}

TEST_CASE("a GPU without memory is an error with its code, and everything is given back") {
  emulation::reset();
  const std::int64_t before = emulation::counters().liveDeviceBytes;
  int failures = 0;
  for (int nth = 1;; nth += nth < 8 ? 1 : 7) {
    emulation::failAllocation(nth);
    try {
      const auto engine = vitOn(cudaBackend());
      const auto optimizer = makeLoko(*engine);
      learn(*optimizer, *engine, 0);
      break;
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kOutOfMemory);
      ++failures;
    }
    emulation::failAllocation(0);
    CHECK(emulation::counters().liveDeviceBytes == before);
  }
  emulation::reset();
  CHECK(failures > 8);
}

TEST_CASE("a batch that does not fit into memory changes nothing, and those that fitted go on") {
  for (const MakeOptimizer& make : {MakeOptimizer(makeLoko), MakeOptimizer(makeAdamW)}) {
    const auto untroubled = vitOn(cudaBackend());
    const auto undisturbed = make(*untroubled);
    for (std::uint64_t step = 0; step < 4; ++step) learn(*undisturbed, *untroubled, step);
    const std::vector<float> expected = thetaOf(*untroubled);

    int failures = 0;
    for (int nth = 1; nth < 20; ++nth) {
      CAPTURE(nth);
      const auto engine = vitOn(cudaBackend());
      const auto optimizer = make(*engine);
      for (std::uint64_t step = 0; step < 2; ++step) learn(*optimizer, *engine, step);
      emulation::failAllocation(nth);
      try {
        learn(*optimizer, *engine, 9, 24);
        break;
      } catch (const Error& error) {
        CHECK(error.code() == ErrorCode::kOutOfMemory);
        ++failures;
      }
      emulation::failAllocation(0);
      for (std::uint64_t step = 2; step < 4; ++step) learn(*optimizer, *engine, step);
      CHECK(thetaOf(*engine) == expected);
    }
    emulation::reset();
    CHECK(failures > 2);
  }
}

}  // namespace loko
