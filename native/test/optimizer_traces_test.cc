// The baselines against traces of torch.optim (test/fixtures/optim, written by make_optim.py):
// parameters after 1, 2, 10, 50 and 100 steps of given gradients, in float64 and float32.

#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <sstream>
#include <string>

#include "core/status.h"
#include "filter/gradient_optimizer.h"
#include "filter_testing.h"

namespace loko::test {
namespace {

/// Line 1: name:count of each array; line 2: key=value of each hyper-parameter; then the values, which
/// are float32 in nine digits unless the name of the array says float64.
struct TextFixture {
  std::map<std::string, Vector> arrays;
  std::map<std::string, std::string> parameters;

  explicit TextFixture(const std::string& name) {
    const std::string here = __FILE__;
    const std::string path =
        here.substr(0, here.rfind('/')) + "/../../test/fixtures/optim/text/" + name + ".txt";
    std::ifstream file(path);
    REQUIRE_MESSAGE(file.good(), path);
    std::string line, item;
    std::getline(file, line);
    std::istringstream names(line);
    std::getline(file, line);
    for (std::istringstream pairs(line); pairs >> item;) {
      const std::size_t at = item.find('=');
      parameters[item.substr(0, at)] = item.substr(at + 1);
    }
    while (names >> item) {
      const std::size_t at = item.find(':');
      Vector& values = arrays[item.substr(0, at)];
      const bool isDouble = item.compare(0, 7, "float64") == 0;
      values.resize(std::stoul(item.substr(at + 1)));
      for (double& value : values) {
        file >> line;
        value = std::strtod(line.c_str(), nullptr);
        if (!isDouble) value = static_cast<double>(static_cast<float>(value));
      }
    }
    REQUIRE_MESSAGE(!file.fail(), path);
  }

  double number(const std::string& key, double otherwise) const {
    const auto found = parameters.find(key);
    return found == parameters.end() ? otherwise : std::strtod(found->second.c_str(), nullptr);
  }
};

GradientOptions optionsOf(const TextFixture& trace) {
  using Rule = GradientUpdate::Rule;
  const std::map<std::string, Rule> rules{{"SGD", Rule::kSgd},
                                          {"Adagrad", Rule::kAdaGrad},
                                          {"RMSprop", Rule::kRmsProp},
                                          {"Adam", Rule::kAdam},
                                          {"AdamW", Rule::kAdamW}};
  GradientOptions o = GradientOptions::defaults(rules.at(trace.parameters.at("optimizer")));
  o.learningRate = trace.number("lr", o.learningRate);
  o.weightDecay = trace.number("weight_decay", o.weightDecay);
  o.beta1 = trace.number("beta1", o.beta1);
  o.beta2 = trace.number("beta2", o.beta2);
  o.eps = trace.number("eps", o.eps);
  o.amsgrad = trace.number("amsgrad", 0) != 0;
  o.momentum = trace.number("momentum", 0);
  o.dampening = trace.number("dampening", 0);
  o.nesterov = trace.number("nesterov", 0) != 0;
  o.learningRateDecay = trace.number("lr_decay", 0);
  o.initialAccumulator = trace.number("initial_accumulator_value", 0);
  o.alpha = trace.number("alpha", o.alpha);
  o.centered = trace.number("centered", 0) != 0;
  return o;
}

/// One output, always 1/2, with the given Jacobian row: against the target 0 the cotangent of the
/// squared error is 2 * 1/2 = 1, so the optimizer sees the given gradient to the bit.
class GivenGradient : public FormulaObjective {
 public:
  using FormulaObjective::FormulaObjective;
  Vector next;

 protected:
  Vector evaluate(int, const Vector&) override { return {0.5}; }
  Matrix differentiate(int, const Vector&) override {
    Matrix row(1, static_cast<int>(next.size()));
    row.values = next;
    return row;
  }
};

double largestError(const Vector& theta, const Vector& expected, const Vector& scale) {
  double error = 0;
  for (std::size_t i = 0; i < theta.size(); ++i) {
    error = std::max(error, std::fabs(theta[i] - expected[i]) / scale[i]);
  }
  return error;
}

void follows(const std::string& name, Precision precision, double limit) {
  CAPTURE(name);
  const TextFixture given("gradients"), trace(name);
  const Vector& theta0 = given.arrays.at("theta0");
  const Vector& gradients = given.arrays.at("gradients");
  const std::size_t n = theta0.size();
  GivenGradient objective(precision, 1, theta0);
  GradientOptimizer optimizer(objective.backend(), objective.parameters(), optionsOf(trace));
  const std::string prefix = precision == Precision::kDouble ? "float64/" : "float32/";
  // Relative to the largest value that the coordinate has had: rounding made then stays.
  Vector scale(n);
  for (std::size_t i = 0; i < n; ++i) scale[i] = std::fabs(theta0[i]);
  for (int step = 1; step <= 100; ++step) {
    const auto row = gradients.begin() + static_cast<std::ptrdiff_t>(step - 1) * n;
    objective.next.assign(row, row + n);
    CHECK(optimizer.step(objective, values({0})).skipped == SkipReason::kNone);
    const Vector theta = objective.theta();
    for (std::size_t i = 0; i < n; ++i) scale[i] = std::max(scale[i], std::fabs(theta[i]));
    const auto expected = trace.arrays.find(prefix + std::to_string(step));
    if (expected == trace.arrays.end()) continue;
    CAPTURE(step);
    CHECK(largestError(theta, expected->second, scale) < limit);
  }
}

const std::vector<std::string> kTraces{"sgd",
                                       "sgd_momentum",
                                       "sgd_nesterov",
                                       "sgd_weight_decay",
                                       "adagrad",
                                       "adagrad_lr_decay",
                                       "adagrad_weight_decay",
                                       "rmsprop",
                                       "rmsprop_momentum",
                                       "rmsprop_centered",
                                       "adam",
                                       "adam_weight_decay",
                                       "adam_amsgrad",
                                       "adamw",
                                       "adamw_amsgrad"};

ErrorCode refusal(const GradientOptions& options) {
  try {
    validate(options);
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::kInternal;
}

}  // namespace

TEST_SUITE("baseline optimizers") {
  TEST_CASE("every rule follows torch.optim in float64 over 100 steps") {
    for (const std::string& name : kTraces) follows(name, Precision::kDouble, 1e-12);
  }
  TEST_CASE("every rule follows torch.optim in float32 over 100 steps") {
    for (const std::string& name : kTraces) follows(name, Precision::kFloat, 1e-6);
  }

  TEST_CASE("dampening acts from the second step on, as in PyTorch") {
    GivenGradient objective(Precision::kDouble, 1, {0});
    GradientOptions options = GradientOptions::defaults(GradientUpdate::Rule::kSgd);
    options.learningRate = 1;
    options.momentum = 0.5;
    options.dampening = 0.75;
    GradientOptimizer sgd(objective.backend(), 1, options);
    objective.next = {1};
    sgd.step(objective, values({0}));  // buffer 1
    CHECK(objective.theta()[0] == -1);
    sgd.step(objective, values({0}));  // buffer .5 * 1 + .25 * 1
    CHECK(objective.theta()[0] == -1.75);
  }

  TEST_CASE("the gradient of a batch is that of the mean cross entropy") {
    const int inputs = 3, hidden = 4, m = 5;
    Random random(1);
    const Vector theta = random.vector(TanhNetwork::size(inputs, hidden, m));
    const std::vector<Vector> samples{random.vector(inputs), random.vector(inputs),
                                      random.vector(inputs)};
    const Targets targets{{4, 0, 2}, {}};
    TanhNetwork network(Precision::kDouble, inputs, hidden, m, theta);
    network.setBatch(samples);
    GradientOptions options = GradientOptions::defaults(GradientUpdate::Rule::kSgd);
    options.learningRate = 0.5;
    GradientOptimizer sgd(network.backend(), network.parameters(), options);
    sgd.step(network, targets);
    const Vector moved = network.theta();

    options.learningRate = 0;
    GradientOptimizer probe(network.backend(), network.parameters(), options);
    const auto lossAt = [&](std::size_t i, double shift) {
      Vector shifted = theta;
      shifted[i] += shift;
      network.setTheta(shifted);
      return probe.step(network, targets).loss;
    };
    const double h = 1e-5;  // central differences: error h^2, rounding 1e-16/h
    for (std::size_t i = 0; i < theta.size(); ++i) {
      const double slope = (lossAt(i, h) - lossAt(i, -h)) / (2 * h);
      CHECK((theta[i] - moved[i]) / 0.5 == doctest::Approx(slope).epsilon(1e-7));
    }
  }

  TEST_CASE("values are learned by the mean squared error over all elements") {
    LinearObjective objective(Precision::kDouble, {1, 2}, Matrix::identity(2));
    GradientOptions options = GradientOptions::defaults(GradientUpdate::Rule::kSgd);
    options.learningRate = 1;
    GradientOptimizer sgd(objective.backend(), 2, options);
    // loss = ((1 - 3)^2 + (2 - 1)^2) / 2, gradient = (1 - 3, 2 - 1).
    CHECK(sgd.step(objective, values({3, 1})).loss == 2.5);
    CHECK(sameBits(objective.theta(), {3, 1}));
  }

  TEST_CASE("gradients or logits that are not finite leave parameters and moments alone") {
    for (const Precision precision : {Precision::kDouble, Precision::kFloat}) {
      LinearObjective objective(precision, {1, 2}, Matrix::identity(2));
      GradientOptimizer adam(objective.backend(), 2,
                             GradientOptions::defaults(GradientUpdate::Rule::kAdam));
      adam.step(objective, label(0));
      const auto everything = [&] {
        Vector all = objective.theta();
        for (const auto& array : adam.state()) {
          Vector moment(2);
          objective.backend().readState(*array, moment.data());
          all.insert(all.end(), moment.begin(), moment.end());
        }
        return all;
      };
      const Vector before = everything();
      objective.offset[0] = std::numeric_limits<double>::quiet_NaN();
      CHECK(adam.step(objective, label(0)).skipped == SkipReason::kNonFiniteLogits);
      objective.offset[0] = 0;
      GivenGradient broken(precision, 1, {1, 2});
      GradientOptimizer other(broken.backend(), 2,
                              GradientOptions::defaults(GradientUpdate::Rule::kAdam));
      broken.next = {0, HUGE_VAL};
      CHECK(other.step(broken, values({0})).skipped == SkipReason::kNonFiniteGradient);
      CHECK(sameBits(broken.theta(), {1, 2}));
      CHECK(other.steps() == 0);
      CHECK(sameBits(everything(), before));
      CHECK(adam.steps() == 1);
      CHECK(adam.skippedSteps() == 1);
    }
  }

  TEST_CASE("hyper-parameters that torch.optim refuses are refused") {
    const GradientOptions base = GradientOptions::defaults(GradientUpdate::Rule::kAdamW);
    GradientOptions o = base;
    o.learningRate = -1;
    CHECK(refusal(o) == ErrorCode::kOption);
    o = base, o.beta2 = 1;
    CHECK(refusal(o) == ErrorCode::kOption);
    o = base, o.eps = std::numeric_limits<double>::quiet_NaN();
    CHECK(refusal(o) == ErrorCode::kOption);
    o = GradientOptions::defaults(GradientUpdate::Rule::kSgd), o.nesterov = true;
    CHECK(refusal(o) == ErrorCode::kOption);
    o = base, o.weightDecay = -0.1;
    CHECK(refusal(o) == ErrorCode::kOption);
  }
}

}  // namespace loko::test
