// What every backend promises beside the operations: memory, state, errors; and the anchors of the
// specification itself: numbers known from elsewhere.

#include "op_harness.h"
#include "ref/activation.h"

namespace loko::test {

namespace {

View scratchView(std::int64_t offset, int rows, int cols, std::int64_t ld, std::int64_t stride) {
  View view;
  view.space = Space::kScratch;
  view.offset = offset;
  view.rows = rows;
  view.cols = cols;
  view.ld = ld;
  view.sampleStride = stride;
  return view;
}

std::vector<float> readAll(Backend& backend, Space space, std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  backend.read(space, 0, values.data(), count);
  return values;
}

}  // namespace

TEST_CASE("Activations of the specification have the values that PyTorch gives") {
  // torch.nn.functional in float64 at 1 and -2: gelu, gelu(approximate="tanh"), relu, x sigmoid(1.702 x),
  // tanh
  struct Known {
    Activation activation;
    double atOne, atMinusTwo;
  };
  for (const Known& known :
       {Known{Activation::kNone, 1, -2}, Known{Activation::kRelu, 1, 0},
        Known{Activation::kGelu, 0.841344746068543, -0.04550026389635842},
        Known{Activation::kGeluTanh, 0.8411919906082768, -0.04540230591222494},
        Known{Activation::kQuickGelu, 0.8457957659328212, -0.06434137685579186},
        Known{Activation::kTanh, 0.7615941559557649, -0.9640275800758169}}) {
    CHECK(ref::activate(known.activation, 1.0).value ==
          doctest::Approx(known.atOne).epsilon(1e-14));
    CHECK(ref::activate(known.activation, -2.0).value ==
          doctest::Approx(known.atMinusTwo).epsilon(1e-13));
  }
}

TEST_CASE("The specification normalises, attends and multiplies as computed by hand") {
  OpCase op(1, 1);
  // Softmax of scores 0 and ln 3 is 1/4 and 3/4.
  Attention attention;
  attention.heads = 1;
  attention.scale = 1;
  attention.q = op.read(Axis::kSamples, 1, 1);
  attention.k = op.read(Axis::kSamples, 2, 1);
  attention.v = op.read(Axis::kSamples, 2, 1);
  attention.o = op.written(Axis::kSamples, 1, 1);
  // x = (1, 3): mean 2, biased variance 1, with eps = 3: rstd 1/2.
  LayerNorm norm;
  norm.eps = 3;
  norm.x = op.read(Axis::kSamples, 1, 2);
  norm.y = op.written(Axis::kSamples, 1, 2);
  norm.gamma = op.vector(2);
  norm.beta = op.vector(2);
  // W = [[1, 2], [3, 4], [5, 6]] on x = (1, 3) is (7, 15, 23); scale B h on rows 1 and 2 only.
  Linear linear;
  linear.x = norm.x;
  linear.y = op.written(Axis::kSamples, 1, 3);
  linear.h = op.read(Axis::kSamples, 1, 1);
  linear.weight = op.matrix(3, 2);
  linear.sites.push_back(op.site(1, 2, 1, 3, 0));

  ref::Memory<double> memory = specificationMemory<double>(op);
  const auto set = [&](const View& view, std::initializer_list<double> values) {
    std::copy(values.begin(), values.end(), memory.scratch.begin() + view.offset);
  };
  const auto at = [&](const View& view, int c) {
    return memory.scratch[static_cast<std::size_t>(view.offset + c)];
  };
  set(attention.q, {1});
  set(attention.k, {0, std::log(3.0)});
  set(attention.v, {10, 20});
  set(norm.x, {1, 3});
  set(linear.h, {2});
  memory.weights[0].values = {1, 10};
  memory.weights[1].values = {0, 0.25};
  memory.weights[2].values = {1, 2, 3, 4, 5, 6};
  memory.theta[static_cast<std::size_t>(linear.sites[0].b)] = 7;
  memory.theta[static_cast<std::size_t>(linear.sites[0].b) + 1] = -1;
  for (const Step& step : {Step{attention}, Step{norm}, Step{linear}}) {
    runSpecification(step, op.frame, memory);
  }
  CHECK(at(attention.o, 0) == doctest::Approx(17.5).epsilon(1e-15));
  CHECK(at(norm.y, 0) == -0.5);
  CHECK(at(norm.y, 1) == 5.25);
  CHECK(at(linear.y, 0) == 7);
  CHECK(at(linear.y, 1) == 15 + 2 * 2 * 7);  // the scale of the site is 2
  CHECK(at(linear.y, 2) == 23 + 2 * 2 * -1);
}

TEST_CASE("A view is read and written in double, row by row, and nothing else is touched") {
  for (const Candidate& candidate : candidates()) {
    CAPTURE(candidate.name);
    const auto backend = candidate.make(1);
    backend->reserve(Space::kScratch, 40);
    std::vector<float> memory(40);
    for (std::size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<float>(i);
    backend->write(Space::kScratch, 0, memory.data(), 40);
    const View view = scratchView(3, 2, 3, 5, 17);
    std::vector<double> values(12);
    backend->readView(view, 2, values.data());
    CHECK(values == std::vector<double>{3, 4, 5, 8, 9, 10, 20, 21, 22, 25, 26, 27});
    for (double& value : values) value = -value;
    backend->writeView(view, 2, values.data());
    for (const std::size_t i : {3, 4, 5, 8, 9, 10, 20, 21, 22, 25, 26, 27}) memory[i] = -memory[i];
    CHECK(readAll(*backend, Space::kScratch, 40) == memory);
  }
}

TEST_CASE("Theta keeps its values when it grows, and the Jacobian has the parameters as its rows") {
  for (const Candidate& candidate : candidates()) {
    CAPTURE(candidate.name);
    const auto backend = candidate.make(1);
    const std::vector<float> theta{1, 2, 3};
    backend->reserve(Space::kTheta, 3);
    backend->write(Space::kTheta, 0, theta.data(), 3);
    backend->reserve(Space::kTheta, 3000);
    CHECK(readAll(*backend, Space::kTheta, 3) == theta);
    backend->reserve(Space::kTheta, 1);
    CHECK(readAll(*backend, Space::kTheta, 3) == theta);

    backend->reserveJacobian(3, 5);
    const std::vector<float> zeros(15);
    backend->write(Space::kJacobian, 0, zeros.data(), 15);
    OpCase op(1, 1);
    op.frame.firstRow = 1;
    op.step = WeightBackward{op.read(Axis::kSegments, 1, 1), op.read(Axis::kSamples, 1, 2), 3,
                             kNoParameter};
    backend->reserve(Space::kScratch, static_cast<std::int64_t>(op.scratch.size()));
    std::fill(op.scratch.begin(), op.scratch.end(), 1.0f);
    backend->write(Space::kScratch, 0, op.scratch.data(),
                   static_cast<std::int64_t>(op.scratch.size()));
    backend->prepare({op.step}, {1, 1, 0});
    backend->run(op.step, op.frame);
    std::vector<float> expected(15);
    expected[5 + 3] = expected[5 + 4] = 1;
    CHECK(readAll(*backend, Space::kJacobian, 15) == expected);
  }
}

TEST_CASE("Optimizer state is filled by ranges, read and written") {
  for (const Candidate& candidate : candidates()) {
    CAPTURE(candidate.name);
    const auto backend = candidate.make(1);
    const auto state = backend->makeState(5, 0.5);
    CHECK(state->size() == 5);
    backend->fill(*state, 1, 3, 2);
    std::vector<double> values(5);
    backend->readState(*state, values.data());
    CHECK(values == std::vector<double>{0.5, 2, 2, 0.5, 0.5});
    const std::vector<double> written{1, 2, 3, 4, 5};
    backend->writeState(*state, 0, 5, written.data());
    backend->readState(*state, values.data());
    CHECK(values == written);
    backend->writeState(*state, 3, 5, written.data());
    backend->readState(*state, values.data());
    CHECK(values == std::vector<double>{1, 2, 3, 1, 2});
    CHECK_THROWS_AS(backend->fill(*state, 0, 6, 1), Error);
    CHECK_THROWS_AS(backend->writeState(*state, 1, 6, written.data()), Error);
  }
}

TEST_CASE("A step that cannot run throws an error that names it, and the backend stays usable") {
  for (const Candidate& candidate : candidates()) {
    CAPTURE(candidate.name);
    const auto backend = candidate.make(1);
    backend->reserve(Space::kScratch, 100);
    const std::vector<float> zeros(100);
    backend->write(Space::kScratch, 0, zeros.data(), 100);
    const Step good = ClearRows{scratchView(0, 10, 10, 10, 100)};
    const auto fails = [&](const Step& step) {
      std::string message = "nothing was thrown";
      try {
        backend->run(step, Frame{});
      } catch (const Error& error) {
        CHECK(error.code() == ErrorCode::kInternal);
        message = error.what();
      }
      CAPTURE(message);
      CHECK(message.find(stepName(step)) != std::string::npos);
      backend->run(good, Frame{});
    };
    backend->prepare({good}, {1, 1, 0});
    fails(ClearRows{scratchView(1, 10, 10, 10, 100)});  // one element too far
    fails(ClearRows{scratchView(-1, 1, 1, 1, 1)});
    fails(ActivationBackward{scratchView(0, 2, 3, 3, 6), {scratchView(50, 3, 2, 2, 6)}});
    LayerNorm norm;
    norm.x = norm.y = scratchView(0, 1, 10, 10, 10);
    norm.gamma = norm.beta = backend->addVector(zeros.data(), 9);
    fails(norm);
    norm.gamma = 17;  // no such weight
    fails(norm);
  }
}

}  // namespace loko::test
