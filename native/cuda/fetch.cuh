#pragma once

// How a block reads the tiles of an operand: from global memory into registers while the tile before is
// being multiplied, then into shared memory.
//
// A vector is four elements side by side in memory. Along: of one row of the tile (or column of the
// product), neighbouring threads at neighbouring depth. Across: of one depth, neighbouring threads at
// neighbouring rows. Either way a warp reads whole lines of 128 bytes. What lies outside reads as 0.

#include "cuda/product.h"
#include "cuda/tile.cuh"

namespace loko::cuda {

/// Up to four elements from p on, `valid` of which exist.
template <class Element>
__device__ float4 fetchVector(const Element* p, int valid, bool aligned);

template <>
__device__ inline float4 fetchVector(const float* p, int valid, bool aligned) {
  if (aligned && valid >= 4) return *reinterpret_cast<const float4*>(p);
  float4 v = make_float4(0, 0, 0, 0);
  if (valid > 0) v.x = p[0];
  if (valid > 1) v.y = p[1];
  if (valid > 2) v.z = p[2];
  if (valid > 3) v.w = p[3];
  return v;
}

template <>
__device__ inline float4 fetchVector(const __nv_bfloat16* p, int valid, bool aligned) {
  if (aligned && valid >= 4) {
    const uint2 bits = *reinterpret_cast<const uint2*>(p);
    // A bfloat16 is the upper half of a float.
    return make_float4(__uint_as_float(bits.x << 16), __uint_as_float(bits.x & 0xffff0000u),
                       __uint_as_float(bits.y << 16), __uint_as_float(bits.y & 0xffff0000u));
  }
  float4 v = make_float4(0, 0, 0, 0);
  if (valid > 0) v.x = __bfloat162float(p[0]);
  if (valid > 1) v.y = __bfloat162float(p[1]);
  if (valid > 2) v.z = __bfloat162float(p[2]);
  if (valid > 3) v.w = __bfloat162float(p[3]);
  return v;
}

/// Which vectors of a tile a thread moves.
template <bool kAcross, int kExtent>
struct Vectors {
  static constexpr int kCount = kExtent * kTileDepth / 4 / kTileThreads;
  static constexpr int kPerDepth = kExtent / 4;

  __device__ static int extentOf(int i) {
    const int thread = threadIdx.x;
    return kAcross ? thread % kPerDepth * 4 : thread / 8 + i * (kTileThreads / 8);
  }
  __device__ static int depthOf(int i) {
    const int thread = threadIdx.x;
    return kAcross ? thread / kPerDepth + i * (kTileThreads / kPerDepth) : thread % 8 * 4;
  }

  float4 values[kCount];

  /// Calls set(extent, depth, value) for what this thread holds.
  template <class Set>
  __device__ void each(Set set) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int e = extentOf(i), k = depthOf(i);
      set(e, k, values[i].x);
      set(e + (kAcross ? 1 : 0), k + (kAcross ? 0 : 1), values[i].y);
      set(e + (kAcross ? 2 : 0), k + (kAcross ? 0 : 2), values[i].z);
      set(e + (kAcross ? 3 : 0), k + (kAcross ? 0 : 3), values[i].w);
    }
  }
};

__device__ inline float4 fetchFrom(const Operand& operand, const char* row, std::int64_t at,
                                   int valid) {
  if (row == nullptr || valid <= 0) return make_float4(0, 0, 0, 0);
  if (!operand.half) {
    return fetchVector(reinterpret_cast<const float*>(row) + at, valid, operand.aligned);
  }
  return fetchVector(reinterpret_cast<const __nv_bfloat16*>(row) + at, valid, operand.aligned);
}

__device__ inline const char* rowOf(const Operand& operand, int index) {
  if (!operand.half) return reinterpret_cast<const char*>(operand.rows[index]);
  return reinterpret_cast<const char*>(reinterpret_cast<const __nv_bfloat16*>(operand.rows.data) +
                                       index * operand.rows.ld);
}

/// Of a matrix, or of the rows of a view.
template <bool kIsAcross, int kExtent>
class Fetch {
 public:
  static constexpr bool kAcross = kIsAcross;
  using Parts = Vectors<kAcross, kExtent>;

  /// The tile covers [base, base + kExtent) of an operand that exists in [begin, end).
  __device__ Fetch(const Operand& operand, int base, int begin, int end)
      : operand_(operand), base_(base), begin_(begin), end_(end) {
    for (int i = 0; i < Parts::kCount && !kAcross; ++i) {
      const int index = base + Parts::extentOf(i);
      rows_[i] = index >= begin && index < end ? rowOf(operand, index - begin) : nullptr;
    }
  }

  /// Depth [k, k + kTileDepth) of `depth`.
  __device__ void load(int k, int depth) {
#pragma unroll
    for (int i = 0; i < Parts::kCount; ++i) {
      const int at = k + Parts::depthOf(i);
      if (kAcross) {
        const int index = base_ + Parts::extentOf(i);
        const char* row = at < depth ? rowOf(operand_, at) : nullptr;
        parts_.values[i] = fetchFrom(operand_, row, index - begin_, end_ - index);
      } else {
        parts_.values[i] = fetchFrom(operand_, rows_[i], at, depth - at);
      }
    }
  }

  template <class Set>
  __device__ void each(Set set) const {
    parts_.each(set);
  }

 private:
  const Operand& operand_;
  int base_, begin_, end_;
  const char* rows_[Parts::kCount];
  Parts parts_;
};

}  // namespace loko::cuda
