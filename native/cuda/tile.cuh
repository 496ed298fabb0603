#pragma once

// The one inner loop of all products: a block of 128 threads owns kRows x 64 outputs and adds products of
// depth 32 to them, from operands that the block has put in shared memory.
//
//   Float32   every thread owns kRows/8 x 4 outputs in registers, fused multiply-adds in the order of k
//   Tf32      a warp owns kRows x 16 outputs as tensor core fragments of 16x16, depth 8
//   Bfloat16  the same, depth 16; operands are rounded to bfloat16 when they are put in shared memory
//
// Accumulation is in float32. The sums of an output depend on its depth alone, never on the rows beside it.

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <mma.h>

#include <type_traits>

namespace loko::cuda {

constexpr int kTileThreads = 128;
constexpr int kTileColumns = 64;
constexpr int kTileDepth = 32;
constexpr int kOutLd = kTileColumns + 4;  // of a tile's outputs in shared memory

struct Float32 {
  using Element = float;
  static constexpr bool kTensor = false;
  __device__ static float convert(float value) { return value; }
};

struct Tf32 {
  using Element = float;
  static constexpr bool kTensor = true;
  static constexpr int kStep = 8;
  using Fragment = nvcuda::wmma::precision::tf32;
  __device__ static float convert(float value) { return nvcuda::wmma::__float_to_tf32(value); }
};

struct Bfloat16 {
  using Element = __nv_bfloat16;
  static constexpr bool kTensor = true;
  static constexpr int kStep = 16;
  using Fragment = __nv_bfloat16;
  __device__ static __nv_bfloat16 convert(float value) { return __float2bfloat16_rn(value); }
};

/// Left operand in shared memory. Plain arithmetic reads a column of it at a time, tensor cores rows.
template <class Math, int kRows>
struct LeftTile {
  static constexpr int kLd = Math::kTensor ? kTileDepth + 8 : kRows + 4;
  alignas(32) typename Math::Element values[Math::kTensor ? kRows * kLd : kTileDepth * kLd];

  __device__ void set(int row, int k, float value) {
    values[Math::kTensor ? row * kLd + k : k * kLd + row] = Math::convert(value);
  }
};

/// Right operand [depth, 64] in shared memory, held the way that its source is read: along a row of the
/// source lies depth, or (kAcross) the columns of the product.
template <class Math, bool kAcross>
struct RightTile {
  static constexpr bool kDepthMajor = kAcross || !Math::kTensor;
  static constexpr int kLd = kDepthMajor ? kTileColumns + 8 : kTileDepth + 8;
  alignas(32) typename Math::Element values[kDepthMajor ? kTileDepth * kLd : kTileColumns * kLd];

  __device__ void set(int k, int column, float value) {
    values[kDepthMajor ? k * kLd + column : column * kLd + k] = Math::convert(value);
  }
};

template <class Math, int kRows, bool kTensor = Math::kTensor>
class Tile;

template <class Math, int kRows>
class Tile<Math, kRows, false> {
 public:
  static constexpr int kMine = kRows / 8;

  __device__ void clear() {
    for (int i = 0; i < kMine; ++i) {
      for (int j = 0; j < 4; ++j) sums_[i][j] = 0;
    }
  }

  template <bool kAcross>
  __device__ void add(const LeftTile<Math, kRows>& left, const RightTile<Math, kAcross>& right) {
    const int row = threadIdx.x / 16 * kMine, column = threadIdx.x % 16 * 4;
#pragma unroll 8
    for (int k = 0; k < kTileDepth; ++k) {
      const float4 b = *reinterpret_cast<const float4*>(
          &right.values[k * RightTile<Math, kAcross>::kLd + column]);
      const float* a = &left.values[k * LeftTile<Math, kRows>::kLd + row];
#pragma unroll
      for (int i = 0; i < kMine; ++i) {
        sums_[i][0] = fmaf(a[i], b.x, sums_[i][0]);
        sums_[i][1] = fmaf(a[i], b.y, sums_[i][1]);
        sums_[i][2] = fmaf(a[i], b.z, sums_[i][2]);
        sums_[i][3] = fmaf(a[i], b.w, sums_[i][3]);
      }
    }
  }

  /// To shared memory, rows `ld` apart, where all threads of the block find it after __syncthreads().
  __device__ void store(float* target, int ld) const {
    const int row = threadIdx.x / 16 * kMine, column = threadIdx.x % 16 * 4;
    for (int i = 0; i < kMine; ++i) {
      for (int j = 0; j < 4; ++j) target[(row + i) * ld + column + j] = sums_[i][j];
    }
  }

 private:
  float sums_[kMine][4];
};

template <class Math, int kRows>
class Tile<Math, kRows, true> {
 public:
  static constexpr int kBands = kRows / 16;

  __device__ void clear() {
    for (int band = 0; band < kBands; ++band) nvcuda::wmma::fill_fragment(sums_[band], 0.0f);
  }

  template <bool kAcross>
  __device__ void add(const LeftTile<Math, kRows>& left, const RightTile<Math, kAcross>& right) {
    using namespace nvcuda::wmma;
    using Major = std::conditional_t<kAcross, row_major, col_major>;
    constexpr int kLeftLd = LeftTile<Math, kRows>::kLd, kRightLd = RightTile<Math, kAcross>::kLd;
    const int column = threadIdx.x / 32 * 16;
#pragma unroll 2  // TF32 has four: all of them at once do not fit into registers
    for (int k = 0; k < kTileDepth; k += Math::kStep) {
      fragment<matrix_b, 16, 16, Math::kStep, typename Math::Fragment, Major> b;
      load_matrix_sync(b, &right.values[kAcross ? k * kRightLd + column : column * kRightLd + k],
                       kRightLd);
#pragma unroll
      for (int band = 0; band < kBands; ++band) {
        fragment<matrix_a, 16, 16, Math::kStep, typename Math::Fragment, row_major> a;
        load_matrix_sync(a, &left.values[band * 16 * kLeftLd + k], kLeftLd);
        mma_sync(sums_[band], a, b, sums_[band]);
      }
    }
  }

  __device__ void store(float* target, int ld) const {
    for (int band = 0; band < kBands; ++band) {
      nvcuda::wmma::store_matrix_sync(target + band * 16 * ld + threadIdx.x / 32 * 16, sums_[band],
                                      ld, nvcuda::wmma::mem_row_major);
    }
  }

 private:
  nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, Math::kTensor ? Math::kStep : 16, float>
      sums_[kBands];
};

}  // namespace loko::cuda
