#include "cpu/tile_product.h"

namespace loko::cpu {

std::size_t PackedRows::floatCount(int m, int depth) {
  return static_cast<std::size_t>(m * paddedDepth(depth));
}

PackedRows::PackedRows(const Kernels& kernels, float* memory, int m, int depth)
    : kernels_(kernels),
      memory_(memory),
      m_(m),
      depth_(depth),
      tiles_((m + kernels.tileRows - 1) / kernels.tileRows) {}

void PackedRows::packRows(const float* source, std::ptrdiff_t ld) {
  for (int t = 0; t < tiles_; ++t) {
    const float* rows[kMaxTileRows];
    for (int i = 0; i < height(t); ++i) rows[i] = source + (begin(t) + i) * ld;
    kernels_.packRows(tile(t), rows, height(t), depth_);
  }
}

void PackedRows::packColumns(const float* source, std::ptrdiff_t ld) {
  for (int t = 0; t < tiles_; ++t) {
    float* out = tile(t);
    for (int k = 0; k < depth_; k += kPackGroup) {
      const float* rows[kPackGroup];
      const int count = std::min(kPackGroup, depth_ - k);
      for (int j = 0; j < count; ++j) rows[j] = source + (k + j) * ld + begin(t);
      kernels_.transposeBlock(out, kPackGroup, rows, count, height(t), kPackGroup);
      out += height(t) * kPackGroup;
    }
  }
}

std::size_t Panels::floatCount(int depth, int n) {
  return static_cast<std::size_t>(depth) * static_cast<std::size_t>(paddedColumns(n));
}

Panels::Panels(const Kernels& kernels, float* memory, int depth, int n)
    : kernels_(kernels), memory_(memory), depth_(depth), n_(n) {}

void Panels::refer(const float* source, std::ptrdiff_t ld) {
  referPadded(source, ld);
  inPlace_ = n_ / kPanelColumns * kPanelColumns;
  if (inPlace_ == n_) return;
  const int padded = width(inPlace_);
  kernels_.copyBlock(memory_ + std::ptrdiff_t{depth_} * inPlace_, padded, source + inPlace_, ld,
                     depth_, n_ - inPlace_, padded);
}

void Panels::referPadded(const float* source, std::ptrdiff_t ld) {
  source_ = source;
  ld_ = ld;
  inPlace_ = n_;
}

void Panels::transpose(const float* source, std::ptrdiff_t ld) {
  inPlace_ = 0;
  for (int column = 0; column < n_; column += kPanelColumns) {
    const float* rows[kPanelColumns];
    const int count = std::min(kPanelColumns, n_ - column);
    for (int j = 0; j < count; ++j) rows[j] = source + (column + j) * ld;
    kernels_.transposeBlock(memory_ + std::ptrdiff_t{depth_} * column, width(column), rows, count,
                            depth_, width(column));
  }
}

Panels::Panel Panels::panel(int column) const {
  const int columns = width(column);
  if (column < inPlace_) return {source_ + column, ld_, columns};
  return {memory_ + std::ptrdiff_t{depth_} * column, columns, columns};
}

}  // namespace loko::cpu
