#include "cpu/gemm.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <string>
#include <vector>

#include "cpu/isa.h"
#include "cpu/pool.h"
#include "gemm_testing.h"

namespace {

using namespace loko::cpu;
using namespace loko::test;
using loko::Activation;

constexpr float kUntouched = 12345.0f;

// Rows in blocks with gaps between rows and between blocks.
template <typename T>
struct Rows {
  std::vector<float> memory;
  BasicRowMap<T> map;

  Rows(int rows, int columns, int blockRows, float fill) {
    map.ld = columns + pick(0, 5);
    map.blockRows = blockRows;
    const int blocks = (rows + blockRows - 1) / blockRows;
    map.blockStride = blockRows * map.ld + pick(0, 9);
    const std::size_t count = static_cast<std::size_t>(blocks * map.blockStride + columns);
    memory = fill == 0 ? randomVector(count) : std::vector<float>(count, fill);
    map.base = memory.data();
    if (blockRows >= rows) map.blockRows = INT_MAX;
    blockRows_ = blockRows;
  }
  std::size_t index(int i, int j) const {
    return static_cast<std::size_t>(i / blockRows_ * map.blockStride + i % blockRows_ * map.ld + j);
  }
  double at(int i, int j) const { return memory[index(i, j)]; }

 private:
  int blockRows_;
};

using Input = Rows<const float>;
using Output = Rows<float>;

double activate(Activation kind, double z) {
  switch (kind) {
    case Activation::kNone:
      return z;
    case Activation::kGelu:
      return 0.5 * z * std::erfc(-z / std::sqrt(2.0));
    case Activation::kGeluTanh:
      return 0.5 * z * (1 + std::tanh(std::sqrt(2 / M_PI) * (z + 0.044715 * z * z * z)));
    case Activation::kRelu:
      return z > 0 ? z : 0;
    case Activation::kQuickGelu:
      return z / (1 + std::exp(-1.702 * z));
    case Activation::kTanh:
      return std::tanh(z);
  }
  return NAN;
}

// The derivative by central differences of the function above: in double with h = 1e-5 its error is
// about 1e-10, far below single precision.
double activateDerivative(Activation kind, double z) {
  if (kind == Activation::kNone) return 1;
  if (kind == Activation::kRelu) return z > 0 ? 1 : 0;
  constexpr double kStep = 1e-5;
  return (activate(kind, z + kStep) - activate(kind, z - kStep)) / (2 * kStep);
}

enum class BKind { kPackedNK, kPackedKN, kRowMajor, kTransposed, kPackedTransposed };

bool storesByColumns(BKind b) {
  return b == BKind::kPackedNK || b == BKind::kTransposed || b == BKind::kPackedTransposed;
}

struct Case {
  int m, n, k;
  int rank = 0;
  bool transposedA = false;
  int columnBlock = 0;  // of a transposed A; 0: one block
  BKind b = BKind::kPackedNK;
  int blockRows = 0;  // of all row maps; 0: one block
  float alpha = 1;
  bool accumulate = false, bias = false, residual = false, multiplier = false, derivative = false;
  int multiplierPeriod = 0;
  Activation activation = Activation::kNone;

  std::string text() const {
    return "m=" + std::to_string(m) + " n=" + std::to_string(n) + " k=" + std::to_string(k) +
           " rank=" + std::to_string(rank) + " transposedA=" + std::to_string(transposedA) +
           " columnBlock=" + std::to_string(columnBlock) +
           " b=" + std::to_string(static_cast<int>(b)) + " blockRows=" + std::to_string(blockRows) +
           " alpha=" + std::to_string(alpha) + " accumulate=" + std::to_string(accumulate) +
           " bias=" + std::to_string(bias) + " residual=" + std::to_string(residual) +
           " multiplier=" + std::to_string(multiplier) +
           " period=" + std::to_string(multiplierPeriod) +
           " activation=" + std::to_string(static_cast<int>(activation));
  }
};

// All operands of one case, its reference in double and the checks.
class Problem {
 public:
  explicit Problem(const Case& c)
      : c_(c),
        blockRows_(c.blockRows > 0 ? c.blockRows : c.m),
        columnBlock_(c.columnBlock > 0 ? c.columnBlock : c.m),
        a_(c.transposedA ? c.k : c.m,
           c.transposedA ? (c.m + columnBlock_ - 1) / columnBlock_ * (columnBlock_ + 3) : c.k,
           c.transposedA ? std::max(1, c.k) : blockRows_, 0),
        b_(randomVector(static_cast<std::size_t>(c.k * (c.n + 3) + c.n * (c.k + 3)))),
        bias_(randomVector(static_cast<std::size_t>(c.n))),
        u_(c.m, std::max(1, c.rank), blockRows_, 0),
        residual_(c.m, c.n, blockRows_, 0),
        multiplier_(c.multiplierPeriod > 0 ? c.multiplierPeriod : c.m, c.n, blockRows_, 0),
        packed_(c.b == BKind::kPackedTransposed ? PackedMatrix(c.n, c.k) : PackedMatrix(c.k, c.n)),
        initial_(c.m, c.n, blockRows_, 0),
        out_(initial_),
        derivative_(c.m, c.n, blockRows_, kUntouched) {
    if (c.rank > 0) buildTail();
    ldb_ = b_.empty() ? 0 : (storesByColumns(c.b) ? c.k : c.n) + 3;
    if (c.b == BKind::kPackedNK) packed_.pack(b_.data(), ldb_, WeightLayout::kNK);
    // The transposed one is packed as [K, N] = [c.n, c.k], whose rows are the columns of B.
    if (c.b == BKind::kPackedKN || c.b == BKind::kPackedTransposed)
      packed_.pack(b_.data(), ldb_, WeightLayout::kKN);
    reference();
  }

  GemmArgs args() {
    out_ = initial_;
    out_.map.base = out_.memory.data();
    if (!c_.accumulate) poisonOutput();
    derivative_.memory.assign(derivative_.memory.size(), kUntouched);

    GemmArgs args;
    args.m = c_.m;
    args.n = c_.n;
    args.k = c_.k;
    args.a.rows = a_.map;
    args.a.transposed = c_.transposedA;
    if (c_.columnBlock > 0) {
      args.a.columnBlock = columnBlock_;
      args.a.columnBlockStride = columnBlock_ + 3;
    }
    if (c_.b != BKind::kRowMajor && c_.b != BKind::kTransposed) {
      args.b.packed = &packed_;
      args.b.transposed = c_.b == BKind::kPackedTransposed;
    } else {
      args.b.data = b_.data();
      args.b.ld = ldb_;
      args.b.transposed = c_.b == BKind::kTransposed;
    }
    args.c = out_.map;
    if (c_.rank > 0) {
      args.tailU = u_.map;
      args.tailV = &tail_;
    }
    args.epilogue.alpha = c_.alpha;
    args.epilogue.accumulate = c_.accumulate;
    args.epilogue.activation = c_.activation;
    if (c_.bias) args.epilogue.bias = bias_.data();
    if (c_.residual) args.epilogue.residual = residual_.map;
    if (c_.multiplier) {
      args.epilogue.multiplier = multiplier_.map;
      args.epilogue.multiplierPeriod = c_.multiplierPeriod;
    }
    if (c_.derivative) args.epilogue.derivative = derivative_.map;
    return args;
  }

  // The largest error in units of its bound; also checks that nothing else was written.
  double worst() const {
    double worst = 0;
    std::vector<bool> written(out_.memory.size()), writtenDerivative(derivative_.memory.size());
    for (int i = 0; i < c_.m; ++i)
      for (int j = 0; j < c_.n; ++j) {
        const std::size_t e = static_cast<std::size_t>(i * c_.n + j);
        written[out_.index(i, j)] = true;
        writtenDerivative[derivative_.index(i, j)] = c_.derivative;
        worst = std::max(worst, ratio(out_.at(i, j), activate(c_.activation, z_[e]), bound_[e]));
        // act' of all activations has a slope below 1.2 (relu: a step, not compared close to it).
        const bool step = c_.activation == Activation::kRelu && std::abs(z_[e]) < bound_[e];
        if (c_.derivative && !step)
          worst = std::max(worst, ratio(derivative_.at(i, j),
                                        activateDerivative(c_.activation, z_[e]), bound_[e]));
      }
    for (std::size_t e = 0; e < written.size(); ++e)
      if (!written[e]) CHECK(out_.memory[e] == (c_.accumulate ? initial_.memory[e] : kUntouched));
    for (std::size_t e = 0; e < writtenDerivative.size(); ++e)
      if (!writtenDerivative[e]) CHECK(derivative_.memory[e] == kUntouched);
    return worst;
  }

  const std::vector<float>& output() const { return out_.memory; }

 private:
  void buildTail() {
    // Up to three sites with their own columns and rows; what lies outside of them is zero.
    const int count = std::min({pick(1, 3), c_.rank, c_.n});
    v_.assign(static_cast<std::size_t>(c_.rank * c_.n), 0.0);
    sources_.reserve(3);
    std::vector<TailSite> sites;
    for (int s = 0; s < count; ++s) {
      TailSite site;
      site.rowBegin = c_.rank * s / count;
      site.rowEnd = c_.rank * (s + 1) / count;
      site.columnBegin = pick(0, c_.n - 1);
      site.columnEnd = pick(site.columnBegin, c_.n);
      site.scale = 0.5f * static_cast<float>(s + 1);
      site.layout = coin() ? WeightLayout::kNK : WeightLayout::kKN;
      const int rows = site.rowEnd - site.rowBegin;
      const int columns = site.columnEnd - site.columnBegin;
      const bool nk = site.layout == WeightLayout::kNK;
      site.ld = (nk ? rows : columns) + 1;
      sources_.push_back(
          randomVector(static_cast<std::size_t>((nk ? columns : rows) * site.ld + 1)));
      site.source = sources_.back().data();
      for (int r = 0; r < rows; ++r)
        for (int n = 0; n < columns; ++n)
          v_[static_cast<std::size_t>((site.rowBegin + r) * c_.n + site.columnBegin + n)] =
              static_cast<double>(site.scale) * site.source[nk ? n * site.ld + r : r * site.ld + n];
      sites.push_back(site);
    }
    tail_ = PackedTail(c_.rank, c_.n);
    // Packed twice: the second time must not see what the first one left.
    const std::vector<float> other = randomVector(static_cast<std::size_t>(c_.rank));
    const TailSite before = {other.data(), 0, WeightLayout::kNK, 0, c_.rank, 0, 1, 1.0f};
    tail_.pack(&before, 1);
    tail_.pack(sites.data(), count);
  }

  double valueA(int i, int k) const {
    if (!c_.transposedA) return a_.at(i, k);
    return a_.at(k, i / columnBlock_ * (columnBlock_ + 3) + i % columnBlock_);
  }
  double valueB(int k, int j) const {
    const bool nk = storesByColumns(c_.b);
    return b_[static_cast<std::size_t>(nk ? j * ldb_ + k : k * ldb_ + j)];
  }

  // The bound of an element: a sum of K products in any order is off by at most
  // (K + 1) eps sum |a b| (Higham, Accuracy and Stability, section 3.1); every later operation adds
  // eps times the magnitudes so far. The activations have |act'| < 1.2 and an own error of a few eps.
  void reference() {
    for (int i = 0; i < c_.m; ++i)
      for (int j = 0; j < c_.n; ++j) {
        double z = 0;
        double size = 0;
        for (int k = 0; k < c_.k; ++k) {
          const double product = valueA(i, k) * valueB(k, j);
          z += product;
          size += std::abs(product);
        }
        z *= c_.alpha;
        size *= std::abs(c_.alpha);
        for (int r = 0; r < c_.rank; ++r) {
          const double product = u_.at(i, r) * v_[static_cast<std::size_t>(r * c_.n + j)];
          z += product;
          size += std::abs(product);
        }
        if (c_.multiplier) {
          const double factor =
              multiplier_.at(c_.multiplierPeriod > 0 ? i % c_.multiplierPeriod : i, j);
          z *= factor;
          size *= std::abs(factor);
        }
        const auto add = [&](double value) {
          z += value;
          size += std::abs(value);
        };
        if (c_.bias) add(bias_[static_cast<std::size_t>(j)]);
        if (c_.residual) add(residual_.at(i, j));
        if (c_.accumulate) add(initial_.at(i, j));
        z_.push_back(z);
        bound_.push_back(0.5 * FLT_EPSILON * ((c_.k + c_.rank + 8) * size * 1.2 + 8) + 1e-9);
      }
  }

  void poisonOutput() { out_.memory.assign(out_.memory.size(), kUntouched); }

  static double ratio(double value, double expected, double bound) {
    const double error = std::abs(value - expected);
    return std::isnan(error) ? INFINITY : error / bound;
  }

  Case c_;
  int blockRows_, columnBlock_;
  Input a_;
  std::vector<float> b_;
  std::ptrdiff_t ldb_ = 0;
  std::vector<float> bias_;
  Input u_;
  std::vector<double> v_;
  std::vector<std::vector<float>> sources_;
  PackedTail tail_;
  Input residual_, multiplier_;
  PackedMatrix packed_;
  Output initial_, out_, derivative_;
  std::vector<double> z_, bound_;
};

// Scratch of exactly the promised size, full of NaN, with a guard behind it.
class Scratch {
 public:
  Scratch(const Kernels& kernels, const Case& c, int threads)
      : count_(gemmScratchBytes(kernels, c.m, c.n, c.k, c.rank) / sizeof(float) *
               static_cast<std::size_t>(threads)),
        memory_(allocateAligned(count_ + kGuard)) {
    std::fill_n(memory_.get(), count_, std::nanf(""));
    std::fill_n(memory_.get() + count_, kGuard, kUntouched);
  }
  void* get() { return memory_.get(); }
  bool intact() const {
    return std::all_of(memory_.get() + count_, memory_.get() + count_ + kGuard,
                       [](float value) { return value == kUntouched; });
  }

 private:
  static constexpr std::size_t kGuard = 1024;
  std::size_t count_;
  AlignedFloats memory_;
};

void check(const Case& c) {
  Problem problem(c);
  for (const Isa isa : availableIsas()) {
    CAPTURE(std::string(isaName(isa)));
    CAPTURE(c.text());
    Scratch scratch(kernels(isa), c, 1);
    const GemmArgs args = problem.args();
    gemm(kernels(isa), args, scratch.get());
    CHECK(problem.worst() <= 1.0);
    CHECK(scratch.intact());
  }
}

Case randomCase(int maxM, int maxN, int maxK) {
  Case c{};
  c.m = pick(1, maxM);
  c.n = pick(1, maxN);
  c.k = pick(0, maxK);
  c.rank = coin() ? pick(1, 40) : 0;
  c.b = static_cast<BKind>(pick(0, 4));
  c.transposedA = coin() && c.b != BKind::kPackedTransposed;
  if (c.transposedA && coin()) c.columnBlock = pick(1, c.m);
  if (coin()) c.blockRows = pick(1, c.m);
  c.alpha = coin() ? 1.0f : 0.375f;
  c.accumulate = coin();
  c.bias = coin();
  c.residual = coin();
  c.multiplier = coin();
  if (c.multiplier && coin()) c.multiplierPeriod = pick(1, c.m);
  c.activation = static_cast<Activation>(pick(0, 4));
  c.derivative = coin();
  return c;
}

// Of a shape that is split into bfloat16 parts where the machine multiplies those (Isa::kAmx).
Case wholeCase(int maxM, int maxBlocks) {
  Case c = randomCase(maxM, 1, 1);
  c.n = kStrip * pick(8, maxBlocks);
  c.k = kSlabDepth * pick(8, maxBlocks);
  c.b = coin() ? BKind::kPackedNK : BKind::kPackedTransposed;
  if (c.b == BKind::kPackedTransposed) c.transposedA = false;
  if (!c.transposedA) c.columnBlock = 0;
  return c;
}

std::vector<float> run(const Kernels& kernels, ThreadPool* pool, const Case& c, Problem& problem) {
  Scratch scratch(kernels, c, pool ? pool->threads() : 1);
  const GemmArgs args = problem.args();
  if (pool)
    gemm(kernels, *pool, args, scratch.get());
  else
    gemm(kernels, args, scratch.get());
  CHECK(scratch.intact());
  return problem.output();
}

}  // namespace

TEST_CASE("gemm agrees with a double reference for every height and small width") {
  for (int m = 1; m <= 30; ++m)
    for (const int n : {1, 5, 8, 16, 17, 31, 32, 33, 48, 49, 64}) {
      Case c{};
      c.m = m;
      c.n = n;
      c.k = (m * 7 + n) % 70;
      c.b = static_cast<BKind>((m + n) % 4);
      check(c);
    }
}

TEST_CASE("gemm agrees with a double reference for random shapes, operands and epilogues") {
  for (int i = 0; i < 400; ++i) check(randomCase(60, 80, 60));
}

TEST_CASE("gemm agrees with a double reference when K and M are blocked") {
  for (int i = 0; i < 12; ++i) {
    Case c = randomCase(190, 100, 10);
    c.k = i % 3 == 0 ? pick(380, 768) : pick(769, 1600);
    check(c);
  }
  // Wide enough that partial sums are blocked over N too.
  Case c = randomCase(10, 10, 10);
  c.m = 170;
  c.n = 500;
  c.k = 800;
  check(c);
}

TEST_CASE("gemm agrees with a double reference for shapes of whole strips") {
  for (int i = 0; i < 40; ++i) check(wholeCase(70, 11));
  // More rows than a block of them, K of several blocks and of a last one that is no whole job.
  for (const int k : {800, 1600, 1632}) {
    Case c = wholeCase(150, 9);
    c.m += 200;
    c.k = k;
    check(c);
  }
  // Wide enough that partial sums are blocked over N too.
  Case c = wholeCase(10, 8);
  c.m = 220;
  c.n = 640;
  c.k = 832;
  check(c);
}

TEST_CASE("gemm with K = 0 applies only tail and epilogue") {
  Case c{};
  c.m = 9;
  c.n = 40;
  c.k = 0;
  c.rank = 8;
  c.bias = true;
  check(c);
}

TEST_CASE("gemm may read the residual from C itself") {
  Case c{};
  c.m = 20;
  c.n = 50;
  c.k = 800;
  c.accumulate = true;
  Problem problem(c);
  const Kernels& table = kernels(chooseIsa());
  const std::vector<float> accumulated = run(table, nullptr, c, problem);
  Scratch scratch(table, c, 1);
  GemmArgs args = problem.args();
  args.epilogue.accumulate = false;
  args.epilogue.residual = {args.c.base, args.c.ld, args.c.blockRows, args.c.blockStride};
  gemm(table, args, scratch.get());
  CHECK(sameBits(problem.output(), accumulated));
}

TEST_CASE("gemm gives the same bits with 1, 2 and 3 threads") {
  ThreadPool one(1), two(2), three(3);
  for (const Isa isa : availableIsas())
    for (int i = 0; i < 16; ++i) {
      Case c = i < 10 ? randomCase(200, 200, 500) : wholeCase(200, 12);
      c.m += 40;  // above the size where the pool is used
      c.n += 64;
      c.k += 96;
      CAPTURE(std::string(isaName(isa)));
      CAPTURE(c.text());
      Problem problem(c);
      const std::vector<float> serial = run(kernels(isa), nullptr, c, problem);
      CHECK(sameBits(serial, run(kernels(isa), &one, c, problem)));
      CHECK(sameBits(serial, run(kernels(isa), &two, c, problem)));
      CHECK(sameBits(serial, run(kernels(isa), &three, c, problem)));
    }
}

TEST_CASE("a row of gemm has the same bits whatever rows are computed with it") {
  for (const Isa isa : availableIsas())
    for (int i = 0; i < 14; ++i) {
      Case c = i < 10 ? randomCase(200, 90, 1500) : wholeCase(300, 30);
      c.transposedA = false;
      c.columnBlock = 0;
      c.multiplierPeriod = 0;
      CAPTURE(std::string(isaName(isa)));
      CAPTURE(c.text());
      Problem problem(c);
      const std::vector<float> together = run(kernels(isa), nullptr, c, problem);
      GemmArgs args = problem.args();
      const GemmArgs whole = args;
      Scratch scratch(kernels(isa), c, 1);
      args.m = 1;
      for (int row = 0; row < c.m; ++row) {
        args.a.rows.base = whole.a.rows.row(row);
        args.c.base = whole.c.row(row);
        args.tailU.base = whole.tailU ? whole.tailU.row(row) : nullptr;
        if (c.residual) args.epilogue.residual.base = whole.epilogue.residual.row(row);
        if (c.multiplier) args.epilogue.multiplier.base = whole.epilogue.multiplier.row(row);
        if (c.derivative) args.epilogue.derivative.base = whole.epilogue.derivative.row(row);
        gemm(kernels(isa), args, scratch.get());
      }
      CHECK(sameBits(problem.output(), together));
    }
}

TEST_CASE("gemm reads a sub-block of a packed weight and of a tail") {
  const int k = 50;
  const int n = 150;
  const std::vector<float> weight = randomVector(static_cast<std::size_t>(k * n));
  PackedMatrix packed(k, n);
  packed.pack(weight.data(), n, WeightLayout::kKN);
  const std::vector<float> a = randomVector(7 * 20);
  const std::vector<float> u = randomVector(7 * 3);
  const std::vector<float> v = randomVector(static_cast<std::size_t>(3 * n));
  PackedTail tail(3, n);
  const TailSite site = {v.data(), n, WeightLayout::kKN, 0, 3, 0, n, 1.0f};
  tail.pack(&site, 1);
  for (const Isa isa : availableIsas()) {
    std::vector<float> c(7 * 70, kUntouched);
    GemmArgs args;
    args.m = 7;
    args.n = 70;
    args.k = 20;
    args.a.rows = {a.data(), 20};
    args.b.packed = &packed;
    args.b.kBegin = 25;
    args.b.nBegin = 64;
    args.c = {c.data(), 70};
    args.tailU = {u.data(), 3};
    args.tailV = &tail;
    args.tailNBegin = 64;
    const AlignedFloats scratch =
        allocateAligned(gemmScratchBytes(kernels(isa), 7, 70, 20, 3) / sizeof(float));
    gemm(kernels(isa), args, scratch.get());
    for (int i = 0; i < 7; ++i)
      for (int j = 0; j < 70; ++j) {
        double expected = 0;
        for (int p = 0; p < 20; ++p)
          expected += static_cast<double>(a[static_cast<std::size_t>(i * 20 + p)]) *
                      weight[static_cast<std::size_t>((25 + p) * n + 64 + j)];
        for (int p = 0; p < 3; ++p)
          expected += static_cast<double>(u[static_cast<std::size_t>(i * 3 + p)]) *
                      v[static_cast<std::size_t>(p * n + 64 + j)];
        // 23 products of numbers below 1: error below 24 * 23 * eps / 2.
        CHECK(std::abs(c[static_cast<std::size_t>(i * 70 + j)] - expected) < 3.3e-5);
      }
  }
}

TEST_CASE("the scratch of gemm never shrinks when an extent grows") {
  for (const Isa isa : availableIsas())
    for (int i = 0; i < 2000; ++i) {
      const int m = pick(1, 400), n = pick(1, 2000), k = pick(0, 1200), rank = pick(0, 100);
      const std::size_t bytes = gemmScratchBytes(kernels(isa), m, n, k, rank);
      CHECK(bytes % 64 == 0);
      CHECK(gemmScratchBytes(kernels(isa), m + pick(0, 50), n + pick(0, 90), k + pick(0, 300),
                             rank + pick(0, 9)) >= bytes);
    }
}
