// V diag(p) V^T over a range of columns, V = [factor; G]: blocks of rows in registers, float32 within a
// tile of columns, float64 across tiles. A block is of one of the two memories.
//
// Order of the sums: columns fall into slabs and slabs into tiles, both by shape alone. A slab adds up
// its tiles in order, and the slabs are added in order at the end, whoever computed them.
#include <cstddef>
#include <limits>
#include <string>

#include "cpu/context.h"

namespace loko::cpu {

namespace {

constexpr std::int64_t kTileColumns = 2048;
constexpr int kMaxSlabs = 16;
constexpr int kManyRows = 64;  // above, pairs of blocks alone occupy the threads

struct GramShape {
  int factorRows, rows, blockRows, factorBlocks, blocks, slabs;
  std::int64_t pairs, begin, end, slabColumns;

  GramShape(int r, int k, int registerRows, std::int64_t first, std::int64_t last)
      : factorRows(r),
        rows(r + k),
        blockRows(registerRows),
        factorBlocks(blocksFor(r)),
        blocks(factorBlocks + blocksFor(k)),
        pairs(std::int64_t{blocks} * (std::int64_t{blocks} + 1) / 2),
        begin(first),
        end(last) {
    const std::int64_t tiles = (last - first + kTileColumns - 1) / kTileColumns;
    const std::int64_t most = rows > kManyRows ? 1 : std::min<std::int64_t>(kMaxSlabs, tiles);
    const std::int64_t tilesPerSlab = (tiles + most - 1) / most;
    slabs = static_cast<int>((tiles + tilesPerSlab - 1) / tilesPerSlab);
    slabColumns = tilesPerSlab * kTileColumns;
  }

  // Blocks of nearly equal height: 9 rows are 5 and 4.
  int blockBegin(int block) const {
    if (block < factorBlocks) {
      return static_cast<int>(std::int64_t{factorRows} * block / factorBlocks);
    }
    const std::int64_t k = rows - factorRows;
    return factorRows +
           static_cast<int>(k * (block - factorBlocks) / std::max(1, blocks - factorBlocks));
  }
  int blockHeight(int block) const { return blockBegin(block + 1) - blockBegin(block); }
  /// The floats that hold the float64 sums; throws for more than can be addressed.
  std::size_t sumFloats() const {
    constexpr std::int64_t kFloatsPerSum = sizeof(double) / sizeof(float);
    constexpr std::int64_t kMost =
        std::numeric_limits<std::ptrdiff_t>::max() / std::int64_t{sizeof(float)};
    const std::int64_t perPair = kFloatsPerSum * slabs * blockRows * blockRows;
    if (pairs > kMost / perPair) {
      throw Error(ErrorCode::kOutOfMemory,
                  "The Gram matrix of " + std::to_string(rows) +
                      " rows needs more memory than can be addressed. Use fewer observation rows "
                      "or a smaller batch.");
    }
    return static_cast<std::size_t>(pairs * perPair);
  }

 private:
  int blocksFor(int count) const { return count / blockRows + (count % blockRows != 0 ? 1 : 0); }
};

/// Both memories have rows of `ld` columns.
struct GramOperands {
  const float* factor;
  const float* jacobian;
  const float* weights;
  std::ptrdiff_t ld;

  const float* row(int i, int factorRows) const {
    return i < factorRows ? factor + i * ld : jacobian + (i - factorRows) * ld;
  }
};

/// Walks the pairs (left >= right) of blocks in a fixed order.
struct BlockPair {
  int left = 0, right = 0;
  explicit BlockPair(std::int64_t index) {
    while (index > left) index -= ++left;
    right = static_cast<int>(index);
  }
  void next() {
    if (++right > left) {
      ++left;
      right = 0;
    }
  }
};

/// The pairs [begin, end) of one slab.
void addSlab(const GramShape& shape, int slab, std::int64_t begin, std::int64_t end,
             const GramOperands& operands, double* sums, const OpKernels& ops) {
  const std::int64_t slabBegin = shape.begin + slab * shape.slabColumns;
  const std::int64_t slabEnd = std::min(shape.end, slabBegin + shape.slabColumns);
  const int size = shape.blockRows * shape.blockRows;
  double* target = sums + std::int64_t{slab} * shape.pairs * size;
  std::fill(target + begin * size, target + end * size, 0.0);
  for (std::int64_t column = slabBegin; column < slabEnd; column += kTileColumns) {
    BlockPair pair(begin);
    for (std::int64_t index = begin; index < end; ++index, pair.next()) {
      float products[kMaxGramBlockRows * kMaxGramBlockRows];
      GramBlock block{};
      block.left = operands.row(shape.blockBegin(pair.left), shape.factorRows) + column;
      block.right = operands.row(shape.blockBegin(pair.right), shape.factorRows) + column;
      block.ld = operands.ld;
      block.weights = operands.weights != nullptr ? operands.weights + column : nullptr;
      block.columns = static_cast<int>(std::min(kTileColumns, slabEnd - column));
      block.leftRows = shape.blockHeight(pair.left);
      block.rightRows = shape.blockHeight(pair.right);
      block.out = products;
      ops.gramBlock(block);
      double* sum = target + index * size;
      for (int i = 0; i < block.leftRows * block.rightRows; ++i) sum[i] += products[i];
    }
  }
}

void addToGram(const GramShape& shape, const double* sums, double* gram) {
  const int size = shape.blockRows * shape.blockRows;
  BlockPair pair(0);
  for (std::int64_t index = 0; index < shape.pairs; ++index, pair.next()) {
    const int rightRows = shape.blockHeight(pair.right);
    for (int i = 0; i < shape.blockHeight(pair.left); ++i) {
      for (int j = 0; j < rightRows; ++j) {
        const std::int64_t row = shape.blockBegin(pair.left) + i;
        const std::int64_t column = shape.blockBegin(pair.right) + j;
        if (column > row) continue;
        double total = 0;
        for (int slab = 0; slab < shape.slabs; ++slab) {
          total += sums[(std::int64_t{slab} * shape.pairs + index) * size + i * rightRows + j];
        }
        gram[row * shape.rows + column] += total;
        gram[column * shape.rows + row] = gram[row * shape.rows + column];
      }
    }
  }
}

}  // namespace

void prepareGram(int rows, Context& context) {
  // Fewer rows have more slabs, so that the largest matrix need not be the one that needs most. However
  // the rows fall into two memories, there are no more blocks than with one row in the first.
  for (const int k : {rows, std::min(rows, kManyRows)}) {
    const GramShape most(1, k - 1, context.ops.gramBlockRows, 0, kTileColumns * kMaxSlabs);
    context.needShared(most.sumFloats());
  }
}

void run(const Gram& op, const Frame& frame, Context& context) {
  if (frame.gram == nullptr) return;
  LOKO_CHECK(op.begin >= 0 && op.begin <= op.end && frame.gramRows > 0, "columns of a Gram matrix");
  GramOperands operands{};
  operands.ld = context.parameters();
  operands.jacobian = context.jacobian(0, 0, op.end);
  context.jacobian(frame.gramRows - 1, 0, op.end);
  operands.factor = factorValues(frame.factor, frame.factorRows, operands.ld);
  if (frame.gramWeights != nullptr) {
    const auto& p = dynamic_cast<const State&>(*frame.gramWeights);
    LOKO_CHECK(p.size() >= op.end, "fewer weights than columns");
    operands.weights = p.values();
  }
  if (op.begin == op.end) return;

  const GramShape shape(frame.factorRows, frame.gramRows, context.ops.gramBlockRows, op.begin,
                        op.end);
  auto* sums = reinterpret_cast<double*>(context.shared(shape.sumFloats()));
  const std::int64_t work =
      (op.end - op.begin) / shape.slabs * shape.blockRows * shape.blockRows / 8;
  context.forEachRange(std::int64_t{shape.slabs} * shape.pairs, work,
                       [&](std::int64_t begin, std::int64_t end, int) {
                         while (begin < end) {
                           const std::int64_t slab = begin / shape.pairs;
                           const std::int64_t last = std::min(end, (slab + 1) * shape.pairs);
                           addSlab(shape, static_cast<int>(slab), begin - slab * shape.pairs,
                                   last - slab * shape.pairs, operands, sums, context.ops);
                           begin = last;
                         }
                       });
  addToGram(shape, sums, frame.gram);
}

}  // namespace loko::cpu
