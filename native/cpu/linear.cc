// Linear maps: one product each way, with everything else in its epilogue.
#include "cpu/lora_terms.h"

namespace loko::cpu {

namespace {

/// A of all sites, side by side as one tail; u carries the scale already.
const PackedTail* packInputTail(const std::vector<LoraSite>& sites, int rank, int n,
                                Context& context) {
  LOKO_CHECK(sites.size() <= kMaxTailSites, std::to_string(sites.size()) + " LoRA sites");
  TailSite tail[kMaxTailSites];
  int count = 0;
  for (const LoraSite& site : sites) {
    TailSite& block = tail[count++];
    block.rowBegin = site.hBegin;
    block.rowEnd = site.hBegin + site.rank;
    block.source = context.parameter(site.a, std::int64_t{site.rank} * n);
    block.ld = n;
    block.layout = WeightLayout::kKN;
    block.columnEnd = n;
  }
  return &context.packTail(rank, n, tail, count);
}

/// What y = x W^T and dx = dy W have in common: target = source times the frozen or trained matrix
/// [out, in], plus the low-rank terms of the sites.
template <class Operation>
GemmArgs product(const Operation& op, bool forward, const View& source, const View& target,
                 const View& lowRank, int samples, Context& context) {
  const int out = forward ? target.cols : source.cols, in = forward ? source.cols : target.cols;
  expectShape(target, source.rows, target.cols, forward ? "y" : "dx");
  LOKO_CHECK((op.weight == kNoWeight) != (op.trainedWeight == kNoParameter),
             "a linear needs one weight, frozen or trained");
  checkSites(op.sites, lowRank, source.rows, out);

  GemmArgs args;
  args.m = std::int64_t{samples} * source.rows;
  args.n = target.cols;
  args.k = source.cols;
  args.a.rows = context.rows(source, samples);
  args.c = context.writableRows(target, samples);
  if (op.weight != kNoWeight) {
    args.b.packed = &context.matrix(op.weight, out, in);
    args.b.transposed = !forward;
  } else {
    args.b.data = context.parameter(op.trainedWeight, std::int64_t{out} * in);
    args.b.ld = in;
    args.b.transposed = forward;
  }
  if (!op.sites.empty()) {
    args.tailU = context.rows(lowRank, samples);
    args.tailV = forward ? packOutputTail(op.sites, lowRank.cols, 0, out, out, context)
                         : packInputTail(op.sites, lowRank.cols, in, context);
  }
  return args;
}

}  // namespace

void prepare(const Linear& op, const WorkspaceHint& hint, Context& context) {
  const int rank = op.sites.empty() ? 0 : op.h.cols;
  context.needGemm(std::int64_t{hint.batch} * op.x.rows, op.y.cols, op.x.cols, rank);
  if (rank > 0) needOutputTail(op.sites, rank, op.y.cols, context);
}

void run(const Linear& op, const Frame& frame, Context& context) {
  const int out = op.y.cols, batch = frame.batch;
  if (op.residual.present()) expectShape(op.residual, op.x.rows, out, "residual");
  if (op.actGrad.present()) expectShape(op.actGrad, op.x.rows, out, "actGrad");
  GemmArgs args = product(op, true, op.x, op.y, op.h, batch, context);
  if (op.bias != kNoWeight) args.epilogue.bias = context.vector(op.bias, out);
  if (op.trainedBias != kNoParameter) args.epilogue.bias = context.parameter(op.trainedBias, out);
  args.epilogue.residual = context.rows(op.residual, batch);
  args.epilogue.activation = op.activation;
  args.epilogue.derivative = context.writableRows(op.actGrad, batch);
  context.gemm(args);
}

void prepare(const LinearBackward& op, const WorkspaceHint& hint, Context& context) {
  const int rank = op.sites.empty() ? 0 : op.u.cols;
  const std::int64_t rows = std::int64_t{hint.maxRows} * hint.batch * op.dy.rows;
  if (op.weight != kNoWeight)
    context.needTransposedGemm(rows, op.dx.cols, op.dy.cols, rank);
  else
    context.needGemm(rows, op.dx.cols, op.dy.cols, rank);
  if (rank > 0) context.needTail(rank, op.dx.cols);
}

void run(const LinearBackward& op, const Frame& frame, Context& context) {
  GemmArgs args = product(op, false, op.dy, op.dx, op.u, frame.segments(), context);
  args.epilogue.accumulate = op.accumulate;
  foldDerivative(op.derivative, op.dx, frame.batch, args, context);
  context.gemm(args);
}

}  // namespace loko::cpu
