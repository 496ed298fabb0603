#pragma once

// A product of two operands in global memory, added to a block's tile: the next step of depth travels
// while the present one is being multiplied.

#include "cuda/fetch.cuh"
#include "cuda/tile.cuh"

namespace loko::cuda {

/// What a tile covers of an operand: [base, base + the tile's extent) of what exists in [begin, end).
struct Cover {
  const Operand& operand;
  int base, begin, end;
};

struct Unscaled {
  __device__ float operator()(int, int, float value) const { return value; }
};

/// Depth [kBegin, kEnd), kBegin a multiple of kTileDepth. scale(column of the tile, depth, value) is what
/// is multiplied in place of a value of the right operand. Ends with the tiles free to be written again.
template <bool kLeftAcross, bool kRightAcross, class Math, int kRows, class Scale>
__device__ void addProduct(Tile<Math, kRows>& tile, LeftTile<Math, kRows>& left,
                           RightTile<Math, kRightAcross>& right, const Cover& leftCover,
                           const Cover& rightCover, int kBegin, int kEnd, const Scale& scale) {
  Fetch<kLeftAcross, kRows> fetchLeft;
  Fetch<kRightAcross, kTileColumns> fetchRight;
  fetchLeft.enter(leftCover.operand, leftCover.base, leftCover.begin, leftCover.end);
  fetchRight.enter(rightCover.operand, rightCover.base, rightCover.begin, rightCover.end);
  if (kBegin < kEnd) {
    fetchLeft.load(leftCover.operand, kBegin, kEnd);
    fetchRight.load(rightCover.operand, kBegin, kEnd);
  }
  for (int k = kBegin; k < kEnd; k += kTileDepth) {
    fetchLeft.each([&](int row, int depth, float value) { left.set(row, depth, value); });
    fetchRight.each([&](int column, int depth, float value) {
      right.set(depth, column, scale(column, k + depth, value));
    });
    __syncthreads();
    if (k + kTileDepth < kEnd) {
      fetchLeft.load(leftCover.operand, k + kTileDepth, kEnd);
      fetchRight.load(rightCover.operand, k + kTileDepth, kEnd);
    }
    tile.add(left, right);
    __syncthreads();
  }
}

}  // namespace loko::cuda
