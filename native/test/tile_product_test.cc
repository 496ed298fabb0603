#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <vector>

#include "cpu/gemm.h"
#include "cpu/isa.h"
#include "cpu/tile_product.h"

namespace loko::cpu {
namespace {

// Small integers: every sum is exact in float, whatever its order.
std::vector<float> integers(std::size_t count, int seed) {
  std::vector<float> values(count);
  std::uint32_t state = static_cast<std::uint32_t>(seed);
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<int>(state >> 28) - 8);
  }
  return values;
}

struct Case {
  int m, n, depth;
};

// Extents around the sizes of tiles (4, 6, 14 rows), panels (16, 32 columns) and pack groups (16).
const Case kCases[] = {{1, 1, 1},    {3, 16, 5},   {14, 17, 16}, {15, 31, 17},
                       {29, 32, 48}, {50, 50, 24}, {7, 65, 33},  {64, 48, 197}};

constexpr int kGap = 3;  // rows of the sources are further apart than their columns need

TEST_CASE("A product of laid-out operands is exact for every way to lay them out") {
  for (const Isa isa : availableIsas()) {
    for (const Case& c : kCases) {
      CAPTURE(isaName(isa));
      CAPTURE(c.m);
      CAPTURE(c.n);
      CAPTURE(c.depth);
      const Kernels& k = kernels(isa);
      const auto at = [](const std::vector<float>& values, int ld, int i, int j) {
        return values[static_cast<std::size_t>(i) * static_cast<std::size_t>(ld) +
                      static_cast<std::size_t>(j)];
      };
      const auto extent = [](int rows, int ld) {
        return static_cast<std::size_t>(rows) * static_cast<std::size_t>(ld);
      };
      const AlignedFloats packed = allocateAligned(PackedRows::floatCount(c.m, c.depth));
      const AlignedFloats panels = allocateAligned(Panels::floatCount(c.depth, c.n));
      for (const bool transposedA : {false, true}) {
        for (const int layoutB : {0, 1, 2}) {  // refer, transpose, referPadded
          const int aLd = (transposedA ? c.m : c.depth) + kGap;
          const int bLd = layoutB == 0   ? c.n + kGap
                          : layoutB == 1 ? c.depth + kGap
                                         : Panels::paddedColumns(c.n);
          const std::vector<float> a = integers(extent(transposedA ? c.depth : c.m, aLd), 1);
          const std::vector<float> b = integers(extent(layoutB == 1 ? c.n : c.depth, bLd), 2);
          PackedRows left(k, packed.get(), c.m, c.depth);
          if (transposedA) {
            left.packColumns(a.data(), aLd);
          } else {
            left.packRows(a.data(), aLd);
          }
          Panels right(k, panels.get(), c.depth, c.n);
          if (layoutB == 0) right.refer(b.data(), bLd);
          if (layoutB == 1) right.transpose(b.data(), bLd);
          if (layoutB == 2) right.referPadded(b.data(), bLd);

          std::vector<float> product(extent(c.m, c.n), std::numeric_limits<float>::quiet_NaN());
          multiply(k, left, right, 2.0f, [&](const ProductTile& tile) {
            for (int i = 0; i < tile.rows; ++i) {
              for (int j = 0; j < tile.columns; ++j) {
                product[extent(tile.row + i, c.n) + static_cast<std::size_t>(tile.column + j)] =
                    tile.data[i * tile.stride + j];
              }
            }
          });
          int wrong = 0;
          for (int i = 0; i < c.m; ++i) {
            for (int j = 0; j < c.n; ++j) {
              float expected = 0;
              for (int d = 0; d < c.depth; ++d) {
                expected += (transposedA ? at(a, aLd, d, i) : at(a, aLd, i, d)) *
                            (layoutB == 1 ? at(b, bLd, j, d) : at(b, bLd, d, j));
              }
              if (at(product, c.n, i, j) != 2 * expected) ++wrong;
            }
          }
          CHECK(wrong == 0);
        }
      }
    }
  }
}

}  // namespace
}  // namespace loko::cpu
