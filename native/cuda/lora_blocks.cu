#include "cuda/lora_blocks.h"

namespace loko::cuda {

Rows denseRows(float* data, int rows, std::int64_t cols) {
  Rows map;
  map.data = data;
  map.rows = rows;
  map.ld = cols;
  return map;
}

Rows columnsOf(Rows rows, int begin) {
  rows.data += begin;
  return rows;
}

Term& addTerm(Product& product, const Operand& left, const Operand& right, int depth) {
  if (product.termCount == kMaxTerms) {
    throw Error(ErrorCode::kUnsupported, "A layer of the CUDA backend takes at most " +
                                             std::to_string(kMaxTerms - 1) +
                                             " LoRA factors; use device \"cpu\"");
  }
  Term& term = product.terms[product.termCount++];
  term.left = left;
  term.right = right;
  term.depth = depth;
  term.begin = 0;
  term.end = product.n;
  return term;
}

SmallProduct smallProduct(int m, int n, int depth, const Rows& left, const Rows& right) {
  SmallProduct result;
  result.m = m;
  result.n = n;
  result.term.left = operandOf(left);
  result.term.right = operandOf(right);
  result.term.depth = depth;
  result.term.begin = 0;
  result.term.end = n;
  return result;
}

void SmallProductQueue::add(const SmallProduct& product) {
  pending_.items[pending_.count++] = product;
  if (pending_.count == kMaxSmallProducts) flush();
}

void SmallProductQueue::flush() {
  if (pending_.count > 0) run(pending_, left_, right_, context_);
  pending_.count = 0;
}

SmallProduct rowSums(const Part& left, const Part& right, ParameterOffset block, std::int64_t size,
                     const Frame& frame, Context& context) {
  const int rows = left.view.rows, segments = frame.segments();
  SmallProduct item = smallProduct(left.cols, right.cols, frame.reduce ? segments * rows : rows,
                                   columnsOf(context.rows(left.view, left.samples), left.begin),
                                   columnsOf(context.rows(right.view, right.samples), right.begin));
  float* target = context.jacobian(frame.reduce ? 0 : frame.firstRow, block, size);
  item.epilogue.target = denseRows(target, left.cols, right.cols);
  if (frame.reduce) return item;
  context.jacobian(frame.firstRow + segments - 1, block, size);
  item.leftStep = left.view.sampleStride;
  item.rightStep = right.view.sampleStride;
  item.leftSamples = left.samples;
  item.rightSamples = right.samples;
  item.targetStep = context.parameters();
  return item;
}

const float* outputScale(const LoraSite& site, int out, Context& context) {
  if (site.outputScale == kNoWeight) return nullptr;
  return context.vector(site.outputScale, out) + site.outBegin;
}

void outputCotangent(const View& dy, const View& u, const std::vector<LoraSite>& sites,
                     const Frame& frame, Context& context) {
  const int segments = frame.segments();
  SmallProductQueue queue(Orientation::kAcross, Orientation::kAlong, 1, context);
  for (const LoraSite& site : sites) {
    const int width = site.outEnd - site.outBegin;
    float* b = context.parameter(site.b, std::int64_t{width} * site.rank);
    SmallProduct item =
        smallProduct(site.rank, segments * dy.rows, width, denseRows(b, width, site.rank),
                     columnsOf(context.rows(dy, segments), site.outBegin));
    item.term.scale = site.scale;
    item.term.depthScale = outputScale(site, dy.cols, context);
    item.epilogue.target = columnsOf(context.rows(u, segments), site.hBegin);
    item.epilogue.transposed = true;
    queue.add(item);
  }
  queue.flush();
}

SmallProduct blockOfB(const LoraSite& site, const View& h, const View& dy, const Frame& frame,
                      Context& context) {
  const int width = site.outEnd - site.outBegin;
  SmallProduct item = rowSums({h, frame.batch, site.hBegin, site.rank},
                              {dy, frame.segments(), site.outBegin, width}, site.b,
                              std::int64_t{width} * site.rank, frame, context);
  item.epilogue.target = denseRows(item.epilogue.target.data, width, site.rank);
  item.epilogue.transposed = true;
  item.term.scale = site.scale;
  item.term.columnScale = outputScale(site, dy.cols, context);
  return item;
}

}  // namespace loko::cuda
