#include "addon/options_reader.h"

#include <algorithm>
#include <utility>

#include "core/status.h"
#include "filter/gradient_optimizer.h"
#include "filter/loko_optimizer.h"

namespace loko::addon {

namespace {

constexpr std::pair<const char*, LoraInit> kInits[] = {{"kaiming", LoraInit::kKaiming},
                                                       {"gaussian", LoraInit::kGaussian},
                                                       {"random", LoraInit::kRandom}};
constexpr std::pair<const char*, Observation> kObservations[] = {
    {"softmax", Observation::kSoftmax},
    {"categorical", Observation::kCategorical},
    {"logits", Observation::kLogits},
    {"regression", Observation::kRegression}};
constexpr std::pair<const char*, NoiseMode> kNoiseModes[] = {{"ema", NoiseMode::kEma},
                                                             {"model", NoiseMode::kModel},
                                                             {"residual", NoiseMode::kResidual},
                                                             {"fixed", NoiseMode::kFixed}};
constexpr std::pair<const char*, Covariance> kCovariances[] = {
    {"fdekf", Covariance::kFdekf}, {"vdekf", Covariance::kVdekf}, {"lofi", Covariance::kLowRank}};
constexpr std::pair<const char*, Update> kUpdates[] = {{"linear", Update::kLinear},
                                                       {"iterated", Update::kIterated}};
constexpr std::pair<const char*, Gain> kGains[] = {{"fixed", Gain::kFixed},
                                                   {"adaptive", Gain::kAdaptive}};
using Rule = GradientUpdate::Rule;
constexpr std::pair<const char*, Rule> kRules[] = {{"sgd", Rule::kSgd},
                                                   {"adagrad", Rule::kAdaGrad},
                                                   {"rmsprop", Rule::kRmsProp},
                                                   {"adam", Rule::kAdam},
                                                   {"adamw", Rule::kAdamW}};

/// The offset of a parameter block of `size` elements, which must lie inside theta: backends write
/// there unchecked.
ParameterOffset readOffset(const PropertyReader& entry, const char* key, std::int64_t size,
                           std::int64_t parameters) {
  return entry.integer(key, 0, parameters - size);
}

std::int64_t weightSize(const Graph::Module& module) {
  return std::int64_t{module.part->out} * module.in;
}

/// What each part of theta is, in the order of theta.
std::vector<ParameterRange> parameterRanges(const Adapter& adapter, const Graph& graph) {
  std::vector<ParameterRange> ranges;
  const auto add = [&](ParameterOffset begin, std::int64_t size, ParameterGroup group) {
    ranges.push_back({begin, begin + size, group});
  };
  for (const AdaptedModule& lora : adapter.lora) {
    const Graph::Module module = graph.module(lora.module);
    add(lora.a, module.sizeA(lora.rank), ParameterGroup::kLoraA);
    add(lora.b, module.sizeB(lora.rank), ParameterGroup::kLoraB);
  }
  for (const TrainedModule& trained : adapter.trained) {
    const Graph::Module module = graph.module(trained.module);
    add(trained.weight, weightSize(module), ParameterGroup::kHead);
    if (trained.bias != kNoParameter) add(trained.bias, module.part->out, ParameterGroup::kHead);
  }
  for (const TrainedBias& bias : adapter.biases) {
    add(bias.offset, graph.biasSize(bias.parameter), ParameterGroup::kBias);
  }
  std::sort(ranges.begin(), ranges.end(),
            [](const ParameterRange& x, const ParameterRange& y) { return x.begin < y.begin; });
  return ranges;
}

RankOption readRank(const PropertyReader& spec, RankOption rank) {
  if (spec.value("observationRank").IsNumber()) {
    rank.kind = RankOption::Kind::kFixed;
    rank.rows = static_cast<int>(spec.integer("observationRank", 1, kMaxInt));
  } else if (spec.has("observationRank")) {
    constexpr std::pair<const char*, RankOption::Kind> kinds[] = {
        {"exact", RankOption::Kind::kExact}, {"auto", RankOption::Kind::kAuto}};
    rank.kind = readChoice(spec, "observationRank", kinds);
  }
  if (spec.has("rankEpsilon")) {
    if (rank.kind != RankOption::Kind::kAuto) {
      throw Error(ErrorCode::kOption,
                  "LoKO: rankEpsilon belongs to observationRank \"auto\"; leave it out with any "
                  "other rank.");
    }
    rank.epsilon = spec.number("rankEpsilon");
  }
  return rank;
}

InitialCovariance readInitialCovariance(const PropertyReader& spec) {
  InitialCovariance p0;
  if (spec.has("tau")) p0.tau = spec.number("tau");
  const Napi::Value value = spec.value("p0");
  if (value.IsNumber()) {
    p0.kind = InitialCovariance::Kind::kUniform;
    p0.value = spec.number("p0");
  } else if (value.IsObject()) {
    const PropertyReader groups = spec.object("p0");
    p0.kind = InitialCovariance::Kind::kPerGroup;
    p0.loraA = groups.number("a");
    p0.loraB = groups.number("b");
    p0.head = groups.number("head");
  }
  return p0;
}

LokoOptions readLokoOptions(const PropertyReader& spec) {
  LokoOptions options;
  if (spec.has("preset")) {
    if (spec.string("preset") != "paper") spec.fail("preset", "\"paper\"");
    options = LokoOptions::paper();
  }
  const auto optional = [&](const char* key, std::optional<double>& target) {
    if (spec.has(key)) target = spec.number(key);
  };
  if (spec.has("observation")) {
    options.observation = readChoice(spec, "observation", kObservations);
  }
  if (spec.has("observationRank") || spec.has("rankEpsilon")) {
    options.rank = readRank(spec, options.rank.value_or(RankOption{}));
  }
  if (spec.has("noise")) options.noise = readChoice(spec, "noise", kNoiseModes);
  if (spec.has("covariance")) options.covariance = readChoice(spec, "covariance", kCovariances);
  if (spec.has("covarianceRank")) {
    if (options.covariance != Covariance::kLowRank) {
      throw Error(
          ErrorCode::kOption,
          "LoKO: covarianceRank belongs to covariance \"lofi\"; leave it out with any other.");
    }
    options.covarianceRank = static_cast<int>(spec.number("covarianceRank"));
  }
  if (spec.has("update")) options.update = readChoice(spec, "update", kUpdates);
  if (spec.has("gain")) options.gain = readChoice(spec, "gain", kGains);
  optional("beta", options.beta);
  optional("r0", options.r0);
  optional("pMax", options.pMax);
  optional("trustRegion", options.trustRegion);
  options.gamma = spec.number("gamma", options.gamma);
  options.q = spec.number("q", options.q);
  options.qRatio = spec.number("qRatio", options.qRatio);
  options.pMinRatio = spec.number("pMinRatio", options.pMinRatio);
  options.minLoss = spec.number("minLoss", options.minLoss);
  options.p0 = readInitialCovariance(spec);
  return options;
}

GradientOptions readGradientOptions(const PropertyReader& spec) {
  GradientOptions options = GradientOptions::defaults(readChoice(spec, "kind", kRules));
  options.learningRate = spec.number("lr", options.learningRate);
  options.weightDecay = spec.number("weightDecay", options.weightDecay);
  options.beta1 = spec.number("beta1", options.beta1);
  options.beta2 = spec.number("beta2", options.beta2);
  options.eps = spec.number("eps", options.eps);
  options.amsgrad = spec.boolean("amsgrad", options.amsgrad);
  options.momentum = spec.number("momentum", options.momentum);
  options.dampening = spec.number("dampening", options.dampening);
  options.nesterov = spec.boolean("nesterov", options.nesterov);
  options.learningRateDecay = spec.number("lrDecay", options.learningRateDecay);
  options.initialAccumulator = spec.number("initialAccumulator", options.initialAccumulator);
  options.alpha = spec.number("alpha", options.alpha);
  options.centered = spec.boolean("centered", options.centered);
  return options;
}

}  // namespace

Adapter readAdapter(const PropertyReader& spec, const Graph& graph) {
  Adapter adapter;
  const std::int64_t n = spec.integer("parameters", 0, kMaxInt);
  adapter.parameters = n;
  adapter.init = readChoice(spec, "init", kInits);
  for (const PropertyReader& entry : spec.objects("lora")) {
    AdaptedModule& lora = adapter.lora.emplace_back();
    lora.module = entry.string("module");
    const Graph::Module module = graph.module(lora.module);
    lora.rank = static_cast<int>(entry.integer("rank", 1, kMaxInt));
    requireRank(lora, module.groups);
    lora.scale = static_cast<float>(entry.number("scale"));
    lora.a = readOffset(entry, "a", module.sizeA(lora.rank), n);
    lora.b = readOffset(entry, "b", module.sizeB(lora.rank), n);
  }
  for (const PropertyReader& entry : spec.objects("trained")) {
    TrainedModule& trained = adapter.trained.emplace_back();
    trained.module = entry.string("module");
    const Graph::Module module = graph.trainableModule(trained.module);
    trained.weight = readOffset(entry, "weight", weightSize(module), n);
    if (!module.part->bias.empty()) {
      trained.bias = readOffset(entry, "bias", module.part->out, n);
    }
  }
  for (const PropertyReader& entry : spec.objects("biases")) {
    TrainedBias& bias = adapter.biases.emplace_back();
    bias.parameter = entry.string("parameter");
    bias.offset = readOffset(entry, "offset", graph.biasSize(bias.parameter), n);
  }
  return adapter;
}

OptimizerFactory readOptimizer(const PropertyReader& spec, const Graph& graph,
                               const Adapter& adapter) {
  const std::int64_t n = adapter.parameters;
  if (n == 0) {
    throw Error(ErrorCode::kNoTrainableParameters,
                "Expected a model with trainable parameters; call addAdapter first");
  }
  if (spec.string("kind") == "loko") {
    const LokoOptions options = readLokoOptions(spec);
    const int m = graph.outputs();
    std::vector<ParameterRange> ranges = parameterRanges(adapter, graph);
    validate(options, m, n, ranges);
    return [options, m, n, ranges = std::move(ranges)](Backend& backend) {
      return std::make_unique<LokoOptimizer>(backend, n, m, options, ranges);
    };
  }
  const GradientOptions options = readGradientOptions(spec);
  validate(options);
  return [options, n](Backend& backend) {
    return std::make_unique<GradientOptimizer>(backend, n, options);
  };
}

StepControl readStepControl(const Napi::Value& value) {
  const PropertyReader spec(value, "control");
  StepControl control;
  if (spec.has("learningRate")) control.learningRate = spec.number("learningRate");
  if (spec.has("maxGradNorm")) control.maxGradientNorm = spec.number("maxGradNorm");
  control.weight = spec.number("weight", 1);
  control.begin = spec.boolean("begin", true);
  control.apply = spec.boolean("apply", true);
  return control;
}

}  // namespace loko::addon
