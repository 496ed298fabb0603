// The measurement update of theta, p and a factor: one pass over all of them and the rows of G.
//
// [root; gain; carry] V, V = [factor; G], is a product with few rows, computed by the tile kernels. Its
// squares are summed and applied to a chunk of columns before the next chunk is read. Without a factor the
// kernels read G in place; with one, a copy of a tile of columns, so that the factor may be written at once.
#include <cmath>

#include "cpu/context.h"

namespace loko::cpu {

namespace {

constexpr int kChunkColumns = 1024;
constexpr int kMaxSlabs = 64;  // shares of columns, by n alone; statistics are added in their order

constexpr int roundUp(int value, int multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

/// [root; gain; carry] in float32, packed for the tile kernels. Rows of a tile end at the last column that
/// any of them uses: a triangular root costs half.
class Coefficients {
 public:
  /// For any update of that width: a root has no more rows, nor has a carry.
  static std::size_t floatCount(int width) {
    return (2 * static_cast<std::size_t>(width) + 1) *
               static_cast<std::size_t>(roundUp(width, kPackGroup)) +
           kMaxTileRows * static_cast<std::size_t>(width);
  }

  Coefficients(const KalmanUpdate& update, const Kernels& kernels, float* memory)
      : width_(update.width()),
        rows_(update.rootRows + 1 + update.factorRows),
        tiles_((rows_ + kernels.tileRows - 1) / kernels.tileRows),
        packed_(memory) {
    LOKO_CHECK(tiles_ <= kMaxTiles, "too many rows in one update");
    float* narrowed = packed_ + rows_ * std::ptrdiff_t{roundUp(width_, kPackGroup)};
    for (int tile = 0; tile < tiles_; ++tile) {
      const float* sources[kMaxTileRows];
      depths_[tile] = 1;
      for (int i = 0; i < height(tile); ++i) {
        float* row = narrowed + i * std::ptrdiff_t{width_};
        std::transform(rowOf(update, begin(tile) + i), rowOf(update, begin(tile) + i) + width_, row,
                       [](double value) { return static_cast<float>(value); });
        int used = width_;
        while (used > depths_[tile] && row[used - 1] == 0) --used;
        depths_[tile] = std::max(depths_[tile], used);
        sources[i] = row;
      }
      kernels.packRows(packed_ + begin(tile) * std::ptrdiff_t{roundUp(width_, kPackGroup)}, sources,
                       height(tile), depths_[tile]);
    }
  }

  int tiles() const { return tiles_; }
  int begin(int tile) const { return static_cast<int>(std::int64_t{rows_} * tile / tiles_); }
  int height(int tile) const { return begin(tile + 1) - begin(tile); }
  int depth(int tile) const { return depths_[tile]; }
  const float* packed(int tile) const {
    return packed_ + begin(tile) * std::ptrdiff_t{roundUp(width_, kPackGroup)};
  }

 private:
  static constexpr int kMaxTiles = 4096;

  const double* rowOf(const KalmanUpdate& update, int i) const {
    if (i < update.rootRows) return update.root + i * std::ptrdiff_t{width_};
    if (i == update.rootRows) return update.gain;
    return update.carry + (i - update.rootRows - 1) * std::ptrdiff_t{width_};
  }

  int width_, rows_, tiles_;
  float* packed_;
  int depths_[kMaxTiles];
};

struct Statistics {
  std::int64_t floored = 0;
  double sum = 0;
  float min = 0, max = 0;
};

/// Sums, minimum and maximum in an order that the vectorising compiler can keep: eight of each.
void addStatistics(const float* p, std::int64_t n, bool first, Statistics& statistics) {
  constexpr int kLanes = 8;
  double sums[kLanes] = {};
  float low[kLanes], high[kLanes];
  std::fill_n(low, kLanes, first ? p[0] : statistics.min);
  std::fill_n(high, kLanes, first ? p[0] : statistics.max);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) {
      sums[j] += static_cast<double>(p[i + j]);
      low[j] = p[i + j] < low[j] ? p[i + j] : low[j];
      high[j] = p[i + j] > high[j] ? p[i + j] : high[j];
    }
  }
  for (; i < n; ++i) {
    sums[0] += static_cast<double>(p[i]);
    low[0] = std::min(low[0], p[i]);
    high[0] = std::max(high[0], p[i]);
  }
  for (const double sum : sums) statistics.sum += sum;
  statistics.min = *std::min_element(low, low + kLanes);
  statistics.max = *std::max_element(high, high + kLanes);
}

class Updater {
 public:
  Updater(const KalmanUpdate& update, State& p, Context& context)
      : context_(context),
        rootRows_(update.rootRows),
        factorRows_(update.factorRows),
        dualRows_(update.dualRows),
        k_(update.rows),
        n_(context.parameters()),
        factor_(factorValues(update.factor, update.factorRows, n_)),
        jacobian_(context.jacobian(0, 0, n_)),
        theta_(context.parameter(0, n_)),
        p_(p.values()),
        floor_(static_cast<float>(update.floor)),
        variational_(update.rule == CovarianceRule::kVariationalDecoupled),
        coefficients_(update, context.kernels,
                      context.shared(Coefficients::floatCount(update.width()))) {
    context.jacobian(k_ - 1, 0, n_);
  }

  /// Columns [begin, end); `block` holds (r + k) x kPanelColumns floats.
  void run(std::int64_t begin, std::int64_t end, float* block, Statistics& statistics) const {
    alignas(64) float step[kChunkColumns];
    alignas(64) float q[kChunkColumns];
    alignas(64) float before[kChunkColumns];
    for (std::int64_t column = begin; column < end; column += kChunkColumns) {
      const auto columns = static_cast<int>(std::min<std::int64_t>(kChunkColumns, end - column));
      project(column, columns, block, step, q);
      if (dualRows_ > 0) std::copy_n(p_ + column, columns, before);
      KalmanColumns apply{};
      apply.theta = theta_ + column;
      apply.p = p_ + column;
      apply.step = step;
      apply.q = q;
      apply.n = columns;
      apply.floor = floor_;
      apply.variational = variational_;
      statistics.floored += context_.ops.kalmanColumns(apply);
      addStatistics(p_ + column, columns, column == begin, statistics);
      if (dualRows_ > 0) rescaleDualRows(column, columns, before);
    }
  }

 private:
  /// The dual rows times p / (new p); `ratio` comes as p.
  void rescaleDualRows(std::int64_t column, int columns, float* ratio) const {
    for (int j = 0; j < columns; ++j) {
      // A frozen parameter has p = new p = 0.
      const float next = p_[column + j];
      ratio[j] = next > 0 ? ratio[j] / next : 1;
    }
    for (int i = factorRows_ - dualRows_; i < factorRows_; ++i) {
      float* row = factor_ + i * n_ + column;
      for (int j = 0; j < columns; ++j) row[j] *= ratio[j];
    }
  }

  /// step = gain^T V, q = column sums of (root V)^2, factor <- carry V.
  void project(std::int64_t column, int columns, float* block, float* step, float* q) const {
    const Kernels& kernels = context_.kernels;
    const int width = kernels.tileColumns;
    alignas(64) float out[kMaxTileRows * kPanelColumns];
    std::fill_n(q, columns, 0.0f);
    for (int j = 0; j < columns; j += width) {
      const int valid = std::min(width, columns - j);
      TileArgs args{};
      locate(column + j, valid, block, args);
      args.alpha = 1;
      args.out = out;
      for (int tile = 0; tile < coefficients_.tiles(); ++tile) {
        const int begin = coefficients_.begin(tile), height = coefficients_.height(tile);
        args.a = coefficients_.packed(tile);
        args.depth = coefficients_.depth(tile);
        kernels.tile[height - 1](args);
        const int squares = std::min(height, rootRows_ - begin);
        if (squares > 0) context_.ops.addSquares(q + j, out, width, squares, valid);
        const int gain = rootRows_ - begin;
        if (gain >= 0 && gain < height) std::copy_n(out + gain * width, valid, step + j);
        const int carried = std::max(0, gain + 1);  // the first row of the tile that is one
        if (carried < height) {
          context_.ops.storeTile(factor_ + (begin + carried - rootRows_ - 1) * n_ + column + j, n_,
                                 out + carried * width, width, height - carried, valid, false);
        }
      }
    }
  }

  /// A tile of the columns of V: G itself, or a copy where the factor lies elsewhere or columns are missing.
  void locate(std::int64_t column, int valid, float* block, TileArgs& args) const {
    const Kernels& kernels = context_.kernels;
    args.b = jacobian_ + column;
    args.ldb = n_;
    if (factor_ == nullptr && valid == kernels.tileColumns) return;
    fetchAhead(column);
    const int padded = roundUp(kernels.tileColumns, kPackGroup);
    if (factor_ != nullptr) {
      kernels.copyBlock(block, padded, factor_ + column, n_, factorRows_, valid, padded);
    }
    kernels.copyBlock(block + factorRows_ * std::ptrdiff_t{padded}, padded, args.b, n_, k_, valid,
                      padded);
    args.b = block;
    args.ldb = padded;
  }

  // So many rows at once are more than the hardware follows: a tenth to a sixth of the time.
  void fetchAhead(std::int64_t column) const {
    const std::int64_t ahead = column + 2 * context_.kernels.tileColumns;
    if (ahead + kPanelColumns > n_) return;
    for (int line = 0; line < context_.kernels.tileColumns; line += kPackGroup) {
      for (int i = 0; i < factorRows_; ++i) __builtin_prefetch(factor_ + i * n_ + ahead + line, 1);
      for (int i = 0; i < k_; ++i) __builtin_prefetch(jacobian_ + i * n_ + ahead + line);
    }
  }

  Context& context_;
  const int rootRows_, factorRows_, dualRows_, k_;
  const std::int64_t n_;
  float* factor_;  // null: V = G
  const float* jacobian_;
  float* theta_;
  float* p_;
  const float floor_;
  const bool variational_;
  const Coefficients coefficients_;
};

}  // namespace

void prepareKalmanUpdate(int rows, Context& context) {
  context.needShared(Coefficients::floatCount(rows));
  context.needLocal(static_cast<std::size_t>(rows) * kPanelColumns);
}

KalmanUpdateResult kalmanUpdate(const KalmanUpdate& update, State& p, Context& context) {
  const std::int64_t n = context.parameters();
  LOKO_CHECK(update.rows > 0 && p.size() == n, "p and the Jacobian differ in size");
  LOKO_CHECK(update.rootRows >= 0 && update.rootRows <= update.width() && update.dualRows >= 0 &&
                 update.dualRows <= update.factorRows,
             "the rows of an update");
  if (n == 0) return {};
  const Updater updater(update, p, context);

  Statistics statistics[kMaxSlabs];
  const std::int64_t chunks = (n + kChunkColumns - 1) / kChunkColumns;
  const std::int64_t slabs = std::min<std::int64_t>(chunks, kMaxSlabs);
  const std::int64_t work =
      n / slabs * (std::int64_t{update.width()} * (update.rootRows + 1 + update.factorRows) + 100);
  context.forEachRange(slabs, work, [&](std::int64_t begin, std::int64_t end, int part) {
    float* block = context.local(part, static_cast<std::size_t>(update.width()) * kPanelColumns);
    for (std::int64_t slab = begin; slab < end; ++slab) {
      updater.run(chunks * slab / slabs * kChunkColumns,
                  std::min(n, chunks * (slab + 1) / slabs * kChunkColumns), block,
                  statistics[slab]);
    }
  });

  KalmanUpdateResult result;
  result.min = static_cast<double>(statistics[0].min);
  result.max = static_cast<double>(statistics[0].max);
  for (std::int64_t slab = 0; slab < slabs; ++slab) {
    result.floored += statistics[slab].floored;
    result.sum += statistics[slab].sum;
    result.min = std::min(result.min, static_cast<double>(statistics[slab].min));
    result.max = std::max(result.max, static_cast<double>(statistics[slab].max));
  }
  return result;
}

void transition(float* values, std::int64_t n, const Transition& by, Context& context) {
  const auto factor = static_cast<float>(by.factor), added = static_cast<float>(by.added);
  const auto most = static_cast<float>(by.most);
  context.forEachRange(n, 30, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float next = factor * values[i] + added;
      values[i] = next > most ? most : next;
    }
  });
}

void capVariance(State& p, double most, State& factor, int firstRow, int lastRow,
                 Context& context) {
  const std::int64_t n = p.size();
  const auto cap = static_cast<float>(most);
  context.forEachRange(n, 30, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      float& value = p.values()[i];
      if (!(value > cap)) continue;
      const float ratio = value / cap;
      for (std::int64_t row = firstRow; row < lastRow; ++row) factor.values()[row * n + i] *= ratio;
      value = cap;
    }
  });
}

}  // namespace loko::cpu
