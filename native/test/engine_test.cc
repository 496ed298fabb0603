// The planner and the engine end to end, on every backend: whole-model Jacobians against differences
// of the logits, and the ways in which one answer can be computed against each other.

#include "core/engine.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/rng.h"
#include "core/status.h"
#include "cpu/cpu_backend.h"
#include "doctest/doctest.h"
#include "ref/ref_backend.h"
#include "test/engine_testing.h"
#include "test/recording_backend.h"
#include "test/tiny_vit.h"

namespace loko {

namespace {

const std::vector<std::string> kAllLinear{"query", "key", "value", "output", "fc1", "fc2"};

std::unique_ptr<Engine> makeEngine(std::unique_ptr<Backend> backend,
                                   const std::vector<std::string>& targets,
                                   const std::vector<std::string>& trained,
                                   const TinyVit& shape = {}, LoraInit init = LoraInit::kRandom) {
  TinyVitBuilder builder(shape);
  const Adapter adapter = makeAdapter(builder.graph(), targets, 2, trained, init);
  auto engine = builder.engine(std::move(backend));
  engine->setAdapter(adapter);
  return engine;
}

std::vector<double> logitsOf(Engine& engine, const std::vector<float>& input, int batch) {
  return logitsOf(engine, {input, batch, 0});
}

}  // namespace

TEST_CASE("the Jacobian of the whole model is the derivative of its logits") {
  for (const bool wide : {false, true}) {
    TinyVit shape;
    shape.activation = wide ? Activation::kGeluTanh : Activation::kGelu;
    const auto engine = makeEngine(ref::makeRefBackend(),
                                   wide ? kAllLinear : std::vector<std::string>{"query", "value"},
                                   {"classifier"}, shape);
    CHECK(worstDerivative(*engine, {pixels(*engine, 2, 1), 2, 0}, 7) < 1e-6);
  }
}

TEST_CASE("the CPU engine agrees with the reference engine") {
  // Relative errors of float32 products of width ~40 through 3 blocks: a few hundred roundings of
  // 6e-8 each.
  for (const Activation activation :
       {Activation::kGelu, Activation::kRelu, Activation::kQuickGelu, Activation::kGeluTanh}) {
    TinyVit shape;
    shape.activation = activation;
    const auto reference = makeEngine(ref::makeRefBackend(), kAllLinear, {"classifier"}, shape);
    for (const cpu::Isa isa : cpu::availableIsas()) {
      const auto engine =
          makeEngine(cpu::makeCpuBackend(2, isa), kAllLinear, {"classifier"}, shape);
      const std::vector<float> input = pixels(*engine, 3, 2);
      const std::vector<double> expected = logitsOf(*reference, input, 3);
      const std::vector<double> actual = logitsOf(*engine, input, 3);
      for (std::size_t i = 0; i < expected.size(); ++i) {
        CHECK(std::abs(actual[i] - expected[i]) < 1e-5 * (1 + std::abs(expected[i])));
      }
      for (const JacobianOf what : {JacobianOf::kLogits, JacobianOf::kSoftmax}) {
        CHECK(worstRow(engine->jacobianOf(what), reference->jacobianOf(what),
                       engine->parameters()) < 5e-5);
      }
    }
  }
}

TEST_CASE("rows propagated together, in passes, or on other threads are the same bits") {
  std::vector<float> first;
  for (const int threads : {1, 2, 3}) {
    for (const int passRows : {0, 1, 2, 3}) {
      const auto engine =
          makeEngine(cpu::makeCpuBackend(threads), {"query", "value", "fc1"}, {"classifier"});
      engine->limitPassRows(passRows);
      const std::vector<float> input = pixels(*engine, 2, 3);
      engine->setBatch(input.data(), 2);
      const std::vector<float> jacobian = engine->jacobianOf(JacobianOf::kLogits);
      if (first.empty()) first = jacobian;
      CHECK(jacobian == first);
    }
  }
}

TEST_CASE("a batch is its samples") {
  const auto engine = makeEngine(cpu::makeCpuBackend(2), kAllLinear, {"classifier"});
  const std::vector<float> input = pixels(*engine, 3, 4);
  engine->setBatch(input.data(), 3);
  const std::vector<float> together = engine->jacobianOf(JacobianOf::kLogits);
  const std::size_t sample = input.size() / 3, block = together.size() / 3;
  for (std::size_t b = 0; b < 3; ++b) {
    engine->setBatch(input.data() + b * sample, 1);
    const std::vector<float> alone = engine->jacobianOf(JacobianOf::kLogits);
    const std::vector<float> part(together.begin() + static_cast<std::ptrdiff_t>(b * block),
                                  together.begin() + static_cast<std::ptrdiff_t>((b + 1) * block));
    CHECK(worstRow(part, alone, engine->parameters()) < 1e-5);
  }
}

TEST_CASE("the gradient is the sum of the samples' cotangents times their Jacobians") {
  for (const bool onCpu : {false, true}) {
    const auto engine = makeEngine(onCpu ? cpu::makeCpuBackend(2) : ref::makeRefBackend(),
                                   kAllLinear, {"classifier"});
    const std::vector<float> input = pixels(*engine, 3, 5);
    engine->setBatch(input.data(), 3);
    const std::vector<float> jacobian = engine->jacobianOf(JacobianOf::kLogits);
    const std::int64_t n = engine->parameters();
    const RandomStream random(6, "cotangents");
    std::vector<double> cotangents(static_cast<std::size_t>(3 * engine->outputs()));
    for (std::size_t i = 0; i < cotangents.size(); ++i) cotangents[i] = random.normal(i);
    logitsOf(*engine, input, 3);
    engine->gradient(cotangents);
    std::vector<float> gradient(static_cast<std::size_t>(n)), expected(gradient.size());
    engine->backend().read(Space::kJacobian, 0, gradient.data(), n);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      double sum = 0;
      for (std::size_t row = 0; row < cotangents.size(); ++row) {
        sum += cotangents[row] * jacobian[row * static_cast<std::size_t>(n) + i];
      }
      expected[i] = static_cast<float>(sum);
    }
    CHECK(worstRow(gradient, expected, n) < 1e-5);
  }
}

TEST_CASE("the Gram matrix taken during backward is that of the stored rows") {
  for (const int passRows : {0, 2}) {
    const auto engine = makeEngine(cpu::makeCpuBackend(2), {"query", "value"}, {"classifier"});
    engine->limitPassRows(passRows);
    const std::vector<float> input = pixels(*engine, 1, 7);
    logitsOf(*engine, input, 1);
    const int m = engine->outputs();
    std::vector<double> identity(static_cast<std::size_t>(m * m), 0.0);
    for (int i = 0; i < m; ++i) identity[static_cast<std::size_t>(i * m + i)] = 1;
    const auto p = engine->backend().makeState(engine->parameters(), 0.25);
    std::vector<double> during(identity.size()), after(identity.size());
    engine->jacobian(identity, m, {during.data(), p.get()});
    engine->gram(m, {after.data(), p.get()});
    const std::int64_t n = engine->parameters();
    std::vector<float> rows(static_cast<std::size_t>(m * n));
    engine->backend().read(Space::kJacobian, 0, rows.data(), m * n);
    for (int a = 0; a < m; ++a) {
      for (int b = 0; b < m; ++b) {
        double expected = 0, magnitude = 0;
        for (std::int64_t i = 0; i < n; ++i) {
          const double term = 0.25 * rows[static_cast<std::size_t>(a * n + i)] *
                              rows[static_cast<std::size_t>(b * n + i)];
          expected += term;
          magnitude += std::abs(term);
        }
        const auto at = static_cast<std::size_t>(a * m + b);
        CHECK(std::abs(during[at] - expected) < 1e-6 * magnitude);
        CHECK(std::abs(after[at] - expected) < 1e-6 * magnitude);
      }
    }
  }
}

TEST_CASE("with B = 0 only B and the head feel anything") {
  const auto engine =
      makeEngine(cpu::makeCpuBackend(1), {"query"}, {"classifier"}, {}, LoraInit::kKaiming);
  const std::vector<float> input = pixels(*engine, 1, 8);
  engine->setBatch(input.data(), 1);
  const std::vector<float> jacobian = engine->jacobianOf(JacobianOf::kLogits);
  const std::int64_t n = engine->parameters();
  for (const AdaptedModule& lora : engine->adapter().lora) {
    for (int row = 0; row < engine->outputs(); ++row) {
      const auto begin = jacobian.begin() + row * n;
      CHECK(std::all_of(begin + lora.a, begin + lora.b, [](float g) { return g == 0; }));
      CHECK(std::any_of(begin + lora.b, begin + lora.b + 10, [](float g) { return g != 0; }));
    }
  }
}

TEST_CASE("a non-finite pixel is refused with its place, and the engine goes on") {
  const auto engine = makeEngine(cpu::makeCpuBackend(1), {"query"}, {"classifier"});
  std::vector<float> input = pixels(*engine, 2, 9);
  const std::vector<double> before = logitsOf(*engine, input, 2);
  std::vector<float> broken = input;
  broken[288 + 144 + 12 + 3] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH_AS(engine->setBatch(broken.data(), 2),
                       doctest::Contains("sample 1, channel 1, row 1, column 3"), Error);
  CHECK(logitsOf(*engine, input, 2) == before);
}

TEST_CASE("inference and training plans give the same logits") {
  const auto engine = makeEngine(cpu::makeCpuBackend(2), kAllLinear, {"classifier"});
  const std::vector<float> input = pixels(*engine, 2, 10);
  const std::vector<double> training = logitsOf(*engine, input, 2);
  std::vector<double> inference;
  engine->predict(inference);
  CHECK(inference == training);
}

TEST_CASE("a gradient takes no Gram workspace, a Jacobian as much as its rows need") {
  // Outputs times batch is 1280 rows here: their Gram workspace would be 6 MB or more.
  std::vector<WorkspaceHint> hints;
  TinyVit shape;
  shape.labels = 40;
  const auto engine = makeEngine(std::make_unique<RecordingBackend>(cpu::makeCpuBackend(1), hints),
                                 {"query"}, {"classifier"}, shape);
  const auto mostGramRows = [&] {
    int most = 0;
    for (const WorkspaceHint& hint : hints) most = std::max(most, hint.maxGramRows);
    return most;
  };
  const std::vector<float> input = pixels(*engine, 32, 13);
  logitsOf(*engine, input, 32);
  engine->gradient(std::vector<double>(std::size_t{32} * 40, 0.5));
  CHECK(mostGramRows() == 0);

  logitsOf(*engine, input, 1);
  std::vector<double> gram(9);
  engine->jacobian(std::vector<double>(std::size_t{3} * 40, 0.5), 3, {gram.data()});
  CHECK(mostGramRows() >= 3);
  CHECK(mostGramRows() <= 16);
}

TEST_CASE("the engine keeps the plans of the 32 batch sizes used last, and answers the same") {
  std::vector<WorkspaceHint> hints;
  const auto engine = makeEngine(std::make_unique<RecordingBackend>(cpu::makeCpuBackend(1), hints),
                                 {"query"}, {"classifier"});
  constexpr int kKept = 32;
  const std::vector<float> input = pixels(*engine, kKept + 1, 14);
  const auto lowered = [&](int batch) {
    hints.clear();
    logitsOf(*engine, input, batch);
    return !hints.empty();
  };
  const std::vector<double> before = logitsOf(*engine, input, 1);
  for (int batch = 2; batch <= kKept; ++batch) CHECK(lowered(batch));
  CHECK(!lowered(1));  // used again, so that batch 2 is now the one used longest ago
  CHECK(lowered(kKept + 1));
  CHECK(!lowered(1));
  for (int batch = 3; batch <= kKept + 1; ++batch) CHECK(!lowered(batch));
  CHECK(lowered(2));  // was dropped for the last one, and takes the place of 1
  CHECK(lowered(1));
  CHECK(logitsOf(*engine, input, 1) == before);
}

TEST_CASE("an adapter that cannot be set up leaves the engine as it was") {
  const auto engine = makeEngine(cpu::makeCpuBackend(1), {"query"}, {"classifier"});
  const std::vector<float> input = pixels(*engine, 1, 12);
  const std::vector<double> before = logitsOf(*engine, input, 1);
  Adapter broken = engine->adapter();
  broken.parameters += 10;  // ten parameters that no module owns
  CHECK_THROWS_WITH_AS(engine->setAdapter(broken), doctest::Contains("10 of"), Error);
  broken.parameters = std::int64_t{1} << 50;  // 18 PB, which an overcommitting system would promise
  CHECK_THROWS_WITH_AS(engine->setAdapter(broken), doctest::Contains("smaller rank"), Error);
  CHECK(logitsOf(*engine, input, 1) == before);
}

}  // namespace loko
