// The measurement update of theta and p: one pass over p, theta and the rows of G.
//
// [root; gain] G is a product with few rows, computed by the tile kernels straight from G; its squares
// are summed and applied to a chunk of columns before the next chunk is read.
#include <cmath>

#include "cpu/context.h"

namespace loko::cpu {

namespace {

constexpr int kChunkColumns = 1024;
constexpr int kMaxSlabs = 64;  // shares of columns, by n alone; statistics are added in their order

constexpr int roundUp(int value, int multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

/// [root; gain] in float32, packed for the tile kernels. Rows of a tile end at the last column that
/// any of them uses: a triangular root costs half.
class Coefficients {
 public:
  static std::size_t floatCount(int k) {
    return static_cast<std::size_t>(k + 1) * static_cast<std::size_t>(roundUp(k, kPackGroup) + k);
  }

  Coefficients(const KalmanUpdate& update, const Kernels& kernels, float* memory)
      : k_(update.rows),
        tiles_((k_ + kernels.tileRows) / kernels.tileRows),
        packed_(memory),
        rows_(memory + static_cast<std::ptrdiff_t>(k_ + 1) * roundUp(k_, kPackGroup)) {
    for (int i = 0; i < k_; ++i) {
      for (int j = 0; j < k_; ++j) {
        rows_[i * std::ptrdiff_t{k_} + j] =
            static_cast<float>(update.root[i * std::ptrdiff_t{k_} + j]);
      }
    }
    std::copy_n(update.gain, k_, rows_ + k_ * std::ptrdiff_t{k_});
    for (int tile = 0; tile < tiles_; ++tile) {
      const float* sources[kMaxTileRows];
      for (int i = 0; i < height(tile); ++i) sources[i] = row(begin(tile) + i);
      kernels.packRows(packed_ + begin(tile) * std::ptrdiff_t{roundUp(k_, kPackGroup)}, sources,
                       height(tile), depth(tile));
    }
  }

  int tiles() const { return tiles_; }
  int begin(int tile) const { return static_cast<int>(std::int64_t{k_ + 1} * tile / tiles_); }
  int height(int tile) const { return begin(tile + 1) - begin(tile); }
  int depth(int tile) const {
    int used = 1;
    for (int i = begin(tile); i < begin(tile + 1); ++i) {
      int columns = k_;
      while (columns > used && row(i)[columns - 1] == 0) --columns;
      used = std::max(used, columns);
    }
    return used;
  }
  const float* packed(int tile) const {
    return packed_ + begin(tile) * std::ptrdiff_t{roundUp(k_, kPackGroup)};
  }

 private:
  const float* row(int i) const { return rows_ + i * std::ptrdiff_t{k_}; }

  int k_, tiles_;
  float* packed_;
  float* rows_;
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
        k_(update.rows),
        n_(context.parameters()),
        jacobian_(context.jacobian(0, 0, n_)),
        theta_(context.parameter(0, n_)),
        p_(p.values()),
        floor_(static_cast<float>(update.floor)),
        variational_(update.rule == CovarianceRule::kVariationalDecoupled),
        coefficients_(update, context.kernels,
                      context.shared(Coefficients::floatCount(update.rows))) {
    context.jacobian(k_ - 1, 0, n_);
    LOKO_CHECK(coefficients_.tiles() <= kMaxTiles, "too many rows in one update");
    for (int tile = 0; tile < coefficients_.tiles(); ++tile) {
      depths_[tile] = coefficients_.depth(tile);
    }
  }

  /// Columns [begin, end); `padding` holds k x kPanelColumns floats.
  void run(std::int64_t begin, std::int64_t end, float* padding, Statistics& statistics) const {
    alignas(64) float step[kChunkColumns];
    alignas(64) float q[kChunkColumns];
    for (std::int64_t column = begin; column < end; column += kChunkColumns) {
      const auto columns = static_cast<int>(std::min<std::int64_t>(kChunkColumns, end - column));
      project(column, columns, padding, step, q);
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
    }
  }

 private:
  /// step = gain^T G and q = column sums of (root G)^2.
  void project(std::int64_t column, int columns, float* padding, float* step, float* q) const {
    const Kernels& kernels = context_.kernels;
    const int width = kernels.tileColumns;
    alignas(64) float out[kMaxTileRows * kPanelColumns];
    std::fill_n(q, columns, 0.0f);
    for (int j = 0; j < columns; j += width) {
      const int valid = std::min(width, columns - j);
      TileArgs args{};
      args.b = jacobian_ + column + j;
      args.ldb = n_;
      if (valid < width) {
        const int padded = roundUp(width, kPackGroup);
        kernels.copyBlock(padding, padded, args.b, n_, k_, valid, padded);
        args.b = padding;
        args.ldb = padded;
      }
      args.alpha = 1;
      args.out = out;
      const int last = coefficients_.tiles() - 1;
      for (int tile = 0; tile <= last; ++tile) {
        const int height = coefficients_.height(tile);
        args.a = coefficients_.packed(tile);
        args.depth = depths_[tile];
        kernels.tile[height - 1](args);
        context_.ops.addSquares(q + j, out, width, tile == last ? height - 1 : height, valid);
      }
      std::copy_n(out + (coefficients_.height(last) - 1) * width, valid, step + j);
    }
  }

  static constexpr int kMaxTiles = 4096;

  Context& context_;
  const int k_;
  const std::int64_t n_;
  const float* jacobian_;
  float* theta_;
  float* p_;
  const float floor_;
  const bool variational_;
  const Coefficients coefficients_;
  int depths_[kMaxTiles];
};

}  // namespace

void prepareKalmanUpdate(int rows, Context& context) {
  context.needShared(Coefficients::floatCount(rows));
  context.needLocal(static_cast<std::size_t>(rows) * kPanelColumns);
}

KalmanUpdateResult kalmanUpdate(const KalmanUpdate& update, State& p, Context& context) {
  const std::int64_t n = context.parameters();
  LOKO_CHECK(update.rows > 0 && p.size() == n, "p and the Jacobian differ in size");
  if (n == 0) return {};
  const Updater updater(update, p, context);

  Statistics statistics[kMaxSlabs];
  const std::int64_t chunks = (n + kChunkColumns - 1) / kChunkColumns;
  const std::int64_t slabs = std::min<std::int64_t>(chunks, kMaxSlabs);
  const std::int64_t work = n / slabs * (std::int64_t{2} * update.rows * update.rows + 100);
  context.forEachRange(slabs, work, [&](std::int64_t begin, std::int64_t end, int part) {
    float* padding = context.local(part, static_cast<std::size_t>(update.rows) * kPanelColumns);
    for (std::int64_t slab = begin; slab < end; ++slab) {
      updater.run(chunks * slab / slabs * kChunkColumns,
                  std::min(n, chunks * (slab + 1) / slabs * kChunkColumns), padding,
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

void predictCovariance(State& p, double gamma2, double q, double pMax, Context& context) {
  const auto factor = static_cast<float>(gamma2), noise = static_cast<float>(q);
  const auto most = static_cast<float>(pMax);
  context.forEachRange(p.size(), 30, [&](std::int64_t begin, std::int64_t end, int) {
    float* values = p.values();
    for (std::int64_t i = begin; i < end; ++i) {
      const float next = factor * values[i] + noise;
      values[i] = next > most ? most : next;
    }
  });
}

}  // namespace loko::cpu
