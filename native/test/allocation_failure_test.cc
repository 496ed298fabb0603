// Memory that runs out at any moment: the n-th allocation fails, for every n. What fails so has happened
// whole or not at all, and what follows has the bits that it would have had.

#include <atomic>
#include <cstdlib>
#include <functional>
#include <new>

#include "core/rng.h"
#include "cpu/cpu_backend.h"
#include "engine_testing.h"
#include "filter/gradient_optimizer.h"
#include "filter/loko_optimizer.h"
#include "filter/optimizer_state.h"
#include "filter_testing.h"
#include "test/tiny_vit.h"

namespace {

// Counted in all threads, because the pool's would have to survive a failure too.
std::atomic<std::int64_t> allowed{-1};  // negative: all

void* allocate(std::size_t size) {
  if (allowed >= 0 && allowed.fetch_sub(1) == 0) throw std::bad_alloc();
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}

}  // namespace

// The other forms of new and delete come down to these; the one that does not throw is a sanitizer's own
// otherwise. Not inlined: GCC would see a free() of what it knows as memory of its own operator new.
[[gnu::noinline]] void* operator new(std::size_t size) {
  return allocate(size);
}
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  try {
    return allocate(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

namespace loko::test {
namespace {

/// Runs `work` with `count` allocations; whether it came to its end.
bool survives(std::int64_t count, const std::function<void()>& work) {
  allowed = count;
  try {
    work();
    allowed = -1;
    return true;
  } catch (const std::bad_alloc&) {
    allowed = -1;
    return false;
  } catch (...) {
    allowed = -1;
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
