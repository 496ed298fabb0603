// Memory that runs out at any moment: the n-th allocation fails, for every n. What fails so has happened
// whole or not at all, and what follows has the bits that it would have had.

#include <functional>
#include <new>

#include "core/rng.h"
#include "core/status.h"
#include "cpu/cpu_backend.h"
#include "engine_testing.h"
#include "filter/gradient_optimizer.h"
#include "filter/loko_optimizer.h"
#include "filter/optimizer_state.h"
#include "filter_testing.h"
#include "op_allocations.h"
#include "test/tiny_vit.h"

#ifndef LOKO_TEST_SANITIZED

namespace loko::test {
namespace {

/// Runs `work` with `count` allocations; whether it came to its end.
bool survives(std::int64_t count, const std::function<void()>& work) {
  allocationsAllowed = count;
  try {
    work();
    allocationsAllowed = -1;
    return true;
  } catch (const std::bad_alloc&) {
    allocationsAllowed = -1;
    return false;
  } catch (const Error& error) {  // what a backend makes of it
    allocationsAllowed = -1;
    if (error.code() != ErrorCode::kOutOfMemory) throw;
    return false;
  } catch (...) {
    allocationsAllowed = -1;
    throw;
  }
}

TinyVit twoLayers() {
  TinyVit shape;
  shape.layers = 2;
  return shape;
}

using Kind = std::function<std::unique_ptr<Optimizer>(Engine&)>;

std::unique_ptr<Optimizer> makeLoko(Engine& engine, const LokoOptions& options) {
  return std::make_unique<LokoOptimizer>(engine.backend(), engine.parameters(), engine.outputs(),
                                         options, std::vector<ParameterRange>{});
}

std::vector<Kind> kinds() {
  LokoOptions categorical;
  categorical.observation = Observation::kCategorical;
  categorical.qRatio = 1e-3;
  LokoOptions residual = LokoOptions::paper();
  residual.noise = NoiseMode::kResidual;
  return {[](Engine& engine) { return makeLoko(engine, LokoOptions::paper()); },
          [=](Engine& engine) { return makeLoko(engine, categorical); },
          [=](Engine& engine) { return makeLoko(engine, residual); },
          [](Engine& engine) -> std::unique_ptr<Optimizer> {
            return std::make_unique<GradientOptimizer>(
                engine.backend(), engine.parameters(),
                GradientOptions::defaults(GradientUpdate::Rule::kAdamW));
          }};
}

/// An engine in training. Every batch is the same one, drawn once.
struct Training {
  explicit Training(const Kind& kind) {
    TinyVitBuilder builder(twoLayers());
    engine = builder.engine(cpu::makeCpuBackend(2));
    engine->setAdapter(makeAdapter(builder.graph(), {"query", "value", "fc1"}, 2, {"classifier"}));
    optimizer = kind(*engine);
    pixels.resize(2 * 12 * 12);
    const RandomStream random(3, "pixels");
    for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = random.normal(i);
    targets.labels = {3};
  }
  void step() {
    engine->setBatch(pixels.data(), 1);
    optimizer->step(*engine, targets);
  }
  std::vector<double> state() { return readState(*optimizer, *engine); }

  std::unique_ptr<Engine> engine;
  std::unique_ptr<Optimizer> optimizer;
  std::vector<float> pixels;
  Targets targets;
};

}  // namespace

TEST_SUITE("out of memory") {
  TEST_CASE("a step that fails at any allocation changes nothing, and can be repeated") {
    for (const Kind& kind : kinds()) {
      Training training(kind);
      training.step();
      training.step();
      const std::vector<double> before = training.state();
      training.step();
      const std::vector<double> after = training.state();
      REQUIRE(!sameBits(before, after));
      std::int64_t failures = 0;
      for (;; ++failures) {
        writeState(*training.optimizer, *training.engine, before);
        CAPTURE(failures);
        if (survives(failures, [&] { training.step(); })) break;
        CHECK(sameBits(training.state(), before));
        training.step();
        CHECK(sameBits(training.state(), after));
      }
      CHECK(sameBits(training.state(), after));
      CHECK(failures > 0);
    }
  }

  TEST_CASE("a first step that fails at any allocation can be repeated") {
    const Kind kind = kinds()[1];
    Training reference(kind);
    const std::vector<double> before = reference.state();
    reference.step();
    const std::vector<double> after = reference.state();
    // Lowering allocates hundreds of times: every one of the first, then some of the rest.
    for (std::int64_t count = 0;; count += count < 40 ? 1 : 13) {
      CAPTURE(count);
      Training training(kind);
      if (survives(count, [&] { training.step(); })) break;
      CHECK(sameBits(training.state(), before));
      training.step();
      CHECK(sameBits(training.state(), after));
    }
  }

  TEST_CASE("an adapter is merged whole or not at all") {
    const Kind kind = kinds()[3];
    Training reference(kind);
    const auto logits = [](Training& training) {
      return logitsOf(*training.engine, TestBatch{training.pixels, 1, 0});
    };
    const auto predicted = [](Training& training) {
      std::vector<double> values;
      training.engine->setBatch(training.pixels.data(), 1);
      training.engine->predict(values);
      return values;
    };
    const std::vector<double> before = logits(reference);
    reference.engine->mergeAdapter();
    const std::vector<double> after = predicted(reference);
    std::int64_t failures = 0;
    for (;; ++failures) {
      CAPTURE(failures);
      Training training(kind);
      if (survives(failures, [&] { training.engine->mergeAdapter(); })) break;
      CHECK(training.engine->parameters() > 0);
      CHECK(sameBits(logits(training), before));
      training.engine->mergeAdapter();
      CHECK(sameBits(predicted(training), after));
    }
    CHECK(failures > 10);
  }
}

}  // namespace loko::test

#endif
