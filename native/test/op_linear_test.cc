#include "op_harness.h"

namespace loko::test {

namespace {

struct Shape {
  int rows, in, out;
};
// Odd extents around the tile sizes of the CPU kernels (14 and 6 rows, 32 and 16 columns), the first
// token alone, single columns.
constexpr Shape kShapes[] = {{1, 48, 64}, {5, 7, 48}, {17, 64, 7},
                             {5, 130, 1}, {1, 1, 7},  {17, 1, 1}};
// Enough work for several threads, sums and outputs longer than one block of the products, and what is
// aligned in every direction: a product for cuBLASLt.
constexpr Shape kLargeShapes[] = {{65, 48, 130}, {3, 1600, 33}, {2, 33, 1600}, {24, 64, 48}};

std::vector<Shape> allShapes() {
  std::vector<Shape> shapes(std::begin(kShapes), std::end(kShapes));
  shapes.insert(shapes.end(), std::begin(kLargeShapes), std::end(kLargeShapes));
  return shapes;
}
struct Extent {
  int rows, cols;
};
constexpr Activation kActivations[] = {Activation::kNone,      Activation::kGelu,
                                       Activation::kGeluTanh,  Activation::kRelu,
                                       Activation::kQuickGelu, Activation::kTanh};

/// The sites of a fused linear: the first third of its columns and the last, with unequal ranks.
/// Returns the columns of h.
int addSites(OpCase& op, std::vector<LoraSite>& sites, int in, int out, bool writesBlocks) {
  const int third = std::max(1, out / 3);
  sites.push_back(op.site(3, in, 0, third, 0, writesBlocks));
  if (out < 2) return 3;
  sites.push_back(op.site(8, in, out - third, out, 3, writesBlocks));
  return 11;
}

}  // namespace

TEST_CASE("LoraDown projects the input on every site") {
  for (const Shape& shape : allShapes()) {
    for (const Layout layout : kLayouts) {
      for (const Values values : {Values::kExact, Values::kNormal}) {
        OpCase op(3, 1, layout, values);
        LoraDown step;
        step.x = op.read(Axis::kSamples, shape.rows, shape.in);
        step.h = op.written(Axis::kSamples, shape.rows, 11);
        step.sites.push_back(op.site(3, shape.in, 0, shape.out, 0));
        step.sites.push_back(op.site(8, shape.in, 0, shape.out, 3));
        op.step = step;
        checkStep(op);
      }
    }
  }
}

TEST_CASE("Linear is the exact product where single precision holds every sum") {
  for (const Shape& shape : allShapes()) {
    for (const Layout layout : kLayouts) {
      for (const bool withSites : {false, true}) {
        OpCase op(2, 1, layout, Values::kExact);
        Linear step;
        step.x = op.read(Axis::kSamples, shape.rows, shape.in);
        step.y = op.written(Axis::kSamples, shape.rows, shape.out);
        step.weight = op.matrix(shape.out, shape.in);
        step.bias = op.vector(shape.out);
        step.residual = op.read(Axis::kSamples, shape.rows, shape.out);
        if (withSites) {
          const int ranks = addSites(op, step.sites, shape.in, shape.out, false);
          step.h = op.read(Axis::kSamples, shape.rows, ranks);
        }
        op.step = step;
        checkStep(op);
      }
    }
  }
}

TEST_CASE("Linear agrees with the specification for every activation and optional operand") {
  int variant = 0;
  for (const Activation activation : kActivations) {
    for (const Shape& shape : allShapes()) {
      const int stride = shape.in * shape.out > 5000 ? 5 : 1;  // 0, 5, 10, 15: each bit, both ways
      for (int options = 0; options < 16; options += stride, ++variant) {
        // ReLU's derivative jumps at 0: exact sums keep both sides on the same side of it, and hit
        // 0 itself often.
        const Values values = activation == Activation::kRelu ? Values::kExact : Values::kNormal;
        OpCase op(1 + variant % 3, 1, kLayouts[variant % 3], values);
        Linear step;
        step.activation = activation;
        step.x = op.read(Axis::kSamples, shape.rows, shape.in);
        step.y = op.written(Axis::kSamples, shape.rows, shape.out);
        if (options & 1) {
          step.weight = op.matrix(shape.out, shape.in);
        } else {
          step.trainedWeight = op.parameters(std::int64_t{shape.out} * shape.in);
        }
        if (options & 2) {
          if (options & 1) {
            step.bias = op.vector(shape.out);
          } else {
            step.trainedBias = op.parameters(shape.out);
          }
        }
        if (options & 4) {
          const int ranks = addSites(op, step.sites, shape.in, shape.out, false);
          step.h = op.read(Axis::kSamples, shape.rows, ranks);
        }
        if (options & 8) step.actGrad = op.written(Axis::kSamples, shape.rows, shape.out);
        if (variant % 5 == 0) step.residual = op.read(Axis::kSamples, shape.rows, shape.out);
        op.step = step;
        checkStep(op);
      }
    }
  }
}

TEST_CASE("Linear adds a residual that is its own output") {
  for (const Shape& shape : kShapes) {
    OpCase op(2, 1, Layout::kSliced, Values::kExact);
    Linear step;
    step.x = op.read(Axis::kSamples, shape.rows, shape.in);
    step.y = op.operand(Axis::kSamples, Role::kUpdated, shape.rows, shape.out);
    step.residual = step.y;
    step.weight = op.matrix(shape.out, shape.in);
    op.step = step;
    checkStep(op);
  }
}

TEST_CASE("Linear reaches the flat ends of its activations without NaN") {
  for (const Activation activation : kActivations) {
    OpCase op(1, 1);
    Linear step;
    step.activation = activation;
    step.x = op.read(Axis::kSamples, 65, 1);
    step.y = op.written(Axis::kSamples, 65, 1);
    step.actGrad = op.written(Axis::kSamples, 65, 1);
    step.weight = op.matrix(1, 1);
    op.weights[0].values[0] = 1;
    for (int t = 0; t < 65; ++t) {  // -128, -124, ..., 128 and, in between, the bend near zero
      op.scratch[static_cast<std::size_t>(step.x.offset + t)] =
          t % 2 == 0 ? static_cast<float>(4 * (t - 32)) : static_cast<float>(t - 32) / 8;
    }
    op.step = step;
    checkStep(op);
  }
}

TEST_CASE("LoraBackward writes u and both parameter blocks of every site, per segment or reduced") {
  for (const auto& [batch, rows] : kSegments) {
    for (const Shape& shape : allShapes()) {
      for (const Values values : {Values::kExact, Values::kNormal}) {
        for (const bool reduce : {false, true}) {
          OpCase op(batch, rows, kLayouts[(batch + rows + shape.rows) % 3], values);
          LoraBackward step;
          step.dy = op.read(Axis::kSegments, shape.rows, shape.out);
          step.x = op.read(Axis::kSamples, shape.rows, shape.in);
          const int ranks = addSites(op, step.sites, shape.in, shape.out, true);
          step.h = op.read(Axis::kSamples, shape.rows, ranks);
          step.u = op.written(Axis::kSegments, shape.rows, ranks);
          if (reduce) op.reduce();
          op.step = step;
          checkStep(op);
        }
      }
    }
  }
}

TEST_CASE(
    "WeightBackward writes the blocks of a trained weight and of its bias, where it has one") {
  for (const auto& [batch, rows] : kSegments) {
    for (const Shape& shape : allShapes()) {
      for (const Values values : {Values::kExact, Values::kNormal}) {
        for (const bool reduce : {false, true}) {
          for (const bool bias : {false, true}) {
            OpCase op(batch, rows, kLayouts[(batch + rows + shape.rows) % 3], values);
            WeightBackward step;
            step.dy = op.read(Axis::kSegments, shape.rows, shape.out);
            step.x = op.read(Axis::kSamples, shape.rows, shape.in);
            step.weight = op.parameters(std::int64_t{shape.out} * shape.in);
            op.writesBlock(step.weight, std::int64_t{shape.out} * shape.in);
            if (bias) {
              step.bias = op.parameters(shape.out);
              op.writesBlock(step.bias, shape.out);
            }
            if (reduce) op.reduce();
            op.step = step;
            checkStep(op);
          }
        }
      }
    }
  }
}

TEST_CASE("WeightBackward writes a bias alone where the weight is frozen") {
  for (const auto& [batch, rows] : kSegments) {
    for (const Layout layout : kLayouts) {
      for (const auto& [tokens, cols] : {Extent{1, 1}, Extent{5, 7}, Extent{17, 48}}) {
        for (const bool reduce : {false, true}) {
          OpCase op(batch, reduce ? 1 : rows, layout);
          if (reduce) op.reduce();
          WeightBackward step;
          step.dy = op.read(Axis::kSegments, tokens, cols);
          step.bias = op.parameters(cols);
          op.writesBlock(step.bias, cols);
          op.step = step;
          checkStep(op);
        }
      }
    }
  }
}

TEST_CASE("LinearBackward agrees with the specification for every optional operand") {
  constexpr Layout kEvery[] = {Layout::kDense, Layout::kSliced, Layout::kMixed, Layout::kColumns};
  int variant = 0;
  for (const auto& [batch, rows] : kSegments) {
    for (const Shape& shape : allShapes()) {
      const int stride = shape.in * shape.out > 5000 ? 5 : 1;  // 0, 5, 10, 15: each bit, both ways
      for (int options = 0; options < 16; options += stride, ++variant) {
        OpCase op(batch, rows, kEvery[(variant + variant / 16) % 4],
                  variant % 2 == 0 ? Values::kExact : Values::kNormal);
        LinearBackward step;
        step.accumulate = (options & 1) != 0;
        step.dy = op.read(Axis::kSegments, shape.rows, shape.out);
        step.dx = op.target(step.accumulate, shape.rows, shape.in);
        if (options & 2) {
          step.weight = op.matrix(shape.out, shape.in);
        } else {
          step.trainedWeight = op.parameters(std::int64_t{shape.out} * shape.in);
        }
        if (options & 4) step.derivative.factor = op.read(Axis::kSamples, shape.rows, shape.in);
        if (options & 8) {
          const int ranks = addSites(op, step.sites, shape.in, shape.out, false);
          step.u = op.read(Axis::kSegments, shape.rows, ranks);
        }
        op.step = step;
        checkStep(op);
      }
    }
  }
}

TEST_CASE("ActivationBackward scales every segment by the derivative of its sample") {
  for (const auto& [batch, rows] : kSegments) {
    for (const Layout layout : kLayouts) {
      for (const auto& [tokens, cols] :
           {Extent{1, 1}, Extent{5, 7}, Extent{17, 48}, Extent{5, 130}, Extent{197, 192}}) {
        OpCase op(batch, rows, layout);
        ActivationBackward step;
        step.dy = op.target(true, tokens, cols);
        step.derivative.factor = op.read(Axis::kSamples, tokens, cols);
        op.step = step;
        checkStep(op);
      }
    }
  }
}

TEST_CASE("bfloat16 errs at most twice as much as a plain bfloat16 product") {
  // Plain: operands and the result are rounded to bfloat16, as torch.nn.functional.linear does, and the sums
  // are exact. Ours keeps the result in float32.
  const auto rounded = [](double value) {
    const auto single = static_cast<float>(value);
    std::uint32_t bits;
    std::memcpy(&bits, &single, sizeof bits);
    bits = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
    float result;
    std::memcpy(&result, &bits, sizeof result);
    return static_cast<double>(result);
  };
  constexpr int kRows = 33, kIn = 200, kOut = 70;
  OpCase op(1, 1);
  Linear step;
  step.x = op.read(Axis::kSamples, kRows, kIn);
  step.y = op.written(Axis::kSamples, kRows, kOut);
  step.weight = op.matrix(kOut, kIn);
  op.step = step;
  for (const Candidate& candidate : bfloat16Candidates()) {
    CAPTURE(candidate.name);
    Runner runner(candidate, 1, op);
    const Outcome found = runner.run(op, 0);
    double ours = 0, plain = 0;
    for (int t = 0; t < kRows; ++t) {
      for (int o = 0; o < kOut; ++o) {
        double exact = 0, sum = 0;
        for (int i = 0; i < kIn; ++i) {
          const double x = op.scratch[static_cast<std::size_t>(step.x.offset + t * step.x.ld + i)];
          const double w = op.weights[0].values[static_cast<std::size_t>(o * kIn + i)];
          exact += x * w;
          sum += rounded(x) * rounded(w);
        }
        const double y = found.scratch[static_cast<std::size_t>(step.y.offset + t * step.y.ld + o)];
        ours = std::max(ours, std::fabs(y - exact));
        plain = std::max(plain, std::fabs(rounded(sum) - exact));
      }
    }
    CHECK(ours <= 2 * plain);
    CHECK(ours > 1e-3);  // it did compute in bfloat16
  }
}

}  // namespace loko::test
