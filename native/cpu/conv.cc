// Convolutions as products of gathered patches. Forward: y = patches(x) W, with W packed as
// [(tap, channel), out]. Back: dx is again a product of patches, those of dy, with the same W transposed
// on the fly; a stride splits the input into stride x stride phases, each of which meets its own taps, so
// that no product multiplies zeros. Floor each way: output pixels * taps * in * out / groups multiply-adds.
#include "cpu/lora_terms.h"
#include "cpu/patches.h"

namespace loko::cpu {

namespace {

void expectPixels(const Window& window, const View& input, const View& output) {
  expectShape(input, window.input.pixels(), input.cols, "the input of a window");
  expectShape(output, window.output.pixels(), output.cols, "the output of a window");
}

/// The map of columns [begin, ...) of a view's rows; absent stays absent.
template <class Map>
Map shifted(Map map, std::int64_t begin) {
  if (map) map.base += begin;
  return map;
}

/// Rows (phase.y + i * stride, phase.x + j * stride) of one sample of a view of input pixels.
template <class Map, class Pointer>
Map phaseRows(const View& view, Pointer base, const Window& window, const PhaseAxis& y,
              const PhaseAxis& x) {
  Map map;
  if (base == nullptr) return map;
  map.base = base + (std::int64_t{y.phase} * window.input.width + x.phase) * view.ld;
  map.ld = window.stride.width * view.ld;
  map.blockRows = x.pixels;
  map.blockStride = std::int64_t{window.stride.height} * window.input.width * view.ld;
  return map;
}

/// A of all sites as [(tap, column of u), in]: one row for each tap and rank.
void packTaps(const Conv2dBackward& op, float* target, Context& context) {
  const int in = op.dx.cols, taps = op.window.taps(), columns = op.spread.cols / taps;
  for (const LoraSite& site : op.sites) {
    const float* a = context.parameter(site.a, std::int64_t{site.rank} * in * taps);
    for (int r = 0; r < site.rank; ++r) {
      for (int c = 0; c < in; ++c) {
        for (int tap = 0; tap < taps; ++tap) {
          target[(std::int64_t{tap} * columns + site.hBegin + r) * in + c] = *a++;
        }
      }
    }
  }
}

std::size_t floatsOfTaps(const Conv2dBackward& op) {
  return static_cast<std::size_t>(op.spread.cols) * static_cast<std::size_t>(op.dx.cols);
}

/// dx of one group of channels.
class InputGradient {
 public:
  InputGradient(const Conv2dBackward& op, int group, const PackedTail* tail, const Frame& frame,
                Context& context)
      : op_(op),
        tail_(tail),
        frame_(frame),
        context_(context),
        in_(op.dx.cols / op.groups()),
        out_(op.dy.cols / op.groups()),
        column_(group * in_),
        dy_(context.at(op.dy, frame.segments()) + group * out_),
        weight_(context.matrix(op.weights[static_cast<std::size_t>(group)], out_,
                               op.window.taps() * in_)) {}

  void run(const PhaseAxis& y, const PhaseAxis& x) const {
    if (y.pixels <= 0 || x.pixels <= 0) return;
    const bool reached = y.taps > 0 && x.taps > 0;
    if (!reached && op_.accumulate && !op_.derivative.ofSum) return;
    const TransposedTaps taps(weight_, in_, op_.window.kernel.width, y, x);
    GemmArgs args;
    args.n = in_;
    args.k = y.taps * x.taps * out_;
    args.b.source = &taps;
    args.epilogue.accumulate = op_.accumulate;
    args.tailV = reached ? tail_ : nullptr;
    // Rows of one phase are evenly spaced within a sample only.
    const int segments = frame_.segments();
    const bool strided = op_.window.stride.pixels() > 1;
    const int together = strided ? 1 : segments;
    for (int s = 0; s < segments; s += together) {
      const PatchRows patches(op_.dy, dy_ + s * op_.dy.sampleStride, out_, y.gather, x.gather);
      args.m = std::int64_t{together} * y.pixels * x.pixels;
      args.a.source = &patches;
      if (strided) {
        locateSegment(s, y, x, args);
      } else {
        locateAll(args);
      }
      context_.gemm(args);
    }
  }

 private:
  void locateAll(GemmArgs& args) const {
    args.c = shifted(context_.writableRows(op_.dx, frame_.segments()), column_);
    foldDerivative(op_.derivative, op_.dx, frame_.batch, args, context_);
    args.epilogue.multiplier = shifted(args.epilogue.multiplier, column_);
    args.tailU = context_.rows(op_.spread, frame_.segments());
  }

  void locateSegment(int s, const PhaseAxis& y, const PhaseAxis& x, GemmArgs& args) const {
    const auto base = [&](const View& view, int samples, int sample) {
      float* first = context_.at(view, samples);
      return first == nullptr ? nullptr : first + sample * view.sampleStride;
    };
    const View& factor = op_.derivative.factor;
    foldDerivative(op_.derivative, op_.dx, frame_.batch, args, context_);
    args.c = shifted(
        phaseRows<MutableRowMap>(op_.dx, base(op_.dx, frame_.segments(), s), op_.window, y, x),
        column_);
    args.epilogue.multiplier = shifted(
        phaseRows<RowMap>(factor, base(factor, frame_.batch, s % frame_.batch), op_.window, y, x),
        column_);
    args.epilogue.multiplierPeriod = 0;
    args.tailU =
        phaseRows<RowMap>(op_.spread, base(op_.spread, frame_.segments(), s), op_.window, y, x);
  }

  const Conv2dBackward& op_;
  const PackedTail* tail_;
  const Frame& frame_;
  Context& context_;
  const int in_, out_, column_;
  const float* dy_;
  const PackedMatrix& weight_;
};

}  // namespace

void prepare(const Conv2d& op, const WorkspaceHint& hint, Context& context) {
  const int rank = op.sites.empty() ? 0 : op.h.cols;
  const int out = op.y.cols / op.groups(), in = op.x.cols / op.groups();
  context.needGemm(std::int64_t{hint.batch} * op.y.rows, out, op.window.taps() * in, rank);
  if (rank > 0) needOutputTail(op.sites, rank, out, context);
}

void run(const Conv2d& op, const Frame& frame, Context& context) {
  const int batch = frame.batch, rows = op.y.rows, taps = op.window.taps();
  const int out = op.y.cols / op.groups(), in = op.x.cols / op.groups();
  expectPixels(op.window, op.x, op.y);
  if (op.residual.present()) expectShape(op.residual, rows, op.y.cols, "residual");
  if (op.actGrad.present()) expectShape(op.actGrad, rows, op.y.cols, "actGrad");
  checkSites(op.sites, op.h, rows, op.y.cols);
  const float* x = context.at(op.x, batch);
  const float* bias = op.bias == kNoWeight ? nullptr : context.vector(op.bias, op.y.cols);
  for (int group = 0; group < op.groups(); ++group) {
    const int column = group * out;
    const PatchRows patches = patchesOf(op.window, op.x, x + group * in, in);
    GemmArgs args;
    args.m = std::int64_t{batch} * rows;
    args.n = out;
    args.k = taps * in;
    args.a.source = &patches;
    args.b.packed = &context.matrix(op.weights[static_cast<std::size_t>(group)], out, taps * in);
    args.c = shifted(context.writableRows(op.y, batch), column);
    if (!op.sites.empty()) {
      args.tailU = context.rows(op.h, batch);
      args.tailV = packOutputTail(op.sites, op.h.cols, column, out, op.y.cols, context);
    }
    if (bias != nullptr) args.epilogue.bias = bias + column;
    args.epilogue.residual = shifted(context.rows(op.residual, batch), column);
    args.epilogue.activation = op.activation;
    args.epilogue.derivative = shifted(context.writableRows(op.actGrad, batch), column);
    context.gemm(args);
  }
}

void prepare(const Conv2dBackward& op, const WorkspaceHint& hint, Context& context) {
  const int rank = op.sites.empty() ? 0 : op.spread.cols;
  const int out = op.dy.cols / op.groups(), in = op.dx.cols / op.groups();
  context.needGemm(std::int64_t{hint.maxRows} * hint.batch * op.dx.rows, in, op.window.taps() * out,
                   rank);
  if (rank == 0) return;
  context.needTail(rank, in);
  context.needShared(floatsOfTaps(op));
}

void run(const Conv2dBackward& op, const Frame& frame, Context& context) {
  const Window& window = op.window;
  expectPixels(window, op.dx, op.dy);
  const int in = op.dx.cols / op.groups();
  float* taps = nullptr;
  if (!op.sites.empty()) {
    expectShape(op.spread, op.dx.rows, window.taps() * columnsOfSites(op.sites), "spread");
    taps = context.shared(floatsOfTaps(op));
    packTaps(op, taps, context);
  }
  for (int group = 0; group < op.groups(); ++group) {
    const PackedTail* tail = nullptr;
    if (taps != nullptr) {
      TailSite site;
      site.source = taps + group * in;
      site.ld = op.dx.cols;
      site.layout = WeightLayout::kKN;
      site.rowEnd = op.spread.cols;
      site.columnEnd = in;
      tail = &context.packTail(op.spread.cols, in, &site, 1);
    }
    const InputGradient gradient(op, group, tail, frame, context);
    for (int y = 0; y < window.stride.height; ++y) {
      for (int x = 0; x < window.stride.width; ++x) {
        gradient.run(phaseAxis(y, window.input.height, window.output.height, window.kernel.height,
                               window.stride.height, window.padding.height, window.dilation.height),
                     phaseAxis(x, window.input.width, window.output.width, window.kernel.width,
                               window.stride.width, window.padding.width, window.dilation.width));
      }
    }
  }
}

}  // namespace loko::cpu
