// Softmax attention per head, built from products on one thread each: the tasks are heads of samples
// (forward) and heads of segments (backward), so that scores stay in the second-level cache.
//
// Backward folds the segments that share a sample into the rows of one product wherever the other
// operand belongs to the sample: dS = P * (dO v^T - D) with D as a term of rank one and P as the
// multiplier of the epilogue, dq = scale dS k, dk = scale dS^T q. Only dv = P^T dO is a product per
// segment.
#include <cmath>

#include "cpu/context.h"

namespace loko::cpu {

namespace {

constexpr std::int64_t kScoreFloats = 64 * 1024;       // probabilities of one block of queries
constexpr std::int64_t kCotangentFloats = 128 * 1024;  // dS of one chunk of segments

/// Queries are taken in blocks and segments in chunks. Both depend on shapes only.
int queryBlock(int queries, int keys) {
  return static_cast<int>(std::clamp<std::int64_t>(kScoreFloats / keys, 1, queries));
}
int segmentChunk(int block, int keys, int segments) {
  return static_cast<int>(
      std::clamp<std::int64_t>(kCotangentFloats / (std::int64_t{block} * keys), 1, segments));
}

std::size_t gemmFloats(std::int64_t m, int n, int k, int rank = 0) {
  return (gemmScratchBytes(m, n, k, rank) + sizeof(float) - 1) / sizeof(float);
}
std::size_t aligned(std::int64_t floats) {
  return (static_cast<std::size_t>(floats) + 15) / 16 * 16;
}

/// Parts of a thread's scratch, in floats from its start.
struct ForwardScratch {
  std::size_t scores, total;  // the product's own scratch comes first

  ForwardScratch(int block, int keys, int width) {
    scores = aligned(static_cast<std::int64_t>(
        std::max(gemmFloats(block, keys, width), gemmFloats(block, width, keys))));
    total = scores + aligned(std::int64_t{block} * keys);
  }
};

struct BackwardScratch {
  std::size_t probs, rowSums, ds, total;

  BackwardScratch(int block, int chunk, int keys, int width) {
    const std::int64_t rows = std::int64_t{chunk} * block;
    probs = aligned(static_cast<std::int64_t>(
        std::max({gemmFloats(rows, keys, width, 1), gemmFloats(rows, width, keys),
                  gemmFloats(std::int64_t{chunk} * keys, width, block)})));
    rowSums = probs + aligned(std::int64_t{block} * keys);
    ds = rowSums + aligned(rows);
    total = ds + aligned(rows * keys);
  }
};

/// probs = softmax(scale q k^T) for a block of queries of one head.
void attend(const Kernels& kernels, const OpKernels& ops, const float* q, const View& qView,
            const float* k, const View& kView, int block, int width, float scale, float* probs,
            std::int64_t probsLd, float* scratch) {
  GemmArgs scores;
  scores.m = block;
  scores.n = kView.rows;
  scores.k = width;
  scores.a.rows.base = q;
  scores.a.rows.ld = qView.ld;
  scores.b.data = k;
  scores.b.ld = kView.ld;
  scores.b.transposed = true;
  scores.c.base = probs;
  scores.c.ld = probsLd;
  scores.epilogue.alpha = scale;
  gemm(kernels, scores, scratch);
  for (int t = 0; t < block; ++t) ops.softmax(probs + t * probsLd, kView.rows);
}

}  // namespace

void prepare(const Attention& op, const WorkspaceHint&, Context& context) {
  const int block = queryBlock(op.q.rows, op.k.rows);
  context.needLocal(ForwardScratch(block, op.k.rows, op.q.cols / op.heads).total);
}

void run(const Attention& op, const Frame& frame, Context& context) {
  const int queries = op.q.rows, keys = op.k.rows, cols = op.q.cols, width = cols / op.heads;
  LOKO_CHECK(width * op.heads == cols, "heads do not divide the columns");
  expectShape(op.k, keys, cols, "k");
  expectShape(op.v, keys, cols, "v");
  expectShape(op.o, queries, cols, "o");
  if (op.probs.present()) expectShape(op.probs, op.heads * queries, keys, "probs");
  const float* q = context.at(op.q, frame.batch);
  const float* k = context.at(op.k, frame.batch);
  const float* v = context.at(op.v, frame.batch);
  float* o = context.at(op.o, frame.batch);
  float* saved = context.at(op.probs, frame.batch);

  const int block = queryBlock(queries, keys);
  const int blocks = (queries + block - 1) / block;
  const ForwardScratch layout(block, keys, width);
  const std::int64_t tasks = std::int64_t{frame.batch} * op.heads * blocks;
  const std::int64_t work = std::int64_t{2} * block * keys * (width + 8);
  context.forEachRange(tasks, work, [&](std::int64_t begin, std::int64_t end, int part) {
    float* scratch = context.local(part, layout.total);
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t b = task / (op.heads * blocks);
      const int head = static_cast<int>(task / blocks % op.heads), column = head * width;
      const int t0 = static_cast<int>(task % blocks) * block;
      const int count = std::min(block, queries - t0);
      float* probs = scratch + layout.scores;
      std::int64_t probsLd = keys;
      if (saved != nullptr) {
        probsLd = op.probs.ld;
        probs = saved + b * op.probs.sampleStride + (head * queries + t0) * probsLd;
      }
      attend(context.kernels, context.ops, q + b * op.q.sampleStride + t0 * op.q.ld + column, op.q,
             k + b * op.k.sampleStride + column, op.k, count, width, op.scale, probs, probsLd,
             scratch);
      GemmArgs mix;
      mix.m = count;
      mix.n = width;
      mix.k = keys;
      mix.a.rows.base = probs;
      mix.a.rows.ld = probsLd;
      mix.b.data = v + b * op.v.sampleStride + column;
      mix.b.ld = op.v.ld;
      mix.c.base = o + b * op.o.sampleStride + t0 * op.o.ld + column;
      mix.c.ld = op.o.ld;
      gemm(context.kernels, mix, scratch);
    }
  });
}

namespace {

/// One task of the backward pass: the cotangent rows [begin, end) of one head of one sample.
class HeadBackward {
 public:
  HeadBackward(const AttentionBackward& op, const Frame& frame, Context& context)
      : op_(op),
        context_(context),
        batch_(frame.batch),
        queries_(op.q.rows),
        keys_(op.k.rows),
        width_(op.q.cols / op.heads),
        block_(queryBlock(queries_, keys_)),
        chunk_(segmentChunk(block_, keys_, frame.rows)),
        layout_(block_, chunk_, keys_, width_),
        q_(context.at(op.q, batch_)),
        k_(context.at(op.k, batch_)),
        v_(context.at(op.v, batch_)),
        o_(context.at(op.o, batch_)),
        savedProbs_(context.at(op.probs, batch_)),
        dout_(context.at(op.dout, frame.segments())),
        dq_(context.at(op.dq, frame.segments())),
        dk_(context.at(op.dk, frame.segments())),
        dv_(context.at(op.dv, frame.segments())) {
    const float one = 1.0f;
    TailSite site;
    site.source = &one;
    site.ld = 0;
    site.rowEnd = 1;
    site.columnEnd = keys_;
    ones_ = &context.packTail(1, keys_, &site, 1);
  }

  void run(int sample, int head, int begin, int end, int part) const {
    float* scratch = context_.local(part, layout_.total);
    for (int t0 = 0; t0 < queries_; t0 += block_) {
      Block block;
      block.sample = sample;
      block.head = head;
      block.column = head * width_;
      block.t0 = t0;
      block.rows = std::min(block_, queries_ - t0);
      block.scratch = scratch;
      findProbs(block);
      for (int c = begin; c < end; c += chunk_) runChunk(block, c, std::min(chunk_, end - c));
    }
  }

 private:
  struct Block {
    int sample, head, column, t0, rows;
    const float* probs;
    std::int64_t probsLd;
    float* scratch;
  };

  void findProbs(Block& block) const {
    if (savedProbs_ != nullptr) {
      block.probsLd = op_.probs.ld;
      block.probs = savedProbs_ + block.sample * op_.probs.sampleStride +
                    (block.head * queries_ + block.t0) * op_.probs.ld;
      return;
    }
    float* probs = block.scratch + layout_.probs;
    attend(context_.kernels, context_.ops, atRow(q_, op_.q, block), op_.q,
           atSample(k_, op_.k, block), op_.k, block.rows, width_, op_.scale, probs, keys_,
           block.scratch);
    block.probs = probs;
    block.probsLd = keys_;
  }

  const float* atSample(const float* base, const View& view, const Block& block) const {
    return base + block.sample * view.sampleStride + block.column;
  }
  const float* atRow(const float* base, const View& view, const Block& block) const {
    return atSample(base, view, block) + block.t0 * view.ld;
  }
  /// Rows of the segments c, c + 1, ... of the block's sample, from row t0 on, `rows` of each.
  template <class Map, class Pointer>
  Map segmentRows(Pointer base, const View& view, const Block& block, int c, int t0,
                  int rows) const {
    const std::int64_t segment = std::int64_t{c} * batch_ + block.sample;
    Map map;
    map.base = base + segment * view.sampleStride + t0 * view.ld + block.column;
    map.ld = view.ld;
    map.blockRows = rows;
    map.blockStride = batch_ * view.sampleStride;
    return map;
  }

  void runChunk(const Block& block, int c, int count) const {
    const int rows = block.rows;
    float* ds = block.scratch + layout_.ds;
    const auto dout = segmentRows<RowMap>(dout_, op_.dout, block, c, block.t0, rows);
    if (dq_ != nullptr || dk_ != nullptr) {
      scoreCotangents(block, dout, count, ds);
      if (dq_ != nullptr) {
        GemmArgs args;
        args.m = std::int64_t{count} * rows;
        args.n = width_;
        args.k = keys_;
        args.a.rows.base = ds;
        args.a.rows.ld = keys_;
        args.b.data = atSample(k_, op_.k, block);
        args.b.ld = op_.k.ld;
        args.c = segmentRows<MutableRowMap>(dq_, op_.dq, block, c, block.t0, rows);
        args.epilogue.alpha = op_.scale;
        gemm(context_.kernels, args, block.scratch);
      }
      if (dk_ != nullptr) {
        GemmArgs args;
        args.m = std::int64_t{count} * keys_;
        args.n = width_;
        args.k = rows;
        args.a.rows.base = ds;
        args.a.rows.ld = keys_;
        args.a.transposed = true;
        args.a.columnBlock = keys_;
        args.a.columnBlockStride = std::int64_t{rows} * keys_;
        args.b.data = atRow(q_, op_.q, block);
        args.b.ld = op_.q.ld;
        args.c = segmentRows<MutableRowMap>(dk_, op_.dk, block, c, 0, keys_);
        args.epilogue.alpha = op_.scale;
        args.epilogue.accumulate = block.t0 > 0;
        gemm(context_.kernels, args, block.scratch);
      }
    }
    for (int i = 0; dv_ != nullptr && i < count; ++i) {
      GemmArgs args;
      args.m = keys_;
      args.n = width_;
      args.k = rows;
      args.a.rows.base = block.probs;
      args.a.rows.ld = block.probsLd;
      args.a.transposed = true;
      args.b.data = dout.row(std::int64_t{i} * rows);
      args.b.ld = op_.dout.ld;
      args.c = segmentRows<MutableRowMap>(dv_, op_.dv, block, c + i, 0, keys_);
      args.epilogue.accumulate = block.t0 > 0;
      gemm(context_.kernels, args, block.scratch);
    }
  }

  /// dS = P * (dO v^T - D), D = rowsum(dO * o).
  void scoreCotangents(const Block& block, const RowMap& dout, int count, float* ds) const {
    const int rows = block.rows;
    float* rowSums = block.scratch + layout_.rowSums;
    const float* o = atRow(o_, op_.o, block);
    for (int i = 0; i < count * rows; ++i) {
      rowSums[i] = -context_.kernels.dot(dout.row(i), o + i % rows * op_.o.ld, width_);
    }
    GemmArgs args;
    args.m = std::int64_t{count} * rows;
    args.n = keys_;
    args.k = width_;
    args.a.rows = dout;
    args.b.data = atSample(v_, op_.v, block);
    args.b.ld = op_.v.ld;
    args.b.transposed = true;
    args.c.base = ds;
    args.c.ld = keys_;
    args.tailU.base = rowSums;
    args.tailU.ld = 1;
    args.tailV = ones_;
    args.epilogue.multiplier.base = block.probs;
    args.epilogue.multiplier.ld = block.probsLd;
    args.epilogue.multiplierPeriod = rows;
    gemm(context_.kernels, args, block.scratch);
  }

  const AttentionBackward& op_;
  Context& context_;
  const int batch_, queries_, keys_, width_, block_, chunk_;
  const BackwardScratch layout_;
  const float* q_;
  const float* k_;
  const float* v_;
  const float* o_;
  const float* savedProbs_;
  const float* dout_;
  float* dq_;
  float* dk_;
  float* dv_;
  const PackedTail* ones_;
};

}  // namespace

void prepare(const AttentionBackward& op, const WorkspaceHint& hint, Context& context) {
  const int keys = op.k.rows, block = queryBlock(op.q.rows, keys);
  const int width = op.q.cols / op.heads;
  context.needTail(1, keys);
  // A narrower chunk never needs more.
  context.needLocal(
      BackwardScratch(block, segmentChunk(block, keys, hint.maxRows), keys, width).total);
}

void run(const AttentionBackward& op, const Frame& frame, Context& context) {
  const int queries = op.q.rows, keys = op.k.rows, cols = op.q.cols, width = cols / op.heads;
  LOKO_CHECK(width * op.heads == cols, "heads do not divide the columns");
  expectShape(op.k, keys, cols, "k");
  expectShape(op.v, keys, cols, "v");
  expectShape(op.o, queries, cols, "o");
  expectShape(op.dout, queries, cols, "dout");
  if (op.probs.present()) expectShape(op.probs, op.heads * queries, keys, "probs");
  if (op.dq.present()) expectShape(op.dq, queries, cols, "dq");
  if (op.dk.present()) expectShape(op.dk, keys, cols, "dk");
  if (op.dv.present()) expectShape(op.dv, keys, cols, "dv");

  const HeadBackward backward(op, frame, context);
  // Segments of one head stay together as long as there are heads enough for all threads.
  const int heads = frame.batch * op.heads;
  const int splits = std::min(frame.rows, (context.pool.threads() + heads - 1) / heads);
  const std::int64_t work =
      std::int64_t{4} * queries * keys * width * ((frame.rows + splits - 1) / splits);
  context.forEachRange(
      std::int64_t{heads} * splits, work, [&](std::int64_t begin, std::int64_t end, int part) {
        for (std::int64_t task = begin; task < end; ++task) {
          const int index = static_cast<int>(task / splits),
                    split = static_cast<int>(task % splits);
          backward.run(index / op.heads, index % op.heads, frame.rows * split / splits,
                       frame.rows * (split + 1) / splits, part);
        }
      });
}

}  // namespace loko::cpu
