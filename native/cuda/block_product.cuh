#pragma once

// A product of two operands in global memory, added to a block's tile: the next steps of depth travel
// while the present one is being multiplied.

#include "cuda/fetch.cuh"
#include "cuda/tile.cuh"

namespace loko::cuda {

struct Unscaled {
  __device__ float operator()(int, int, float value) const { return value; }
};

/// What a block multiplies into which tile, by way of which shared memory.
template <int kRingRegisters, class Math, int kRows, class FetchLeft, class FetchRight, class Scale>
struct BlockProduct {
  Tile<Math, kRows>& tile;
  LeftTile<Math, kRows>& left;
  RightTile<Math, FetchRight::kAcross>& right;
  const FetchLeft& fetchLeft;
  const FetchRight& fetchRight;
  const Scale& scale;

  /// kAhead steps are on their way at any time.
  template <int kAhead, bool kWhole>
  __device__ void add(int kBegin, int kEnd) const {
    typename FetchLeft::Parts lefts[kAhead];
    typename FetchRight::Parts rights[kAhead];
    const auto load = [&](int step, int k) {
      lefts[step] = fetchLeft.template load<kWhole>(k, kEnd);
      rights[step] = fetchRight.template load<kWhole>(k, kEnd);
    };
#pragma unroll
    for (int step = 0; step < kAhead; ++step) load(step, kBegin + step * kTileDepth);
    for (int first = kBegin; first < kEnd; first += kAhead * kTileDepth) {
#pragma unroll
      for (int step = 0; step < kAhead; ++step) {  // unrolled, since registers have no index
        const int k = first + step * kTileDepth;
        if (k >= kEnd) break;
        lefts[step].each([&](int row, int depth, float value) { left.set(row, depth, value); });
        rights[step].each([&](int column, int depth, float value) {
          right.set(depth, column, scale(column, k + depth, value));
        });
        __syncthreads();
        load(step, k + kAhead * kTileDepth);
        tile.add(left, right);
        __syncthreads();
      }
    }
  }

  static constexpr int kRegisters =
      (sizeof(typename FetchLeft::Parts) + sizeof(typename FetchRight::Parts)) / 4;
  static constexpr int kFitting = kRingRegisters / kRegisters;
  static constexpr int kStepsAhead = kFitting < 1 ? 1 : kFitting > 4 ? 4 : kFitting;
};

/// Depth [kBegin, kEnd), kBegin a multiple of kTileDepth, of what the two fetch. scale(column of the tile,
/// depth, value) is what is multiplied in place of a value of the right operand. Ends with the tiles in shared
/// memory free to be written again.
///
/// What a multiprocessor has in flight bounds what it can read: an H200 needs about 20 KB for each (4.3 TB/s
/// for 0.6 us over 132), and a step of 64 x 64 brings 4 KB of bfloat16 weights and 8 KB of activations. As many steps
/// are ahead as kRingRegisters of a thread hold; beside them it has 32 sums for each tile, addresses, and
/// what the tensor cores read.
template <int kRingRegisters = 72, class Math, int kRows, class FetchLeft, class FetchRight,
          class Scale>
__device__ void addProduct(Tile<Math, kRows>& tile, LeftTile<Math, kRows>& left,
                           RightTile<Math, FetchRight::kAcross>& right, const FetchLeft& fetchLeft,
                           const FetchRight& fetchRight, int kBegin, int kEnd, const Scale& scale) {
  using Steps = BlockProduct<kRingRegisters, Math, kRows, FetchLeft, FetchRight, Scale>;
  const Steps steps{tile, left, right, fetchLeft, fetchRight, scale};
  if constexpr (FetchLeft::kWhole && FetchRight::kWhole) {
    if (fetchLeft.whole(kEnd) && fetchRight.whole(kEnd)) {
      steps.template add<Steps::kStepsAhead, true>(kBegin, kEnd);
      return;
    }
  }
  steps.template add<1, false>(kBegin, kEnd);
}

}  // namespace loko::cuda
