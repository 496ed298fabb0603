#include "core/engine.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "core/rng.h"
#include "core/softmax.h"
#include "core/status.h"

namespace loko {

namespace {

// Training and inference of a few batch sizes and the common lengths of texts; what streams of odd
// shapes leave behind is lowered again. A plan of a 12-layer model has about 150 kB.
constexpr std::size_t kKeptPlans = 32;

void drawLora(const AdaptedModule& lora, const Graph::Module& module, LoraInit init,
              std::uint64_t seed, float* theta) {
  const std::int64_t sizeA = module.sizeA(lora.rank), sizeB = module.sizeB(lora.rank);
  const auto uniform = [&](const char* factor, std::int64_t size, int fanIn, float* target) {
    const RandomStream random(seed, lora.module + factor);
    const float bound = 1 / std::sqrt(static_cast<float>(fanIn));
    for (std::int64_t i = 0; i < size; ++i) {
      target[i] = (2 * random.uniform(static_cast<std::uint64_t>(i)) - 1) * bound;
    }
  };
  if (init == LoraInit::kGaussian) {
    const RandomStream random(seed, lora.module + ".lora_A");
    for (std::int64_t i = 0; i < sizeA; ++i) {
      theta[lora.a + i] =
          random.normal(static_cast<std::uint64_t>(i)) / static_cast<float>(lora.rank);
    }
  } else {
    uniform(".lora_A", sizeA, module.in, theta + lora.a);
  }
  if (init == LoraInit::kRandom) {
    uniform(".lora_B", sizeB, lora.rank / module.groups, theta + lora.b);
  }
}

void checkCoverage(const Plan& plan, std::int64_t parameters) {
  std::int64_t covered = 0;
  for (const Step& step : plan.backward) {
    if (const auto* gram = std::get_if<Gram>(&step)) covered += gram->end - gram->begin;
  }
  if (covered != parameters) {
    throw Error(ErrorCode::kUnsupported,
                "Expected every trained module to influence the output, but " +
                    std::to_string(parameters - covered) + " of " + std::to_string(parameters) +
                    " parameters belong to modules that do not; leave those out of targetModules "
                    "and modulesToSave");
  }
}

/// Systems that promise more memory than they have end a process that believes them. What training touches
/// at the least: the parameters here and in the backend, one row of the Jacobian, and the optimizer's state.
void checkMemory(std::int64_t parameters) {
  const long pages = ::sysconf(_SC_PHYS_PAGES), pageSize = ::sysconf(_SC_PAGESIZE);
  if (pages <= 0 || pageSize <= 0) return;
  const double has = static_cast<double>(pages) * static_cast<double>(pageSize);
  const double needs = 4.0 * sizeof(float) * static_cast<double>(parameters);
  if (needs <= has) return;
  throw Error(ErrorCode::kOutOfMemory,
              "Expected an adapter that fits into this machine's memory of " +
                  std::to_string(static_cast<std::int64_t>(has / 1e9)) + " GB, but training " +
                  std::to_string(parameters) + " parameters takes at least " +
                  std::to_string(static_cast<std::int64_t>(needs / 1e9)) +
                  " GB; use a smaller rank or fewer targetModules");
}

}  // namespace

Engine::Engine(std::unique_ptr<Backend> backend, Graph graph, std::unique_ptr<WeightStore> store,
               std::uint64_t seed)
    : backend_(std::move(backend)),
      graph_(std::move(graph)),
      store_(std::move(store)),
      table_(std::make_unique<WeightTable>(*store_, *backend_)),
      seed_(seed) {}

Engine::~Engine() = default;

LoweringRequest Engine::smallestRequest(bool training) const {
  return {1,
          graph_.tokenInput() != nullptr ? 1 : 0,
          false,
          training,
          maxPassRows_,
          backend_->passLimits()};
}

LoweringRequest Engine::currentRequest(bool training) const {
  return {batch_, tokens_, masked_, training, maxPassRows_, backend_->passLimits()};
}

void Engine::load() {
  store_->open();
  plan(smallestRequest(false));
}

void Engine::setAdapter(Adapter adapter) {
  checkMemory(adapter.parameters);
  std::vector<float> theta(static_cast<std::size_t>(adapter.parameters), 0.0F);
  for (const AdaptedModule& lora : adapter.lora) {
    const Graph::Module module = graph_.module(lora.module);
    requireRank(lora, module.groups);
    drawLora(lora, module, adapter.init, seed_, theta.data());
  }
  for (const TrainedModule& trained : adapter.trained) {
    const LinearPart& part = *graph_.trainableModule(trained.module).part;
    const std::vector<float> weight = store_->read(part.weight);
    std::copy(weight.begin(), weight.end(), theta.begin() + trained.weight);
    if (trained.bias != kNoParameter) {
      const std::vector<float> bias = store_->read(part.bias);
      std::copy(bias.begin(), bias.end(), theta.begin() + trained.bias);
    }
  }
  std::swap(adapter_, adapter);  // now `adapter` is the former one
  std::list<CachedPlan> former;
  std::swap(plans_, former);
  forwardIsCurrent_ = false;
  try {
    if (adapter_.parameters > 0) plan(smallestRequest(true));
    backend_->reserve(Space::kTheta, adapter_.parameters);
    backend_->write(Space::kTheta, 0, theta.data(), adapter_.parameters);
  } catch (...) {
    std::swap(adapter_, adapter);
    std::swap(plans_, former);
    throw;
  }
}

MergeResult Engine::mergeAdapter() {
  std::vector<float> theta(static_cast<std::size_t>(adapter_.parameters));
  readTheta(theta.data());
  MergedWeights merged = merge(graph_, adapter_, *store_, theta);
  std::vector<std::string> names;
  for (const auto& [name, values] : merged.values) names.push_back(name);
  // The last thing that may fail for want of memory: the adapter is merged whole or not at all.
  store_->replace(std::move(merged.values));
  plans_.clear();
  table_->release(names);
  adapter_ = {};
  forwardIsCurrent_ = false;
  return std::move(merged.result);
}

const Plan& Engine::plan(const LoweringRequest& request) {
  const auto found = std::find_if(plans_.begin(), plans_.end(), [&](const CachedPlan& cached) {
    return cached.request == request;
  });
  if (found != plans_.end()) {
    plans_.splice(plans_.begin(), plans_, found);
    return found->plan;
  }
  Plan fresh = lower(graph_, adapter_, *table_, request);
  if (request.training) checkCoverage(fresh, adapter_.parameters);
  WorkspaceHint hint;
  hint.batch = request.batch;
  hint.maxRows = fresh.passRows;
  takeMemory([&] {
    backend_->reserve(Space::kScratch, fresh.scratchElements);
    backend_->reserve(Space::kInput, fresh.inputElements);
    backend_->prepare(fresh.forward, hint);
    backend_->prepare(fresh.backward, hint);
  });
  plans_.push_front({request, std::move(fresh)});
  if (plans_.size() > kKeptPlans) plans_.pop_back();
  return plans_.front().plan;
}

/// A backend may give back what it had before it asks for more. If there is no more, nothing that was prepared
/// can run: it is prepared again when it is needed.
void Engine::takeMemory(const std::function<void()>& ask) {
  try {
    ask();
  } catch (...) {
    plans_.clear();
    gramRows_ = 0;
    forwardIsCurrent_ = false;
    throw;
  }
}

void Engine::limitPassRows(int rows) {
  maxPassRows_ = rows;
  plans_.clear();
  forwardIsCurrent_ = false;
}

void Engine::checkPixels(const float* pixels, std::int64_t count) const {
  const float* offender =
      std::find_if(pixels, pixels + count, [](float value) { return !std::isfinite(value); });
  if (offender == pixels + count) return;
  const ImageNode& image = graph_.imageInput();
  const std::int64_t plane = std::int64_t{image.height} * image.width;
  const std::int64_t at = offender - pixels, sample = plane * image.channels;
  throw Error(ErrorCode::kInputNotFinite,
              "Expected finite pixelValues but received " + std::to_string(*offender) +
                  " at element " + std::to_string(at) + " (sample " + std::to_string(at / sample) +
                  ", channel " + std::to_string(at % sample / plane) + ", row " +
                  std::to_string(at % plane / image.width) + ", column " +
                  std::to_string(at % plane % image.width) + "); nothing was learned from it");
}

// lib/models/text.ts has checked all this and says it in the user's words. A number outside its table
// would be a read outside of memory, so it is checked where it is used, too.
bool Engine::checkTokens(const float* blocks, int batch, int tokens) const {
  const EmbedTokensNode& embed = *graph_.tokenInput();
  const std::int64_t count = std::int64_t{batch} * tokens;
  const auto block = [&](TokenBlock which) {
    return blocks + count * static_cast<std::int64_t>(which);
  };
  const auto check = [&](TokenBlock which, int rows, const char* what) {
    for (std::int64_t i = 0; i < count; ++i) {
      const float number = block(which)[i];
      const bool inTable =
          number >= 0 && number < static_cast<float>(rows) && number == std::floor(number);
      LOKO_CHECK(inTable, std::string(what) + " " + std::to_string(number));
    }
  };
  check(TokenBlock::kIds, embed.vocabulary, "token id");
  check(TokenBlock::kPositions, embed.positionCount, "position id");
  check(TokenBlock::kTypes, embed.typeCount, "token type id");
  const float* mask = block(TokenBlock::kMask);
  bool masked = false;
  for (std::int64_t b = 0; b < batch; ++b) {
    std::int64_t seen = 0;
    for (std::int64_t t = 0; t < tokens; ++t) {
      const float value = mask[b * tokens + t];
      LOKO_CHECK(value == 0 || value == -std::numeric_limits<float>::infinity(), "a mask");
      if (value == 0) ++seen;
    }
    LOKO_CHECK(seen > 0, "every token of a sample is masked");
    masked = masked || seen < tokens;
  }
  return masked;
}

void Engine::setBatch(const float* input, int batch, int tokens) {
  LOKO_CHECK(batch > 0, "batch " + std::to_string(batch));
  const std::int64_t count = graph_.inputElements(tokens) * batch;
  bool masked = false;
  if (tokens > 0) {
    masked = checkTokens(input, batch, tokens);
  } else {
    checkPixels(input, count);
  }
  forwardIsCurrent_ = false;
  batch_ = batch;
  tokens_ = tokens;
  masked_ = masked;
  backend_->reserve(Space::kInput, count);
  backend_->write(Space::kInput, 0, input, count);
}

void Engine::runForward(bool training, std::vector<double>& logits) {
  LOKO_CHECK(batch_ > 0, "a batch was set");
  forwardIsCurrent_ = false;
  const Plan& current = plan(currentRequest(training));
  Frame frame;
  frame.batch = batch_;
  backend_->runAll(current.forward, frame);
  logits.resize(static_cast<std::size_t>(batch_) * static_cast<std::size_t>(outputs()));
  backend_->readView(current.logits, batch_, logits.data());
  forwardIsCurrent_ = training;
}

void Engine::predict(std::vector<double>& logits) {
  runForward(false, logits);
}

void Engine::forward(std::vector<double>& logits) {
  if (adapter_.parameters == 0) {
    throw Error(ErrorCode::kNoTrainableParameters,
                "Expected a model with trainable parameters; call addAdapter first");
  }
  runForward(true, logits);
}

void Engine::requireForward(const char* what) const {
  LOKO_CHECK(forwardIsCurrent_, std::string(what) + " needs forward() before it");
}

// The workspace grows with the square of the rows, so it follows the rank in use: the baselines need
// none of it, and an automatic rank rarely more than a small part of m.
void Engine::reserveGram(std::int64_t rows) {
  if (rows <= gramRows_) return;
  constexpr std::int64_t kFewest = 16;
  const std::int64_t twice = std::max(2 * std::int64_t{gramRows_}, kFewest);
  WorkspaceHint hint;
  hint.maxGramRows = static_cast<int>(
      std::min<std::int64_t>(std::max(rows, std::min(twice, std::int64_t{outputs()} * batch_)),
                             std::numeric_limits<int>::max()));
  takeMemory([&] { backend_->prepare({}, hint); });
  gramRows_ = hint.maxGramRows;
}

void Engine::ask(const GramRequest& request, int rows, Frame& frame) {
  if (request.values == nullptr) return;
  frame.gram = request.values;
  frame.gramRows = rows;
  frame.gramWeights = request.weights;
  frame.factor = request.factor;
  frame.factorRows = request.factorRows;
  reserveGram(frame.gramSize());
  std::fill_n(request.values, std::int64_t{frame.gramSize()} * frame.gramSize(), 0.0);
}

void Engine::jacobian(const std::vector<double>& cotangents, int rows, const GramRequest& gram) {
  requireForward("jacobian");
  const Plan& current = plan(currentRequest(true));
  const std::int64_t batch = batch_;
  LOKO_CHECK(static_cast<std::int64_t>(cotangents.size()) == rows * batch * outputs(),
             "one cotangent per row and sample");
  if (rows * batch > std::numeric_limits<int>::max()) {
    throw Error(ErrorCode::kUnsupported, "A Jacobian has at most 2^31 - 1 rows; " +
                                             std::to_string(rows) + " cotangents of each of " +
                                             std::to_string(batch) +
                                             " samples are more. Use a smaller batch.");
  }
  backend_->reserveJacobian(std::max<std::int64_t>(rows, outputs()) * batch, parameters());
  Frame last;
  ask(gram, static_cast<int>(rows * batch), last);

  const int passes = (rows + current.passRows - 1) / current.passRows;
  for (int pass = 0, begin = 0; pass < passes; ++pass) {
    const int end = static_cast<int>(std::int64_t{rows} * (pass + 1) / passes);
    Frame frame = pass == passes - 1 ? last : Frame{};
    frame.batch = batch_;
    frame.rows = end - begin;
    frame.firstRow = begin * batch;
    backend_->writeView(current.seed, frame.segments(),
                        cotangents.data() + begin * batch * outputs());
    backend_->runAll(current.backward, frame);
    begin = end;
  }
}

void Engine::gradient(const std::vector<double>& cotangents) {
  requireForward("gradient");
  const Plan& current = plan(currentRequest(true));
  backend_->reserveJacobian(1, parameters());
  Frame frame;
  frame.batch = batch_;
  frame.reduce = true;
  backend_->writeView(current.seed, batch_, cotangents.data());
  backend_->runAll(current.backward, frame);
}

void Engine::gram(int rows, const GramRequest& request) {
  Frame frame;
  ask(request, rows, frame);
  backend_->run(Step{Gram{0, parameters()}}, frame);
}

std::vector<float> Engine::jacobianOf(JacobianOf what) {
  std::vector<double> logits;
  forward(logits);
  const int m = outputs(), batch = batch_;
  std::vector<double> cotangents(static_cast<std::size_t>(m) * static_cast<std::size_t>(batch) *
                                 static_cast<std::size_t>(m));
  std::vector<double> pi(static_cast<std::size_t>(m));
  for (int b = 0; b < batch; ++b) {
    softmax(logits.data() + std::int64_t{b} * m, m, pi.data());
    for (int c = 0; c < m; ++c) {
      double* row = cotangents.data() + (std::int64_t{c} * batch + b) * m;
      for (int j = 0; j < m; ++j) {
        const double delta = c == j ? 1 : 0;
        row[j] = what == JacobianOf::kLogits
                     ? delta
                     : pi[static_cast<std::size_t>(c)] * (delta - pi[static_cast<std::size_t>(j)]);
      }
    }
  }
  jacobian(cotangents, m, {});
  const std::int64_t n = parameters();
  std::vector<float> result(static_cast<std::size_t>(std::int64_t{batch} * m * n));
  for (int b = 0; b < batch; ++b) {
    for (int c = 0; c < m; ++c) {
      backend_->read(Space::kJacobian, (std::int64_t{c} * batch + b) * n,
                     result.data() + (std::int64_t{b} * m + c) * n, n);
    }
  }
  return result;
}

void Engine::readTheta(float* target) {
  if (parameters() > 0) backend_->read(Space::kTheta, 0, target, parameters());
}

void Engine::writeTheta(const float* source) {
  forwardIsCurrent_ = false;
  if (parameters() > 0) backend_->write(Space::kTheta, 0, source, parameters());
}

}  // namespace loko
