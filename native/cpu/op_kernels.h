// The kernels of the operations other than the matrix product, one table per instruction set. Plain
// data only, for the reason that kernels.h gives.
#pragma once

#include <cstddef>
#include <cstdint>

namespace loko::cpu {

// One row: xhat = (x - mean) * rstd, y = xhat * gamma + beta. xhat and rstd may be null.
struct LayerNormRow {
  const float* x;
  const float* gamma;
  const float* beta;
  float* y;
  float* xhat;
  float* rstd;
  int columns;
  float eps;
};

// One row: dx (+)= rstd * (g - mean(g) - xhat * mean(g * xhat)), g = dy * gamma.
struct LayerNormBackwardRow {
  const float* dy;
  const float* gamma;
  const float* xhat;
  float* dx;
  float rstd;
  int columns;
  bool accumulate;
};

// out[i * rightRows + j] = sum over columns of left[i] * weights * right[j]; weights null: ones.
struct GramBlock {
  const float* left;  // row i at left + i * ld
  const float* right;
  std::ptrdiff_t ld;
  const float* weights;
  int columns;
  int leftRows;  // 1 .. OpKernels::gramBlockRows
  int rightRows;
  float* out;
};

// theta += p * step where step is not zero; p <- p (1 - p q), or p / (1 + p q) when variational;
// then at least floor. A zero step and a zero q leave theta and p as they are, to the bit.
struct KalmanColumns {
  float* theta;
  float* p;
  const float* step;
  const float* q;
  std::int64_t n;
  float floor;
  bool variational;
};

// A tile of the cotangent of attention scores: dS = P * (tile - rowSums), tile = dO v^T, written twice,
// for the products that have it on the left and on the right. Both have room for whole vectors.
struct ScoreCotangent {
  const float* tile;  // rows x columns, `stride` apart
  int stride;
  int rows;
  int columns;
  const float* rowSums;  // of the tile's rows
  const float* probs;    // at the tile's corner
  std::ptrdiff_t probsLd;
  float* packed;  // column c of row i at (c / 16) * rows * 16 + i * 16 + c % 16
  float* plain;   // at the tile's corner
  std::ptrdiff_t plainLd;
};

// One row of a batch norm: z = scale * x + shift.
struct BatchNormRow {
  const float* x;
  const float* scale;
  const float* shift;
  int columns;
  bool relu;
};

constexpr int kMaxGramBlockRows = 5;

struct OpKernels {
  void (*layerNorm)(const LayerNormRow&);
  void (*layerNormBackward)(const LayerNormBackwardRow&);
  void (*softmax)(float* row, int n);                          // in place
  void (*multiply)(float* y, const float* x, std::int64_t n);  // y *= x

  void (*maskPositive)(float* y, const float* x, std::int64_t n);  // y = x > 0 ? y : 0
  void (*batchNorm)(const BatchNormRow&, float* y);                // y = z, or relu(z)
  // dx (+)= scale * dy, or 0 where relu and z is not positive.
  void (*batchNormBackward)(const BatchNormRow&, const float* dy, float* dx, bool accumulate);
  // Where x > best, or x is NaN: best = x and, unless index is null, index = tap.
  void (*maxUpdate)(float* best, float* index, const float* x, float tap, int n);
  // dx += dy where index == tap.
  void (*addWhereEqual)(float* dx, const float* dy, const float* index, float tap, int n);

  void (*scoreCotangent)(const ScoreCotangent&);
  // out[i] = sum over j < columns of x[i * ldx + j] * y[i * ldy + j], for i < rows.
  void (*rowDots)(float* out, const float* x, std::ptrdiff_t ldx, const float* y,
                  std::ptrdiff_t ldy, int rows, int columns);
  // dst[i * ld + j] (+)= src[i * stride + j] for i < rows, j < columns.
  void (*storeTile)(float* dst, std::ptrdiff_t ld, const float* src, int stride, int rows,
                    int columns, bool accumulate);
  // dst[j * ld + i] (+)= src[i * stride + j] for i < rows, j < columns.
  void (*storeTransposed)(float* dst, std::ptrdiff_t ld, const float* src, std::ptrdiff_t stride,
                          int rows, int columns, bool accumulate);

  int gramBlockRows;  // rows whose products fit the registers, at most kMaxGramBlockRows
  void (*gramBlock)(const GramBlock&);

  // q[j] += sum over i < rows of tile[i * stride + j]^2 for j < columns.
  void (*addSquares)(float* q, const float* tile, int stride, int rows, int columns);
  std::int64_t (*kalmanColumns)(const KalmanColumns&);  // returns how many the floor caught
};

extern const OpKernels kGenericOpKernels;
#if defined(__x86_64__)
extern const OpKernels kAvx2OpKernels;
extern const OpKernels kAvx512OpKernels;
#endif

}  // namespace loko::cpu
