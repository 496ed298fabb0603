#pragma once

// A product of two operands in global memory, added to a block's tile: the next step of depth travels
// while the present one is being multiplied.

#include "cuda/fetch.cuh"
#include "cuda/tile.cuh"

namespace loko::cuda {

struct Unscaled {
  __device__ float operator()(int, int, float value) const { return value; }
};

/// Depth [kBegin, kEnd), kBegin a multiple of kTileDepth, of what the two fetch. scale(column of the tile,
/// depth, value) is what is multiplied in place of a value of the right operand. Ends with the tiles in shared
/// memory free to be written again.
template <class Math, int kRows, class FetchLeft, class FetchRight, class Scale>
__device__ void addProduct(Tile<Math, kRows>& tile, LeftTile<Math, kRows>& left,
                           RightTile<Math, FetchRight::kAcross>& right, FetchLeft fetchLeft,
                           FetchRight fetchRight, int kBegin, int kEnd, const Scale& scale) {
  if (kBegin < kEnd) {
    fetchLeft.load(kBegin, kEnd);
    fetchRight.load(kBegin, kEnd);
  }
  for (int k = kBegin; k < kEnd; k += kTileDepth) {
    fetchLeft.each([&](int row, int depth, float value) { left.set(row, depth, value); });
    fetchRight.each([&](int column, int depth, float value) {
      right.set(depth, column, scale(column, k + depth, value));
    });
    __syncthreads();
    if (k + kTileDepth < kEnd) {
      fetchLeft.load(k + kTileDepth, kEnd);
      fetchRight.load(k + kTileDepth, kEnd);
    }
    tile.add(left, right);
    __syncthreads();
  }
}

}  // namespace loko::cuda
