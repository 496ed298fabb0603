// The low-rank branch of a linear and the blocks of the Jacobian that belong to its parameters.
#include <limits>

#include "cpu/lora_terms.h"

namespace loko::cpu {

namespace {

View columnsOf(View view, int begin, int cols) {
  view.offset += begin;
  view.cols = cols;
  return view;
}

/// Rows of all samples at one distance, so that a product can run over them as one dimension.
bool evenlySpaced(const View& view, int samples) {
  return samples == 1 || view.rows == 1 || view.sampleStride == view.rows * view.ld;
}

/// alpha left^T right over the rows of a segment, [left.cols, right.cols] at `target` of the
/// Jacobian row of each segment. `left` is indexed by segment, `right` by sample.
struct ParameterBlock {
  View left, right;
  ParameterOffset target = 0;
  float alpha = 1;
};

void needBlock(int rows, int leftCols, int rightCols, const WorkspaceHint& hint, Context& context) {
  context.needGemm(std::int64_t{hint.maxRows} * leftCols, rightCols, rows * hint.batch);
}

/// One product per sample: all cotangent rows of a sample share its activations, so the k blocks
/// [left.cols, right.cols] are the rows of one matrix.
void writeBlocks(const ParameterBlock& block, const Frame& frame, Context& context) {
  const View& left = block.left;
  const View& right = block.right;
  const float* activations = context.at(right, frame.batch);
  const float* cotangents = context.at(left, frame.segments());
  const std::int64_t size = std::int64_t{left.cols} * right.cols;
  context.jacobian(frame.firstRow + frame.segments() - 1, block.target, size);
  for (int b = 0; b < frame.batch; ++b) {
    GemmArgs args;
    args.m = std::int64_t{frame.rows} * left.cols;
    args.n = right.cols;
    args.k = left.rows;
    args.a.transposed = true;
    args.a.rows.base = cotangents + b * left.sampleStride;
    args.a.rows.ld = left.ld;
    args.a.columnBlock = left.cols;
    args.a.columnBlockStride = frame.batch * left.sampleStride;
    args.b.data = activations + b * right.sampleStride;
    args.b.ld = right.ld;
    args.c.base = context.jacobian(frame.firstRow + b, block.target, size);
    args.c.ld = right.cols;
    args.c.blockRows = left.cols;
    args.c.blockStride = frame.batch * context.parameters();
    args.epilogue.alpha = block.alpha;
    context.gemm(args);
  }
}

/// How left^T right of all segments is added up: `count` products, each over all samples of one
/// cotangent row where memory allows, else over one segment.
struct Summands {
  int count, samples;
  Summands(const View& left, const View& right, const Frame& frame) {
    const bool whole = evenlySpaced(left, frame.segments()) && evenlySpaced(right, frame.batch);
    count = whole ? frame.rows : frame.segments();
    samples = whole ? frame.batch : 1;
  }
};
std::ptrdiff_t rowDistance(const View& view, int samples) {
  return samples > 1 && view.rows == 1 ? view.sampleStride : view.ld;
}

/// The sum over all segments, in Jacobian row 0.
void writeReducedBlock(const ParameterBlock& block, const Frame& frame, Context& context) {
  const View& left = block.left;
  const View& right = block.right;
  const Summands summands(left, right, frame);
  const float* activations = context.at(right, frame.batch);
  const float* cotangents = context.at(left, frame.segments());
  for (int i = 0; i < summands.count; ++i) {
    const std::int64_t segment = std::int64_t{i} * summands.samples;
    GemmArgs args;
    args.m = left.cols;
    args.n = right.cols;
    args.k = summands.samples * left.rows;
    args.a.transposed = true;
    args.a.rows.base = cotangents + segment * left.sampleStride;
    args.a.rows.ld = rowDistance(left, summands.samples);
    args.b.data = activations + segment % frame.batch * right.sampleStride;
    args.b.ld = rowDistance(right, summands.samples);
    args.c.base = context.jacobian(0, block.target, std::int64_t{left.cols} * right.cols);
    args.c.ld = right.cols;
    args.epilogue.alpha = block.alpha;
    args.epilogue.accumulate = i > 0;
    context.gemm(args);
  }
}

void writeParameterBlock(const ParameterBlock& block, const Frame& frame, Context& context) {
  if (frame.reduce) {
    writeReducedBlock(block, frame, context);
  } else {
    writeBlocks(block, frame, context);
  }
}

/// B of a site whose output is scaled column by column, that scale included.
const float* scaledB(const LoraSite& site, int out, float* target, Context& context) {
  const int begin = site.outBegin, rows = site.outEnd - begin;
  const float* b = context.parameter(site.b, std::int64_t{rows} * site.rank);
  if (site.outputScale == kNoWeight) return b;
  const float* scale = context.vector(site.outputScale, out);
  for (int o = 0; o < rows; ++o) {
    context.kernels.scale(target + std::int64_t{o} * site.rank, scale[begin + o],
                          b + std::int64_t{o} * site.rank, site.rank);
  }
  return target;
}

/// Room for B of all sites.
std::size_t floatsOfB(const std::vector<LoraSite>& sites) {
  std::size_t floats = 0;
  for (const LoraSite& site : sites) {
    if (site.outputScale == kNoWeight) continue;
    floats +=
        static_cast<std::size_t>(site.outEnd - site.outBegin) * static_cast<std::size_t>(site.rank);
  }
  return floats;
}

// dB = scale dy^T h is taken as its transpose h^T dy: r rows of full width, with dy read in place,
// where dy^T h would pack all of dy for r columns. A task is a range of columns of one block: that of
// a segment, or the one that all segments add up to.
class FactorBlocks {
 public:
  /// outputScale: of the site's columns, or null.
  FactorBlocks(const View& dy, const View& h, const LoraSite& site, const float* outputScale,
               const Frame& frame, int threads)
      : dy_(dy),
        h_(h),
        site_(site),
        outputScale_(outputScale),
        frame_(frame),
        blocks_(frame.reduce ? 1 : frame.segments()),
        splits_(std::clamp((threads + blocks_ - 1) / blocks_, 1,
                           (dy.cols + kPanelColumns - 1) / kPanelColumns)),
        columns_((dy.cols + splits_ - 1) / splits_),
        depth_(frame.reduce ? dy.rows * frame.segments() : dy.rows) {}

  std::int64_t tasks() const { return std::int64_t{blocks_} * splits_; }
  /// Few rows leave the tile kernels a third of their speed.
  std::int64_t work() const { return std::int64_t{3} * depth_ * site_.rank * columns_; }
  std::size_t localFloats() const {
    return transposedFloats() + gemmScratchBytes(site_.rank, columns_, depth_, 0) / sizeof(float) +
           1;
  }

  void run(std::int64_t task, float* scratch, Context& context) const {
    const auto block = static_cast<int>(task / splits_);
    const int begin = static_cast<int>(task % splits_) * columns_;
    const int columns = std::min(columns_, dy_.cols - begin);
    if (columns <= 0) return;
    if (frame_.reduce) {
      const Summands summands(dy_, h_, frame_);
      for (int i = 0; i < summands.count; ++i) {
        multiply(i * summands.samples, summands.samples, begin, columns, i > 0, scratch, context);
      }
    } else {
      multiply(block, 1, begin, columns, false, scratch, context);
    }
    const std::int64_t row = frame_.reduce ? 0 : frame_.firstRow + block;
    float* target = context.jacobian(row, site_.b, std::int64_t{dy_.cols} * site_.rank) +
                    std::int64_t{begin} * site_.rank;
    for (int o = 0; o < columns; ++o) {
      const float scale = outputScale_ == nullptr ? 1 : outputScale_[begin + o];
      for (int j = 0; j < site_.rank; ++j) *target++ = scale * scratch[j * columns + o];
    }
  }

 private:
  std::size_t transposedFloats() const {
    return (static_cast<std::size_t>(site_.rank) * static_cast<std::size_t>(columns_) + 15) / 16 *
           16;
  }

  /// h^T dy over `samples` samples from a segment on, into the scratch.
  void multiply(int segment, int samples, int begin, int columns, bool accumulate, float* scratch,
                Context& context) const {
    GemmArgs args;
    args.m = site_.rank;
    args.n = columns;
    args.k = samples * dy_.rows;
    args.a.transposed = true;
    args.a.rows.base = context.at(h_, frame_.batch) + segment % frame_.batch * h_.sampleStride;
    args.a.rows.ld = rowDistance(h_, samples);
    args.b.data = context.at(dy_, frame_.segments()) + segment * dy_.sampleStride + begin;
    args.b.ld = rowDistance(dy_, samples);
    args.c.base = scratch;
    args.c.ld = columns;
    args.epilogue.alpha = site_.scale;
    args.epilogue.accumulate = accumulate;
    gemm(context.kernels, args, scratch + transposedFloats());
  }

  const View dy_, h_;
  const LoraSite& site_;
  const float* outputScale_;
  const Frame& frame_;
  const int blocks_, splits_, columns_, depth_;
};

}  // namespace

void prepare(const LoraDown& op, const WorkspaceHint& hint, Context& context) {
  const int ranks = columnsOfSites(op.sites);
  context.needGemm(std::int64_t{hint.batch} * op.x.rows, ranks, op.x.cols);
  context.needShared(PackedMatrix::floatCount(op.x.cols, ranks));
}

// All sites share x, so that their A stand side by side in one product.
void run(const LoraDown& op, const Frame& frame, Context& context) {
  const int in = op.x.cols, ranks = columnsOfSites(op.sites);
  checkSites(op.sites, op.h, op.x.rows, std::numeric_limits<int>::max());
  PackedMatrix factors(in, ranks, context.shared(PackedMatrix::floatCount(in, ranks)));
  for (const LoraSite& site : op.sites) {
    factors.pack(context.parameter(site.a, std::int64_t{site.rank} * in), in, WeightLayout::kNK, 0,
                 in, site.hBegin, site.rank);
  }
  GemmArgs args;
  args.m = std::int64_t{frame.batch} * op.x.rows;
  args.n = ranks;
  args.k = in;
  args.a.rows = context.rows(op.x, frame.batch);
  args.b.packed = &factors;
  args.c = context.writableRows(op.h, frame.batch);
  context.gemm(args);
}

void needOutputSide(const OutputSide& side, const WorkspaceHint& hint, Context& context) {
  Frame largest;  // fewer rows and more threads split into narrower columns
  largest.batch = hint.batch;
  largest.rows = hint.maxRows;
  context.needShared(floatsOfB(side.sites));
  for (const LoraSite& site : side.sites) {
    const int out = site.outEnd - site.outBegin;
    context.needGemm(std::int64_t{largest.segments()} * side.dy.rows, site.rank, out);
    for (const bool reduce : {false, true}) {
      largest.reduce = reduce;
      const FactorBlocks blocks(columnsOf(side.dy, site.outBegin, out), side.h, site, nullptr,
                                largest, 1);
      context.needLocal(blocks.localFloats());
    }
  }
}

void writeOutputSide(const OutputSide& side, const Frame& frame, Context& context) {
  const int rows = side.dy.rows, segments = frame.segments();
  expectShape(side.h, rows, side.h.cols, "h");
  checkSites(side.sites, side.h, rows, side.dy.cols);
  checkSites(side.sites, side.u, rows, side.dy.cols);
  float* scaled = context.shared(floatsOfB(side.sites));
  for (const LoraSite& site : side.sites) {
    const int out = site.outEnd - site.outBegin;
    const View dy = columnsOf(side.dy, site.outBegin, out);

    GemmArgs args;
    args.m = std::int64_t{segments} * rows;
    args.n = site.rank;
    args.k = out;
    args.a.rows = context.rows(dy, segments);
    args.b.data = scaledB(site, side.dy.cols, scaled, context);
    args.b.ld = site.rank;
    args.c = context.writableRows(columnsOf(side.u, site.hBegin, site.rank), segments);
    args.epilogue.alpha = site.scale;
    context.gemm(args);

    const float* scale = site.outputScale == kNoWeight
                             ? nullptr
                             : context.vector(site.outputScale, side.dy.cols) + site.outBegin;
    const FactorBlocks blocks(dy, columnsOf(side.h, site.hBegin, site.rank), site, scale, frame,
                              context.pool.threads());
    context.forEachRange(blocks.tasks(), blocks.work(),
                         [&](std::int64_t begin, std::int64_t end, int part) {
                           float* scratch = context.local(part, blocks.localFloats());
                           for (std::int64_t task = begin; task < end; ++task) {
                             blocks.run(task, scratch, context);
                           }
                         });
  }
}

int columnsOfSites(const std::vector<LoraSite>& sites) {
  int columns = 0;
  for (const LoraSite& site : sites) columns = std::max(columns, site.hBegin + site.rank);
  return columns;
}

void needOutputTail(const std::vector<LoraSite>& sites, int rank, int n, Context& context) {
  context.needTail(rank, n);
  context.needShared(floatsOfB(sites));
}

const PackedTail* packOutputTail(const std::vector<LoraSite>& sites, int rank, int begin, int n,
                                 int out, Context& context) {
  TailSite tail[kMaxTailSites];
  int count = 0;
  float* scaled = context.shared(floatsOfB(sites));
  for (const LoraSite& site : sites) {
    if (site.outBegin >= begin + n || site.outEnd <= begin) continue;
    LOKO_CHECK(count < kMaxTailSites && site.outBegin >= begin && site.outEnd <= begin + n,
               "LoRA sites of a product");
    TailSite& block = tail[count++];
    block.source = scaledB(site, out, scaled, context);
    if (block.source == scaled) scaled += std::int64_t{site.outEnd - site.outBegin} * site.rank;
    block.ld = site.rank;
    block.layout = WeightLayout::kNK;
    block.rowBegin = site.hBegin;
    block.rowEnd = site.hBegin + site.rank;
    block.columnBegin = site.outBegin - begin;
    block.columnEnd = site.outEnd - begin;
    block.scale = site.scale;
  }
  return &context.packTail(rank, n, tail, count);
}

void foldDerivative(const FoldedDerivative& derivative, const View& dx, int batch, GemmArgs& args,
                    Context& context) {
  if (!derivative.present()) return;
  expectShape(derivative.factor, dx.rows, dx.cols, "derivative");
  args.epilogue.multiplier = context.rows(derivative.factor, batch);
  args.epilogue.multiplierPeriod = batch * dx.rows;
  args.epilogue.multiplierOfRelu = derivative.ofRelu;
  args.epilogue.multiplySum = derivative.ofSum;
}

void prepare(const LoraBackward& op, const WorkspaceHint& hint, Context& context) {
  needOutputSide({op.dy, op.h, op.u, op.sites}, hint, context);
  for (const LoraSite& site : op.sites) {
    needBlock(op.dy.rows, site.rank, op.x.cols, hint, context);
  }
}

void run(const LoraBackward& op, const Frame& frame, Context& context) {
  expectShape(op.x, op.dy.rows, op.x.cols, "x");
  writeOutputSide({op.dy, op.h, op.u, op.sites}, frame, context);
  for (const LoraSite& site : op.sites) {
    writeParameterBlock({columnsOf(op.u, site.hBegin, site.rank), op.x, site.a, 1.0f}, frame,
                        context);
  }
}

void prepare(const WeightBackward& op, const WorkspaceHint& hint, Context& context) {
  if (op.weight == kNoParameter) return;
  needBlock(op.dy.rows, op.dy.cols, op.x.cols, hint, context);
}

void run(const WeightBackward& op, const Frame& frame, Context& context) {
  const int rows = op.dy.rows, out = op.dy.cols, segments = frame.segments();
  if (op.weight != kNoParameter) {
    expectShape(op.x, rows, op.x.cols, "x");
    writeParameterBlock({op.dy, op.x, op.weight, 1.0f}, frame, context);
  }
  if (op.bias == kNoParameter) return;

  const RowMap dy = context.rows(op.dy, segments);
  const auto addRows = [&](float* target, std::int64_t begin, std::int64_t end) {
    std::fill_n(target, out, 0.0f);
    for (std::int64_t i = begin; i < end; ++i) context.kernels.axpy(target, 1.0f, dy.row(i), out);
  };
  if (frame.reduce) {
    addRows(context.jacobian(0, op.bias, out), 0, std::int64_t{segments} * rows);
    return;
  }
  for (std::int64_t s = 0; s < segments; ++s) {
    addRows(context.jacobian(frame.firstRow + s, op.bias, out), s * rows, (s + 1) * rows);
  }
}

}  // namespace loko::cpu
