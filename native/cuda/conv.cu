// Convolutions as products of gathered patches, on NHWC pixels, and their LoRA. theta and the Jacobian keep
// the factor A as [r, in, kh, kw]; a small kernel turns it to where a product reads it along.

#include <algorithm>

#include "cuda/element.cuh"
#include "cuda/lora_blocks.h"
#include "cuda/patches.cuh"

namespace loko::cuda {

namespace {

void expectPixels(const Window& window, const View& input, const View& output) {
  expectShape(input, window.input.pixels(), input.cols, "the input of a window");
  expectShape(output, window.output.pixels(), output.cols, "the output of a window");
}

/// A of one site, in the order [rank, taps, in] or, with all sites, [taps, columns of h, in].
struct TurnElement {
  const float* a;
  float* target;
  int taps, in;
  std::int64_t rankStep, tapStep;
  __device__ void operator()(int r, int tap, int c) const {
    target[r * rankStep + tap * tapStep + c] = a[(std::int64_t{r} * in + c) * taps + tap];
  }
};

float* turnA(const std::vector<LoraSite>& sites, int columns, int in, int taps, bool tapsFirst,
             Context& context) {
  float* memory = context.floats(std::int64_t{columns} * taps * in);
  for (const LoraSite& site : sites) {
    const std::int64_t rankStep = tapsFirst ? in : std::int64_t{taps} * in;
    const std::int64_t tapStep = tapsFirst ? std::int64_t{columns} * in : in;
    const TurnElement element{context.parameter(site.a, std::int64_t{site.rank} * in * taps),
                              memory + site.hBegin * rankStep,
                              taps,
                              in,
                              rankStep,
                              tapStep};
    forEachElement("turn a factor", site.rank, taps, in, element, context);
  }
  return memory;
}

std::int64_t turnedSize(int columns, int in, int taps) {
  return std::int64_t{columns} * in * taps;
}

/// The factors B of the sites that reach columns [begin, begin + product.n) of the output.
void addFactors(Product& product, const Conv2d& op, int begin, const Frame& frame,
                Context& context) {
  for (const LoraSite& site : op.sites) {
    const int first = std::max(site.outBegin, begin),
              last = std::min(site.outEnd, begin + product.n);
    if (first >= last) continue;
    float* b = context.parameter(site.b, std::int64_t{site.outEnd - site.outBegin} * site.rank);
    const Rows factor =
        denseRows(b + std::int64_t{first - site.outBegin} * site.rank, last - first, site.rank);
    Term& term =
        addTerm(product, operandOf(columnsOf(context.rows(op.h, frame.batch), site.hBegin)),
                operandOf(factor), site.rank);
    term.begin = first - begin;
    term.end = last - begin;
    term.scale = site.scale;
    if (site.outputScale != kNoWeight) {
      term.columnScale = context.vector(site.outputScale, op.y.cols) + begin;
    }
  }
}

Rows columnsIfPresent(const Rows& rows, int begin) {
  return rows.present() ? columnsOf(rows, begin) : rows;
}

struct SpreadElement {
  Rows u, spread;
  Window window;
  int columns;
  __device__ void operator()(int s, int q, int column) const {
    const int p = outputOfTap(window, q, column / columns);
    spread.at(s, q)[column] = p < 0 ? 0 : u.at(s, p)[column % columns];
  }
};

}  // namespace

void prepare(const ConvLoraDown& op, const WorkspaceHint&, Context& context) {
  context.needFloats(turnedSize(op.h.cols, op.x.cols, op.window.taps()));
}

// In float32: what it makes is small, and part of the Jacobian.
void run(const ConvLoraDown& op, const Frame& frame, Context& context) {
  expectPixels(op.window, op.x, op.h);
  const int in = op.x.cols, taps = op.window.taps(), columns = op.h.cols;
  for (const LoraSite& site : op.sites) checkSites({site}, op.h, op.h.rows, site.outEnd);
  float* a = turnA(op.sites, columns, in, taps, false, context);
  Product product;
  product.m = frame.batch * op.h.rows;
  product.n = columns;
  product.exact = true;
  product.gather = Gather::kPatches;
  product.patches = {op.window, in, columns};
  addTerm(product, operandOf(context.rows(op.x, frame.batch)),
          operandOf(denseRows(a, columns, std::int64_t{taps} * in)), taps * in);
  product.epilogue.target = context.rows(op.h, frame.batch);
  run(product, Orientation::kAlong, context);
}

void run(const Conv2d& op, const Frame& frame, Context& context) {
  expectPixels(op.window, op.x, op.y);
  const int rows = op.y.rows, groups = op.groups(), taps = op.window.taps(), batch = frame.batch;
  const int in = op.x.cols / groups, out = op.y.cols / groups;
  if (op.residual.present()) expectShape(op.residual, rows, op.y.cols, "residual");
  if (op.actGrad.present()) expectShape(op.actGrad, rows, op.y.cols, "actGrad");
  checkSites(op.sites, op.h, rows, op.y.cols);
  for (int group = 0; group < groups; ++group) {
    Product product;
    product.m = batch * rows;
    product.n = out;
    product.gather = Gather::kPatches;
    product.patches = {op.window, in, out};
    addTerm(product, operandOf(columnsOf(context.rows(op.x, batch), group * in)),
            context.matrix(op.weights[static_cast<std::size_t>(group)], out, taps * in), taps * in);
    addFactors(product, op, group * out, frame, context);
    Epilogue& epilogue = product.epilogue;
    epilogue.target = columnsOf(context.rows(op.y, batch), group * out);
    epilogue.activation = op.activation;
    epilogue.residual = columnsIfPresent(context.rows(op.residual, batch), group * out);
    epilogue.actGrad = columnsIfPresent(context.rows(op.actGrad, batch), group * out);
    if (op.bias != kNoWeight) epilogue.bias = context.vector(op.bias, op.y.cols) + group * out;
    run(product, Orientation::kAlong, context);
  }
}

void run(const ConvLoraBackward& op, const Frame& frame, Context& context) {
  expectPixels(op.window, op.x, op.dy);
  const int rows = op.dy.rows, in = op.x.cols, taps = op.window.taps(), columns = op.u.cols;
  const int segments = frame.segments();
  expectShape(op.h, rows, op.h.cols, "h");
  checkSites(op.sites, op.h, rows, op.dy.cols);
  checkSites(op.sites, op.u, rows, op.dy.cols);
  outputCotangent(op.dy, op.u, op.sites, frame, context);
  if (op.spread.present()) {
    expectShape(op.spread, op.window.input.pixels(), taps * columns, "spread");
    const SpreadElement element{context.rows(op.u, segments), context.rows(op.spread, segments),
                                op.window, columns};
    forEachElement("spread", segments, op.spread.rows, taps * columns, element, context);
  }
  const int blocks = frame.reduce ? 1 : segments;
  SmallProductQueue forB(Orientation::kAcross, Orientation::kAcross, blocks, context);
  SmallProductQueue forA(Orientation::kAcross, Orientation::kAcross, blocks, context);
  forA.setWindow(op.window);
  for (const LoraSite& site : op.sites) {
    forB.add(blockOfB(site, op.h, op.dy, frame, context));
    for (int tap = 0; tap < taps; ++tap) {  // dA[r, c, tap] = sum over p of u[p, r] x[tap of p, c]
      SmallProduct item =
          rowSums({op.u, segments, site.hBegin, site.rank}, {op.x, frame.batch, 0, in}, site.a,
                  std::int64_t{site.rank} * in * taps, frame, context);
      item.tap = tap;
      item.epilogue.target =
          denseRows(item.epilogue.target.data + tap, site.rank, std::int64_t{in} * taps);
      item.epilogue.columnStride = taps;
      forA.add(item);
    }
  }
  forB.flush();
  forA.flush();
}

void prepare(const Conv2dBackward& op, const WorkspaceHint&, Context& context) {
  if (op.sites.empty()) return;
  const int taps = op.window.taps();
  context.needFloats(turnedSize(op.spread.cols / taps, op.dx.cols, taps));
}

void run(const Conv2dBackward& op, const Frame& frame, Context& context) {
  expectPixels(op.window, op.dx, op.dy);
  const int groups = op.groups(), taps = op.window.taps(), segments = frame.segments();
  const int in = op.dx.cols / groups, out = op.dy.cols / groups;
  float* a = op.sites.empty()
                 ? nullptr
                 : turnA(op.sites, op.spread.cols / taps, op.dx.cols, taps, true, context);
  for (int group = 0; group < groups; ++group) {
    Product product;
    product.m = segments * op.dx.rows;
    product.n = in;
    product.gather = Gather::kCotangentPatches;
    product.patches = {op.window, out, in};
    Operand weights = context.matrix(op.weights[static_cast<std::size_t>(group)], out, taps * in);
    // A tap begins at a multiple of `in` along a row.
    weights.aligned = weights.aligned && in % 4 == 0;
    addTerm(product, operandOf(columnsOf(context.rows(op.dy, segments), group * out)), weights,
            taps * out);
    if (a != nullptr) {  // u already carries the scale
      const Rows factors = columnsOf(denseRows(a, op.spread.cols, op.dx.cols), group * in);
      addTerm(product, operandOf(context.rows(op.spread, segments)), operandOf(factors),
              op.spread.cols);
    }
    Epilogue& epilogue = product.epilogue;
    epilogue.target = columnsOf(context.rows(op.dx, segments), group * in);
    epilogue.accumulate = op.accumulate;
    if (op.derivative.present()) {
      expectShape(op.derivative.factor, op.dx.rows, op.dx.cols, "derivative");
      epilogue.derivative = columnsOf(context.rows(op.derivative.factor, frame.batch), group * in);
      epilogue.ofRelu = op.derivative.ofRelu;
      epilogue.ofSum = op.derivative.ofSum;
    }
    run(product, Orientation::kAcross, context);
  }
}

}  // namespace loko::cuda
