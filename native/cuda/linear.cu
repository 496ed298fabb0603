// Linear layers and their input cotangents: the base product and one term of depth rank for each LoRA.
//
// Where a product has many rows, cuBLASLt computes the base term, when it is there, and the tile kernel
// adds the rest: it wins there, and at batch 1 the fused kernel saves its launch and a pass over y.

#include "cuda/context.h"
#include "cuda/library_product.h"
#include "cuda/lora_blocks.h"
#include "cuda/product.h"

namespace loko::cuda {

namespace {

Operand weightOf(WeightId frozen, ParameterOffset trained, int out, int in, Context& context) {
  LOKO_CHECK((frozen == kNoWeight) != (trained == kNoParameter),
             "a linear needs one weight, frozen or trained");
  if (frozen != kNoWeight) return context.matrix(frozen, out, in);
  return operandOf(denseRows(context.parameter(trained, std::int64_t{out} * in), out, in));
}

Operand factor(ParameterOffset offset, int rows, int cols, Context& context) {
  return operandOf(denseRows(context.parameter(offset, std::int64_t{rows} * cols), rows, cols));
}

}  // namespace

void prepare(const Linear& op, const WorkspaceHint& hint, Context& context) {
  needLibraryProduct(std::int64_t{hint.batch} * op.x.rows, op.y.cols, op.x.cols, context);
}

void prepare(const LinearBackward& op, const WorkspaceHint& hint, Context& context) {
  needLibraryProduct(std::int64_t{hint.batch} * hint.maxRows * op.dy.rows, op.dx.cols, op.dy.cols,
                     context);
}

void run(const Linear& op, const Frame& frame, Context& context) {
  const int rows = op.x.rows, in = op.x.cols, out = op.y.cols, batch = frame.batch;
  expectShape(op.y, rows, out, "y");
  if (op.residual.present()) expectShape(op.residual, rows, out, "residual");
  if (op.actGrad.present()) expectShape(op.actGrad, rows, out, "actGrad");
  checkSites(op.sites, op.h, rows, out);

  Product product;
  product.m = batch * rows;
  product.n = out;
  addTerm(product, operandOf(context.rows(op.x, batch)),
          weightOf(op.weight, op.trainedWeight, out, in, context), in);
  for (const LoraSite& site : op.sites) {
    const int width = site.outEnd - site.outBegin;
    Term& term = addTerm(product, operandOf(columnsOf(context.rows(op.h, batch), site.hBegin)),
                         factor(site.b, width, site.rank, context), site.rank);
    term.begin = site.outBegin;
    term.end = site.outEnd;
    term.scale = site.scale;
    if (site.outputScale != kNoWeight) term.columnScale = context.vector(site.outputScale, out);
  }
  Epilogue& epilogue = product.epilogue;
  epilogue.target = context.rows(op.y, batch);
  epilogue.activation = op.activation;
  epilogue.residual = context.rows(op.residual, batch);
  epilogue.actGrad = context.rows(op.actGrad, batch);
  if (op.bias != kNoWeight) epilogue.bias = context.vector(op.bias, out);
  if (op.trainedBias != kNoParameter) epilogue.bias = context.parameter(op.trainedBias, out);
  if (multiplyByLibrary(product, Orientation::kAlong, context)) return;
  run(product, Orientation::kAlong, context);
}

void run(const LinearBackward& op, const Frame& frame, Context& context) {
  const int rows = op.dy.rows, out = op.dy.cols, in = op.dx.cols, segments = frame.segments();
  expectShape(op.dx, rows, in, "dx");
  checkSites(op.sites, op.u, rows, out);

  Product product;
  product.m = segments * rows;
  product.n = in;
  addTerm(product, operandOf(context.rows(op.dy, segments)),
          weightOf(op.weight, op.trainedWeight, out, in, context), out);
  for (const LoraSite& site : op.sites) {  // u already carries the scale
    addTerm(product, operandOf(columnsOf(context.rows(op.u, segments), site.hBegin)),
            factor(site.a, site.rank, in, context), site.rank);
  }
  Epilogue& epilogue = product.epilogue;
  epilogue.target = context.rows(op.dx, segments);
  epilogue.accumulate = op.accumulate;
  if (op.derivative.present()) {
    expectShape(op.derivative.factor, rows, in, "derivative");
    epilogue.derivative = context.rows(op.derivative.factor, frame.batch);
    epilogue.ofRelu = op.derivative.ofRelu;
    epilogue.ofSum = op.derivative.ofSum;
  }
  if (multiplyByLibrary(product, Orientation::kAcross, context)) return;
  run(product, Orientation::kAcross, context);
}

}  // namespace loko::cuda
