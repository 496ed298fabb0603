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

template <bool kAcross, int kExtent>
class Fetch {
 public:
  static constexpr int kVectors = kExtent * kTileDepth / 4 / kTileThreads;

  /// The tile covers [base, base + kExtent) of an operand that exists in [begin, end).
  __device__ void enter(const Operand& operand, int base, int begin, int end) {
    base_ = base;
    begin_ = begin;
    end_ = end;
    if (kAcross) return;
    for (int i = 0; i < kVectors; ++i) {
      const int index = base + extentOf(i);
      rows_[i] = index >= begin && index < end ? rowOf(operand, index - begin) : nullptr;
    }
  }

  /// Depth [k, k + kTileDepth) of `depth`.
  __device__ void load(const Operand& operand, int k, int depth) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      if (kAcross) {
        const int row = k + depthOf(i), index = base_ + extentOf(i);
        const char* p = row < depth ? rowOf(operand, row) : nullptr;
        values_[i] = fetch(operand, p, index - begin_, end_ - index);
      } else {
        const int at = k + depthOf(i);
        values_[i] = fetch(operand, rows_[i], at, depth - at);
      }
    }
  }

  /// Calls set(extent, depth, value) for what this thread holds.
  template <class Set>
  __device__ void each(Set set) const {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int e = extentOf(i), k = depthOf(i);
      set(e, k, values_[i].x);
      set(e + (kAcross ? 1 : 0), k + (kAcross ? 0 : 1), values_[i].y);
      set(e + (kAcross ? 2 : 0), k + (kAcross ? 0 : 2), values_[i].z);
      set(e + (kAcross ? 3 : 0), k + (kAcross ? 0 : 3), values_[i].w);
    }
  }

 private:
  static constexpr int kPerDepth = kExtent / 4;

  __device__ static int extentOf(int i) {
    const int thread = threadIdx.x;
    return kAcross ? thread % kPerDepth * 4 : thread / 8 + i * (kTileThreads / 8);
  }
  __device__ static int depthOf(int i) {
    const int thread = threadIdx.x;
    return kAcross ? thread / kPerDepth + i * (kTileThreads / kPerDepth) : thread % 8 * 4;
  }
  __device__ static const char* rowOf(const Operand& operand, int index) {
    if (!operand.half) return reinterpret_cast<const char*>(operand.rows[index]);
    return reinterpret_cast<const char*>(
        reinterpret_cast<const __nv_bfloat16*>(operand.rows.data) + index * operand.rows.ld);
  }
  __device__ static float4 fetch(const Operand& operand, const char* row, int at, int valid) {
    if (row == nullptr || valid <= 0) return make_float4(0, 0, 0, 0);
    if (!operand.half) {
      return fetchVector(reinterpret_cast<const float*>(row) + at, valid, operand.aligned);
    }
    return fetchVector(reinterpret_cast<const __nv_bfloat16*>(row) + at, valid, operand.aligned);
  }

  int base_, begin_, end_;
  const char* rows_[kVectors];
  float4 values_[kVectors];
};

}  // namespace loko::cuda
