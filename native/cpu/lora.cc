// The low-rank branch of a linear and the blocks of the Jacobian that belong to its parameters.
#include <limits>

#include "cpu/lora_terms.h"

namespace loko::cpu {

namespace {

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
