#pragma once

// How a block reads the tiles of an operand: from global memory into registers, steps ahead of the one that is
// being multiplied, then into shared memory.
//
// A vector is four elements side by side in memory. Along: of one row of the tile (or column of the
// product), neighbouring threads at neighbouring depth. Across: of one depth, neighbouring threads at
// neighbouring rows. Either way a warp reads whole lines. What lies outside reads as 0.
//
// Rule: between a load and the use of what it brought must lie no branch that depends on it and no
// arithmetic, or the thread waits for memory there and the loads of a step come one after another. So vectors
// stay as they lie in memory until each() unpacks them, the element type is a template parameter, and a load that need not look
// at every element is one predicated instruction.

#include "cuda/product.h"
#include "cuda/tile.cuh"

namespace loko::cuda {

/// Four elements as they lie in memory.
template <bool kHalf>
struct Packed;

template <>
struct Packed<false> {
  using Element = float;
  float4 bits;

  __device__ static Packed zero() { return {make_float4(0, 0, 0, 0)}; }
  __device__ float4 values() const { return bits; }
};

template <>
struct Packed<true> {
  using Element = __nv_bfloat16;
  uint2 bits;

  __device__ static Packed zero() { return {make_uint2(0, 0)}; }
  /// A bfloat16 is the upper half of a float.
  __device__ float4 values() const {
    return make_float4(__uint_as_float(bits.x << 16), __uint_as_float(bits.x & 0xffff0000u),
                       __uint_as_float(bits.y << 16), __uint_as_float(bits.y & 0xffff0000u));
  }
};

/// The first four elements; the caller knows that they exist and that they are aligned.
template <bool kHalf>
__device__ Packed<kHalf> fetchWhole(const typename Packed<kHalf>::Element* p) {
  return *reinterpret_cast<const Packed<kHalf>*>(p);
}

/// Up to four elements from p on, `valid` of which exist; a null p has none.
template <bool kHalf>
__device__ Packed<kHalf> fetchVector(const typename Packed<kHalf>::Element* p, int valid,
                                     bool aligned) {
  if (p == nullptr || valid <= 0) return Packed<kHalf>::zero();
  if (aligned && valid >= 4) return fetchWhole<kHalf>(p);
  if constexpr (kHalf) {
    const auto* bits = reinterpret_cast<const unsigned short*>(p);
    const auto at = [&](int i) { return valid > i ? unsigned{bits[i]} : 0u; };
    return {make_uint2(at(0) | at(1) << 16, at(2) | at(3) << 16)};
  } else {
    return {make_float4(p[0], valid > 1 ? p[1] : 0, valid > 2 ? p[2] : 0, valid > 3 ? p[3] : 0)};
  }
}

/// The vectors of a tile that a thread moves.
template <bool kAcross, int kExtent, bool kHalf = false>
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

  Packed<kHalf> packed[kCount];

  /// Calls set(extent, depth, value) for what this thread holds.
  template <class Set>
  __device__ void each(Set set) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int e = extentOf(i), k = depthOf(i);
      const float4 values = packed[i].values();
      set(e, k, values.x);
      set(e + (kAcross ? 1 : 0), k + (kAcross ? 0 : 1), values.y);
      set(e + (kAcross ? 2 : 0), k + (kAcross ? 0 : 2), values.z);
      set(e + (kAcross ? 3 : 0), k + (kAcross ? 0 : 3), values.w);
    }
  }
};

/// Row `index` of an operand whose elements are bfloat16 or not.
template <bool kHalf>
__device__ const typename Packed<kHalf>::Element* rowOf(const Operand& operand, int index) {
  if constexpr (kHalf) {  // weights: dense
    return reinterpret_cast<const __nv_bfloat16*>(operand.rows.data) + index * operand.rows.ld;
  } else {
    return operand.rows[index];
  }
}

/// Of a matrix, or of the rows of a view.
template <bool kIsAcross, int kExtent, bool kHalf = false>
class Fetch {
 public:
  static constexpr bool kAcross = kIsAcross;
  static constexpr bool kWhole = true;  // there is load<true>()
  using Parts = Vectors<kAcross, kExtent, kHalf>;

  /// The tile covers [base, base + kExtent) of an operand that exists in [begin, end); across, begin is 0.
  __device__ Fetch(const Operand& operand, int base, int begin, int end)
      : operand_(operand), base_(base), end_(end) {
    if constexpr (!kAcross) {
#pragma unroll
      for (int i = 0; i < Parts::kCount; ++i) {
        const int index = base + Parts::extentOf(i);
        exists_[i] = index >= begin && index < end;
        rows_[i] = rowOf<kHalf>(operand, exists_[i] ? index - begin : 0);
      }
    }
  }

  /// Vectors are aligned, and exist whole or not at all.
  __device__ bool whole(int depth) const {
    return operand_.aligned && (kAcross ? end_ : depth) % 4 == 0;
  }

  /// Depth [k, k + kTileDepth) of `depth`.
  template <bool kIsWhole>
  __device__ Parts load(int k, int depth) const {
    Parts parts;
#pragma unroll
    for (int i = 0; i < Parts::kCount; ++i) {
      const int at = k + Parts::depthOf(i), index = base_ + Parts::extentOf(i);
      const bool exists = at < depth && (kAcross ? index < end_ : exists_[i]);
      const Element* start =
          kAcross ? rowOf<kHalf>(operand_, exists ? at : 0) + index : rows_[i] + at;
      if constexpr (kIsWhole) {
        parts.packed[i] = Packed<kHalf>::zero();
        if (exists) parts.packed[i] = fetchWhole<kHalf>(start);
      } else {
        const int valid = kAcross ? end_ - index : depth - at;
        parts.packed[i] = fetchVector<kHalf>(start, exists ? valid : 0, operand_.aligned);
      }
    }
    return parts;
  }

 private:
  using Element = typename Packed<kHalf>::Element;

  const Operand& operand_;
  int base_, end_;
  bool exists_[Parts::kCount];
  const Element* rows_[Parts::kCount];
};

}  // namespace loko::cuda
