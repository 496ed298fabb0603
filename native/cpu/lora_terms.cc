// The side of the output of a low-rank branch: what B gives forward, and u and dB back.
#include "cpu/lora_terms.h"

namespace loko::cpu {

Summands::Summands(const View& left, const View& right, const Frame& frame) {
  // Rows of all samples at one distance, so that a product can run over them as one dimension.
  const auto evenlySpaced = [](const View& view, int samples) {
    return samples == 1 || view.rows == 1 || view.sampleStride == view.rows * view.ld;
  };
  const bool whole = evenlySpaced(left, frame.segments()) && evenlySpaced(right, frame.batch);
  count = whole ? frame.rows : frame.segments();
  samples = whole ? frame.batch : 1;
}

namespace {

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
  std::size_t localFloats(const Kernels& kernels) const {
    return transposedFloats() +
           gemmScratchBytes(kernels, site_.rank, columns_, depth_, 0) / sizeof(float) + 1;
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
      context.needLocal(blocks.localFloats(context.kernels));
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
    context.forEachRange(
        blocks.tasks(), blocks.work(), [&](std::int64_t begin, std::int64_t end, int part) {
          float* scratch = context.local(part, blocks.localFloats(context.kernels));
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

}  // namespace loko::cpu
