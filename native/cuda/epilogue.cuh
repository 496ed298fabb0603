#pragma once

// What remains of an operation when the sums of a tile are complete.
//
// Rule: every read of the epilogue is on its way before the first sum needs one, and all of them before the first
// write, which the compiler may not move a read across. A loop that reads, adds and writes an output at a
// time waits for memory 32 times.

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/activation.cuh"
#include "cuda/product.h"
#include "cuda/tile.cuh"

namespace loko::cuda {

/// Where a block's tile begins.
struct Corner {
  int row, column;
};

/// The outputs that a thread moves: four columns of every eighth row.
template <int kRows>
struct Outputs {
  static constexpr int kRowStep = kTileThreads * 4 / kTileColumns;
  static constexpr int kCount = kRows / kRowStep;

  __device__ static int row(int i) {
    return static_cast<int>(threadIdx.x) / (kTileColumns / 4) + i * kRowStep;
  }
  __device__ static int column() { return static_cast<int>(threadIdx.x) % (kTileColumns / 4) * 4; }
  __device__ static float4& at(float* out, int i) {
    return *reinterpret_cast<float4*>(&out[row(i) * kOutLd + column()]);
  }
};

__device__ inline void addTo(float4& sum, const float4& value) {
  sum.x += value.x;
  sum.y += value.y;
  sum.z += value.z;
  sum.w += value.w;
}

/// One output, whatever the layout of what it meets.
__device__ inline void finish(const Epilogue& epilogue, int m, int n, float value) {
  if (epilogue.addend.present()) value += epilogue.addend[m][n];
  if (epilogue.bias != nullptr) value += epilogue.bias[n];
  if (epilogue.residual.present()) value += epilogue.residual[m][n];
  float* target = epilogue.transposed ? epilogue.target[n] + m * epilogue.columnStride
                                      : epilogue.target[m] + n * epilogue.columnStride;
  const float before = epilogue.accumulate ? *target : 0;
  if (epilogue.ofSum) value += before;
  if (epilogue.derivative.present()) {
    value = timesDerivative(epilogue.ofRelu, value, epilogue.derivative[m][n]);
  }
  if (!epilogue.ofSum && epilogue.accumulate) value += before;
  const Activated result = activate(epilogue.activation, value);
  if (epilogue.actGrad.present()) epilogue.actGrad[m][n] = result.derivative;
  *target = result.value;
}

__device__ inline bool ofVectors(const Rows& rows) {
  return rows.ld % 4 == 0 && rows.sampleStride % 4 == 0 &&
         reinterpret_cast<std::uintptr_t>(rows.data) % 16 == 0;
}

__device__ inline bool ofVectors(const Epilogue& epilogue, int n) {
  return n % 4 == 0 && !epilogue.transposed && epilogue.columnStride == 1 &&
         reinterpret_cast<std::uintptr_t>(epilogue.bias) % 16 == 0 && ofVectors(epilogue.target) &&
         ofVectors(epilogue.addend) && ofVectors(epilogue.residual) &&
         ofVectors(epilogue.actGrad) && ofVectors(epilogue.derivative);
}

/// The outputs of a thread before the activation.
template <int kRows>
class Sums {
 public:
  using Mine = Outputs<kRows>;

  __device__ Sums(float* out, const Corner& corner, int m, int n)
      : row_(corner.row), column_(corner.column + Mine::column()), m_(m), n_(n) {
#pragma unroll
    for (int i = 0; i < Mine::kCount; ++i) values_[i] = Mine::at(out, i);
  }

  __device__ bool exists(int i) const {
    return row_ + Mine::row(i) < m_ && column_ < n_;
  }
  __device__ float4& operator[](int i) {
    return values_[i];
  }
  __device__ float4& of(const Rows& rows, int i) const {
    return *reinterpret_cast<float4*>(rows[row_ + Mine::row(i)] + column_);
  }

  __device__ void addBias(const float* bias) {
    if (bias == nullptr || column_ >= n_) return;
    const float4 value = *reinterpret_cast<const float4*>(bias + column_);
#pragma unroll
    for (int i = 0; i < Mine::kCount; ++i) addTo(values_[i], value);
  }

  /// with(sum, what lies there in `rows`).
  template <class With>
  __device__ void combine(const Rows& rows, const With& with) {
    if (!rows.present()) return;
    float4 others[Mine::kCount];
#pragma unroll
    for (int i = 0; i < Mine::kCount; ++i) {
      others[i] = exists(i) ? of(rows, i) : make_float4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < Mine::kCount; ++i) with(values_[i], others[i]);
  }

 private:
  int row_, column_, m_, n_;
  float4 values_[Mine::kCount];
};

/// As finish(), for all outputs of a tile.
template <int kRows>
__device__ void finishVectors(const Epilogue& epilogue, int m, int n, const Corner& corner,
                              float* out) {
  using Mine = Outputs<kRows>;
  Sums<kRows> sums(out, corner, m, n);
  sums.combine(epilogue.addend, addTo);
  sums.addBias(epilogue.bias);
  sums.combine(epilogue.residual, addTo);
  if (epilogue.accumulate && epilogue.ofSum) sums.combine(epilogue.target, addTo);
  sums.combine(epilogue.derivative, [&](float4& sum, const float4& factor) {
    sum.x = timesDerivative(epilogue.ofRelu, sum.x, factor.x);
    sum.y = timesDerivative(epilogue.ofRelu, sum.y, factor.y);
    sum.z = timesDerivative(epilogue.ofRelu, sum.z, factor.z);
    sum.w = timesDerivative(epilogue.ofRelu, sum.w, factor.w);
  });
  if (epilogue.accumulate && !epilogue.ofSum) sums.combine(epilogue.target, addTo);
  if (epilogue.activation == Activation::kNone && !epilogue.actGrad.present()) {
#pragma unroll
    for (int i = 0; i < Mine::kCount; ++i) {
      if (sums.exists(i)) sums.of(epilogue.target, i) = sums[i];
    }
    return;
  }
  // By way of shared memory, since registers have no index and the activations are long code.
#pragma unroll
  for (int i = 0; i < Mine::kCount; ++i) Mine::at(out, i) = sums[i];
#pragma unroll 1
  for (int i = 0; i < Mine::kCount; ++i) {
    if (!sums.exists(i)) continue;
    const float4 sum = Mine::at(out, i);
    const Activated a = activate(epilogue.activation, sum.x);
    const Activated b = activate(epilogue.activation, sum.y);
    const Activated c = activate(epilogue.activation, sum.z);
    const Activated d = activate(epilogue.activation, sum.w);
    sums.of(epilogue.target, i) = make_float4(a.value, b.value, c.value, d.value);
    if (epilogue.actGrad.present()) {
      sums.of(epilogue.actGrad, i) =
          make_float4(a.derivative, b.derivative, c.derivative, d.derivative);
    }
  }
}

/// `out`: the sums of the tile, complete and visible to the block.
template <int kRows>
__device__ void finishTile(const Epilogue& epilogue, int m, int n, const Corner& corner,
                           float* out) {
  if (ofVectors(epilogue, n)) {
    finishVectors<kRows>(epilogue, m, n, corner, out);
    return;
  }
  for (int e = threadIdx.x; e < kRows * kTileColumns; e += kTileThreads) {
    const int i = epilogue.transposed ? e % kRows : e / kTileColumns;
    const int j = epilogue.transposed ? e / kRows : e % kTileColumns;
    const int row = corner.row + i, column = corner.column + j;
    if (row < m && column < n) finish(epilogue, row, column, out[i * kOutLd + j]);
  }
}

}  // namespace loko::cuda
