#pragma once

// Products of a few hundred rows at most, on one thread, for callers that use an operand many times or
// want each finished tile while it is in registers' reach: attention. Both operands are laid out once;
// multiply() then runs nothing but tile kernels and hands every tile to the caller.
//
// Determinism: an element is one chain of multiply-adds over the depth, whatever tile it lies in.

#include <algorithm>
#include <cstddef>

#include "cpu/kernels.h"

namespace loko::cpu {

/// A[m, depth] in tiles of nearly equal height, as TileArgs::a wants them.
class PackedRows {
 public:
  static std::size_t floatCount(int m, int depth);

  /// memory: floatCount(m, depth) floats, 64-byte aligned.
  PackedRows(const Kernels& kernels, float* memory, int m, int depth);

  void packRows(const float* source, std::ptrdiff_t ld);     // A[i][k] = source[i * ld + k]
  void packColumns(const float* source, std::ptrdiff_t ld);  // A[i][k] = source[k * ld + i]

  int rows() const { return m_; }
  int depth() const { return depth_; }
  int tiles() const { return tiles_; }
  int begin(int tile) const { return m_ * tile / tiles_; }
  int height(int tile) const { return begin(tile + 1) - begin(tile); }
  float* tile(int index) const { return memory_ + begin(index) * paddedDepth(depth_); }

  static std::ptrdiff_t paddedDepth(int depth) {
    return (depth + kPackGroup - 1) / kPackGroup * kPackGroup;
  }

 private:
  const Kernels& kernels_;
  float* memory_;
  int m_, depth_, tiles_;
};

/// B[depth, n] in panels of 32 columns, the last one 16 wide where that is enough.
class Panels {
 public:
  /// Enough for either way of filling them.
  static std::size_t floatCount(int depth, int n);

  /// memory: floatCount(depth, n) floats, 64-byte aligned.
  Panels(const Kernels& kernels, float* memory, int depth, int n);

  /// B[k][j] = source[k * ld + j], read in place; an incomplete last panel is copied, so that nothing
  /// beyond the n columns is read.
  void refer(const float* source, std::ptrdiff_t ld);
  /// The same for rows that are readable up to paddedColumns(n): nothing is copied.
  void referPadded(const float* source, std::ptrdiff_t ld);
  /// B[k][j] = source[j * ld + k].
  void transpose(const float* source, std::ptrdiff_t ld);

  static int paddedColumns(int n) {
    return (n + kPanelColumns - 1) / kPanelColumns * kPanelColumns;
  }

  struct Panel {
    const float* data;
    std::ptrdiff_t ld;
    int width;
  };
  Panel panel(int column) const;
  int depth() const { return depth_; }
  int columns() const { return n_; }

 private:
  int width(int column) const {
    return n_ - column <= kNarrowPanelColumns ? kNarrowPanelColumns : kPanelColumns;
  }

  const Kernels& kernels_;
  float* memory_;
  int depth_, n_;
  const float* source_ = nullptr;  // of the panels read in place
  std::ptrdiff_t ld_ = 0;
  int inPlace_ = 0;  // columns
};

/// A finished tile: `rows` x `columns` values, rows `stride` apart, at (row, column) of the product.
struct ProductTile {
  const float* data;
  int stride, index, row, rows, column, columns;
};

/// alpha A B, tile by tile.
template <typename Fn>
void multiply(const Kernels& kernels, const PackedRows& a, const Panels& b, float alpha, Fn&& use) {
  alignas(64) float out[kMaxTileRows * kPanelColumns];
  TileArgs args{};
  args.depth = a.depth();
  args.alpha = alpha;
  args.out = out;
  for (int column = 0; column < b.columns(); column += kPanelColumns) {
    const Panels::Panel panel = b.panel(column);
    const int left = std::min(panel.width, b.columns() - column);
    const int strip = std::min(panel.width, kernels.tileColumns);
    const auto* tiles = panel.width < kernels.tileColumns ? kernels.narrowTile : kernels.tile;
    args.ldb = panel.ld;
    for (int offset = 0; offset < left; offset += strip) {
      args.b = panel.data + offset;
      for (int t = 0; t < a.tiles(); ++t) {
        args.a = a.tile(t);
        tiles[a.height(t) - 1](args);
        use(ProductTile{out, strip, t, a.begin(t), a.height(t), column + offset,
                        std::min(strip, left - offset)});
      }
    }
  }
}

}  // namespace loko::cpu
