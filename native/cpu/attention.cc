// Softmax attention per head. A task is one head of one sample; its operands are laid out once and
// then serve every cotangent row of that sample:
//
//   dS = P * (dO v^T - D)   D = rowsum(dO * o); each tile is finished while it is hot
//   dq = scale dS k         dS as left operand, in the order in which its tiles came out
//   dk = scale (q^T dS)^T   dS as right operand, so that it is never transposed
//   dv = P^T dO             P^T is packed once for all cotangent rows
//
// Long sequences are taken in blocks of queries, whose size depends on shapes only.
#include "cpu/context.h"
#include "cpu/tile_product.h"

namespace loko::cpu {

namespace {

constexpr std::int64_t kBlockFloats = 64 * 1024;  // probabilities of one block of queries

int queryBlock(int queries, int keys) {
  return static_cast<int>(std::clamp<std::int64_t>(kBlockFloats / keys, 1, queries));
}

/// Hands out consecutive cache-line-aligned pieces of a thread's scratch. Without memory it measures.
class Pieces {
 public:
  explicit Pieces(float* memory = nullptr) : memory_(memory) {}
  float* take(std::size_t floats) {
    float* piece = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += (floats + 15) / 16 * 16;
    return piece;
  }
  std::size_t used() const { return used_; }

 private:
  float* memory_;
  std::size_t used_ = 0;
};

struct AttentionShape {
  int queries, keys, width, heads, block, blocks;

  AttentionShape(const View& q, const View& k, const View& v, const View& o, const View& probs,
                 const View& mask, int headCount)
      : queries(q.rows),
        keys(k.rows),
        width(q.cols / headCount),
        heads(headCount),
        block(queryBlock(q.rows, k.rows)),
        blocks((q.rows + block - 1) / block) {
    LOKO_CHECK(width * heads == q.cols, "heads do not divide the columns");
    expectShape(k, keys, q.cols, "k");
    expectShape(v, keys, q.cols, "v");
    expectShape(o, queries, q.cols, "o");
    if (probs.present()) expectShape(probs, heads * queries, keys, "probs");
    if (mask.present()) expectShape(mask, 1, keys, "mask");
  }
};

/// What the probabilities of one block need: q as left operand, k^T as right one.
struct ScoreScratch {
  float *q, *keys;
  ScoreScratch(const AttentionShape& shape, Pieces& pieces)
      : q(pieces.take(PackedRows::floatCount(shape.block, shape.width))),
        keys(pieces.take(Panels::floatCount(shape.width, shape.keys))) {}
};

/// probs = softmax(scale q k^T + mask) for `rows` queries of one head; q and k at the head's first
/// column, mask null or [keys]. The kernels' exp(-infinity) is exactly 0.
void attend(const AttentionShape& shape, const float* q, std::int64_t qLd, int rows, const float* k,
            std::int64_t kLd, float scale, const float* mask, float* probs, std::int64_t probsLd,
            const ScoreScratch& scratch, const Context& context) {
  PackedRows left(context.kernels, scratch.q, rows, shape.width);
  left.packRows(q, qLd);
  Panels right(context.kernels, scratch.keys, shape.width, shape.keys);
  right.transpose(k, kLd);
  multiply(context.kernels, left, right, scale, [&](const ProductTile& tile) {
    context.ops.storeTile(probs + tile.row * probsLd + tile.column, probsLd, tile.data, tile.stride,
                          tile.rows, tile.columns, false);
  });
  for (int t = 0; t < rows; ++t) {
    float* row = probs + t * probsLd;
    if (mask != nullptr) context.kernels.axpy(row, 1.0f, mask, shape.keys);
    context.ops.softmax(row, shape.keys);
  }
}

struct ForwardScratch {
  Pieces pieces;
  ScoreScratch scores;
  float *probs, *left, *values;
  ForwardScratch(const AttentionShape& shape, float* memory)
      : pieces(memory),
        scores(shape, pieces),
        probs(pieces.take(static_cast<std::size_t>(shape.block) *
                          static_cast<std::size_t>(shape.keys))),
        left(pieces.take(PackedRows::floatCount(shape.block, shape.keys))),
        values(pieces.take(Panels::floatCount(shape.keys, shape.width))) {}
};

AttentionShape shapeOf(const Attention& op) {
  return {op.q, op.k, op.v, op.o, op.probs, op.mask, op.heads};
}

}  // namespace

void prepare(const Attention& op, const WorkspaceHint&, Context& context) {
  context.needLocal(ForwardScratch(shapeOf(op), nullptr).pieces.used());
}

void run(const Attention& op, const Frame& frame, Context& context) {
  const AttentionShape shape = shapeOf(op);
  const std::size_t floats = ForwardScratch(shape, nullptr).pieces.used();
  const float* q = context.at(op.q, frame.batch);
  const float* k = context.at(op.k, frame.batch);
  const float* v = context.at(op.v, frame.batch);
  float* o = context.at(op.o, frame.batch);
  float* saved = context.at(op.probs, frame.batch);
  const float* mask = context.at(op.mask, frame.batch);

  const std::int64_t tasks = std::int64_t{frame.batch} * shape.heads * shape.blocks;
  // A softmax costs about as much as 200 multiply-adds per score.
  const std::int64_t work = std::int64_t{2} * shape.block * shape.keys * (shape.width + 100);
  context.forEachRange(tasks, work, [&](std::int64_t begin, std::int64_t end, int part) {
    const ForwardScratch scratch(shape, context.local(part, floats));
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t b = task / (shape.heads * shape.blocks);
      const int head = static_cast<int>(task / shape.blocks % shape.heads);
      const int column = head * shape.width;
      const int t0 = static_cast<int>(task % shape.blocks) * shape.block;
      const int rows = std::min(shape.block, shape.queries - t0);
      float* probs = scratch.probs;
      std::int64_t probsLd = shape.keys;
      if (saved != nullptr) {
        probsLd = op.probs.ld;
        probs = saved + b * op.probs.sampleStride + (head * shape.queries + t0) * probsLd;
      }
      attend(shape, q + b * op.q.sampleStride + t0 * op.q.ld + column, op.q.ld, rows,
             k + b * op.k.sampleStride + column, op.k.ld, op.scale,
             mask == nullptr ? nullptr : mask + b * op.mask.sampleStride, probs, probsLd,
             scratch.scores, context);
      PackedRows left(context.kernels, scratch.left, rows, shape.keys);
      left.packRows(probs, probsLd);
      Panels right(context.kernels, scratch.values, shape.keys, shape.width);
      right.refer(v + b * op.v.sampleStride + column, op.v.ld);
      float* target = o + b * op.o.sampleStride + t0 * op.o.ld + column;
      multiply(context.kernels, left, right, 1.0f, [&](const ProductTile& tile) {
        context.ops.storeTile(target + tile.row * op.o.ld + tile.column, op.o.ld, tile.data,
                              tile.stride, tile.rows, tile.columns, false);
      });
    }
  });
}

namespace {

AttentionShape shapeOf(const AttentionBackward& op) {
  return {op.q, op.k, op.v, op.o, op.probs, op.mask, op.heads};
}

struct BackwardScratch {
  Pieces pieces;
  ScoreScratch scores;
  float *probs, *rowSums;
  float *valuesTransposed, *keys, *queriesTransposed, *probsTransposed;  // once per head
  float *dout, *doutPanels, *dsLeft, *dsRight, *dkTransposed;            // once per segment
  std::ptrdiff_t paddedKeys;

  BackwardScratch(const AttentionShape& shape, float* memory)
      : pieces(memory), scores(shape, pieces), paddedKeys(Panels::paddedColumns(shape.keys)) {
    const auto block = static_cast<std::size_t>(shape.block);
    const auto width = static_cast<std::size_t>(shape.width);
    const auto padded = static_cast<std::size_t>(paddedKeys);
    probs = pieces.take(block * static_cast<std::size_t>(shape.keys));
    rowSums = pieces.take(block);
    valuesTransposed = pieces.take(Panels::floatCount(shape.width, shape.keys));
    keys = pieces.take(Panels::floatCount(shape.keys, shape.width));
    queriesTransposed = pieces.take(PackedRows::floatCount(shape.width, shape.block));
    probsTransposed = pieces.take(PackedRows::floatCount(shape.keys, shape.block));
    dout = pieces.take(PackedRows::floatCount(shape.block, shape.width));
    doutPanels = pieces.take(Panels::floatCount(shape.block, shape.width));
    dsLeft = pieces.take(block * padded);
    dsRight = pieces.take(block * padded);
    dkTransposed = pieces.take(width * padded);
  }
};

/// One head of one sample, for the cotangent rows [firstRow, lastRow).
class HeadBackward {
 public:
  HeadBackward(const AttentionBackward& op, const AttentionShape& shape, const Frame& frame,
               const BackwardScratch& scratch, int sample, int head, Context& context)
      : op_(op),
        shape_(shape),
        scratch_(scratch),
        context_(context),
        batch_(frame.batch),
        sample_(sample),
        head_(head),
        q_(operand(op.q)),
        k_(operand(op.k)),
        v_(operand(op.v)),
        o_(operand(op.o)),
        mask_(op.mask.present() ? context.at(op.mask, frame.batch) + sample * op.mask.sampleStride
                                : nullptr),
        dout_(cotangent(op.dout, frame)),
        dq_(cotangent(op.dq, frame)),
        dk_(cotangent(op.dk, frame)),
        dv_(cotangent(op.dv, frame)),
        values_(context.kernels, scratch.valuesTransposed, shape.width, shape.keys),
        keys_(context.kernels, scratch.keys, shape.keys, shape.width) {
    values_.transpose(v_, op.v.ld);
    keys_.refer(k_, op.k.ld);
  }

  void run(int firstRow, int lastRow) {
    for (int t0 = 0; t0 < shape_.queries; t0 += shape_.block) {
      const Block block = layOut(t0);
      for (int c = firstRow; c < lastRow; ++c) runSegment(block, c);
    }
  }

 private:
  /// Queries [t0, t0 + rows) with what all segments share.
  struct Block {
    int t0, rows;
    const float* probs;
    std::int64_t probsLd;
    PackedRows queriesTransposed, probsTransposed;
  };

  float* operand(const View& view) const {
    return context_.at(view, batch_) + sample_ * view.sampleStride + head_ * shape_.width;
  }
  /// Of cotangent row 0; row c is c * batch sample strides further.
  float* cotangent(const View& view, const Frame& frame) const {
    if (!view.present()) return nullptr;
    return context_.at(view, frame.segments()) + sample_ * view.sampleStride + head_ * shape_.width;
  }

  Block layOut(int t0) const {
    const Kernels& kernels = context_.kernels;
    const int rows = std::min(shape_.block, shape_.queries - t0);
    Block block{t0,
                rows,
                scratch_.probs,
                shape_.keys,
                PackedRows(kernels, scratch_.queriesTransposed, shape_.width, rows),
                PackedRows(kernels, scratch_.probsTransposed, shape_.keys, rows)};
    if (op_.probs.present()) {
      block.probsLd = op_.probs.ld;
      block.probs = context_.at(op_.probs, batch_) + sample_ * op_.probs.sampleStride +
                    (head_ * shape_.queries + t0) * op_.probs.ld;
    } else {
      attend(shape_, q_ + t0 * op_.q.ld, op_.q.ld, rows, k_, op_.k.ld, op_.scale, mask_,
             scratch_.probs, shape_.keys, scratch_.scores, context_);
    }
    if (dk_ != nullptr) block.queriesTransposed.packColumns(q_ + t0 * op_.q.ld, op_.q.ld);
    if (dv_ != nullptr) block.probsTransposed.packColumns(block.probs, block.probsLd);
    return block;
  }

  void runSegment(const Block& block, int c) const {
    const std::int64_t step = std::int64_t{c} * batch_;
    const float* dout = dout_ + step * op_.dout.sampleStride + block.t0 * op_.dout.ld;
    if (dq_ != nullptr || dk_ != nullptr) scoreCotangents(block, dout);
    if (dq_ != nullptr) {
      const PackedRows ds(context_.kernels, scratch_.dsLeft, block.rows, shape_.keys);
      float* dq = dq_ + step * op_.dq.sampleStride + block.t0 * op_.dq.ld;
      multiplyInto(dq, op_.dq.ld, ds, keys_, op_.scale, false);
    }
    if (dk_ != nullptr) {
      Panels ds(context_.kernels, nullptr, block.rows, shape_.keys);
      ds.referPadded(scratch_.dsRight, scratch_.paddedKeys);
      float* transposed = scratch_.dkTransposed;
      multiplyInto(transposed, scratch_.paddedKeys, block.queriesTransposed, ds, op_.scale, false);
      context_.ops.storeTransposed(dk_ + step * op_.dk.sampleStride, op_.dk.ld, transposed,
                                   scratch_.paddedKeys, shape_.width, shape_.keys, block.t0 > 0);
    }
    if (dv_ != nullptr) {
      Panels right(context_.kernels, scratch_.doutPanels, block.rows, shape_.width);
      right.refer(dout, op_.dout.ld);
      multiplyInto(dv_ + step * op_.dv.sampleStride, op_.dv.ld, block.probsTransposed, right, 1.0f,
                   block.t0 > 0);
    }
  }

  /// Both layouts of dS of one segment.
  void scoreCotangents(const Block& block, const float* dout) const {
    context_.ops.rowDots(scratch_.rowSums, dout, op_.dout.ld, o_ + block.t0 * op_.o.ld, op_.o.ld,
                         block.rows, shape_.width);
    PackedRows left(context_.kernels, scratch_.dout, block.rows, shape_.width);
    left.packRows(dout, op_.dout.ld);
    const PackedRows ds(context_.kernels, scratch_.dsLeft, block.rows, shape_.keys);
    multiply(context_.kernels, left, values_, 1.0f, [&](const ProductTile& tile) {
      ScoreCotangent args{};
      args.tile = tile.data;
      args.stride = tile.stride;
      args.rows = tile.rows;
      args.columns = tile.columns;
      args.rowSums = scratch_.rowSums + tile.row;
      args.probs = block.probs + tile.row * block.probsLd + tile.column;
      args.probsLd = block.probsLd;
      args.packed = ds.tile(tile.index) + tile.column / kPackGroup * (tile.rows * kPackGroup) +
                    tile.column % kPackGroup;
      args.plain = scratch_.dsRight + tile.row * scratch_.paddedKeys + tile.column;
      args.plainLd = scratch_.paddedKeys;
      context_.ops.scoreCotangent(args);
    });
  }

  void multiplyInto(float* target, std::int64_t ld, const PackedRows& left, const Panels& right,
                    float alpha, bool accumulate) const {
    multiply(context_.kernels, left, right, alpha, [&](const ProductTile& tile) {
      context_.ops.storeTile(target + tile.row * ld + tile.column, ld, tile.data, tile.stride,
                             tile.rows, tile.columns, accumulate);
    });
  }

  const AttentionBackward& op_;
  const AttentionShape& shape_;
  const BackwardScratch& scratch_;
  Context& context_;
  const int batch_, sample_, head_;
  const float *q_, *k_, *v_, *o_, *mask_, *dout_;
  float *dq_, *dk_, *dv_;
  Panels values_, keys_;
};

}  // namespace

void prepare(const AttentionBackward& op, const WorkspaceHint&, Context& context) {
  context.needLocal(BackwardScratch(shapeOf(op), nullptr).pieces.used());
}

void run(const AttentionBackward& op, const Frame& frame, Context& context) {
  const AttentionShape shape = shapeOf(op);
  expectShape(op.dout, shape.queries, op.q.cols, "dout");
  if (op.dq.present()) expectShape(op.dq, shape.queries, op.q.cols, "dq");
  if (op.dk.present()) expectShape(op.dk, shape.keys, op.q.cols, "dk");
  if (op.dv.present()) expectShape(op.dv, shape.keys, op.q.cols, "dv");

  // Cotangent rows of one head stay together as long as there are heads enough for all threads.
  const int heads = frame.batch * shape.heads;
  const int splits = std::min(frame.rows, (context.pool.threads() + heads - 1) / heads);
  const std::size_t floats = BackwardScratch(shape, nullptr).pieces.used();
  const std::int64_t work = std::int64_t{4} * shape.queries * shape.keys * shape.width *
                            ((frame.rows + splits - 1) / splits);
  context.forEachRange(
      std::int64_t{heads} * splits, work, [&](std::int64_t begin, std::int64_t end, int part) {
        const BackwardScratch scratch(shape, context.local(part, floats));
        for (std::int64_t task = begin; task < end; ++task) {
          const int index = static_cast<int>(task / splits);
          const int split = static_cast<int>(task % splits);
          HeadBackward(op, shape, frame, scratch, index / shape.heads, index % shape.heads, context)
              .run(frame.rows * split / splits, frame.rows * (split + 1) / splits);
        }
      });
}

}  // namespace loko::cpu
