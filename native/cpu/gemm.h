// Single-precision matrix product with everything a plan step fuses into it:
//   C[M, N] = epilogue(alpha * A[M, K] * B[K, N] + U[M, R] * V[R, N])
//
// Row-major throughout. Only constructors allocate. C must not overlap A, B, U or V.
//
// Determinism: an element of C is computed by the same operations in the same order for every
// number of threads and for every M. Folding segments into one call or splitting them gives the
// same bits. Results differ between instruction sets.
#pragma once

#include <climits>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/kernels.h"

namespace loko::cpu {

class ThreadPool;

// A matrix whose rows come in equally spaced blocks: row i starts at
//   base + (i / blockRows) * blockStride + (i % blockRows) * ld.
template <typename T>
struct BasicRowMap {
  T* base = nullptr;
  std::ptrdiff_t ld = 0;
  int blockRows = INT_MAX;
  std::ptrdiff_t blockStride = 0;

  T* row(std::int64_t i) const {
    if (i < blockRows) return base + i * ld;
    return base + (i / blockRows) * blockStride + (i % blockRows) * ld;
  }
  explicit operator bool() const { return base != nullptr; }
};

using RowMap = BasicRowMap<const float>;
using MutableRowMap = BasicRowMap<float>;

struct FreeAligned {
  void operator()(float* p) const;
};
using AlignedFloats = std::unique_ptr<float[], FreeAligned>;
AlignedFloats allocateAligned(std::size_t count);  // 64-byte aligned, zeroed

enum class WeightLayout {
  kNK,  // source[n * ld + k]: a checkpoint's weight [out, in] used as y = x W^T (N = out, K = in)
  kKN,  // source[k * ld + n]: the same weight used as dx = dy W               (K = out, N = in)
};

// A B operand packed once: panels of 32 columns, each [K][32] (the last one [K][16] when 16 columns
// or fewer are left), zero-padded. The format is the same for all instruction sets.
class PackedMatrix {
 public:
  PackedMatrix() = default;
  PackedMatrix(int k, int n);                 // owns its memory
  PackedMatrix(int k, int n, float* memory);  // memory: floatCount(k, n) floats, 64-byte aligned
  // Memory that holds a packed matrix already; zeros are one.
  static PackedMatrix view(int k, int n, float* packed);
  static std::size_t floatCount(int k, int n);

  // Packs rows [kBegin, kBegin + kCount) x columns [nBegin, nBegin + nCount) from a source that
  // starts at that corner, so that several weights can share one matrix (q, k, v). The constructors
  // zero the rest.
  void pack(const float* source, std::ptrdiff_t ld, WeightLayout layout, int kBegin, int kCount,
            int nBegin, int nCount);
  void pack(const float* source, std::ptrdiff_t ld, WeightLayout layout) {
    pack(source, ld, layout, 0, k_, 0, n_);
  }

  float get(int k, int n) const { return data_[offset(k, n)]; }
  void set(int k, int n, float value) { data_[offset(k, n)] = value; }
  // Panel n / 32 of the transposed matrix [N, K], in this format and at its place in `target`, which has
  // floatCount(n(), k()) floats. Panels may be written from several threads.
  void transposePanelTo(const Kernels& kernels, int n, float* target) const;
  // Writes the whole matrix back in the given layout.
  void unpackTo(float* destination, std::ptrdiff_t ld, WeightLayout layout) const;

  int k() const { return k_; }
  int n() const { return n_; }
  // Start of column n (a multiple of 32) at row k, and the distance between rows there.
  const float* panel(int k, int n) const { return data_ + offset(k, n); }
  float* panel(int k, int n) { return data_ + offset(k, n); }
  int panelColumns(int n) const {
    const int left = n_ - n / kPanelColumns * kPanelColumns;
    return left <= kNarrowPanelColumns ? kNarrowPanelColumns : kPanelColumns;
  }

 private:
  std::size_t offset(int k, int n) const {
    return static_cast<std::size_t>(n / kPanelColumns * kPanelColumns) *
               static_cast<std::size_t>(k_) +
           static_cast<std::size_t>(k) * static_cast<std::size_t>(panelColumns(n)) +
           static_cast<std::size_t>(n % kPanelColumns);
  }
  AlignedFloats owned_;
  float* data_ = nullptr;
  int k_ = 0;
  int n_ = 0;
};

// One block of V: rows [rowBegin, rowEnd) x columns [columnBegin, columnEnd) hold scale * W.
struct TailSite {
  const float* source = nullptr;  // at the block's corner
  std::ptrdiff_t ld = 0;
  WeightLayout layout = WeightLayout::kNK;  // kNK: LoRA B [out, r]; kKN: LoRA A [r, in]
  int rowBegin = 0;
  int rowEnd = 0;
  int columnBegin = 0;
  int columnEnd = 0;
  float scale = 1.0f;
};

constexpr int kMaxTailSites = 8;

// V[R, N] of the low-rank tail, rebuilt every step. Each panel remembers the range of rows that any
// site touches; the rest is skipped. Sites that share an element add up.
class PackedTail {
 public:
  PackedTail() = default;
  PackedTail(int rank, int n);                 // owns its memory
  PackedTail(int rank, int n, float* memory);  // floatCount(rank, n) floats, 64-byte aligned
  static std::size_t floatCount(int rank, int n);
  void pack(const TailSite* sites, int count);  // does not allocate

  struct Range {
    int begin = 0;
    int end = 0;
  };
  const PackedMatrix& matrix() const { return matrix_; }
  Range range(int n) const { return ranges_[static_cast<std::size_t>(n / kPanelColumns)]; }
  int rank() const { return matrix_.k(); }
  int n() const { return matrix_.n(); }

 private:
  void packPanel(const TailSite* sites, int count, int n0);

  PackedMatrix matrix_;
  std::vector<Range> ranges_;
};

constexpr int kMaxTileDepth = 768;  // of one packed tile of A

// An A whose rows are put together while they are packed: the patches of a convolution.
class TileSource {
 public:
  // Rows [row, row + height) x columns [k0, k0 + depth), as Kernels::packRows lays them out.
  virtual void packTile(const Kernels& kernels, float* tile, std::int64_t row, int height, int k0,
                        int depth) const = 0;

 protected:
  ~TileSource() = default;
};

// A B that is put together panel by panel: the kernel of a convolution seen from its output.
class PanelSource {
 public:
  // panel[k * width + j] for k < depth and columns j < width, of which `columns` exist; zero beyond.
  virtual void fillPanel(const Kernels& kernels, float* panel, int width, int n, int columns,
                         int k0, int depth) const = 0;

 protected:
  ~PanelSource() = default;
};

// A[m, k]. Normal: rows.row(m)[k]. Transposed: rows.row(k)[(m / columnBlock) * columnBlockStride +
// m % columnBlock]; the column blocks let the segments of a cotangent buffer [s][t][j] be read as
// the (s, j) x t matrix of a weight gradient (columnBlock = j's extent, stride = t's times ld).
struct AOperand {
  RowMap rows;
  bool transposed = false;
  int columnBlock = INT_MAX;
  std::ptrdiff_t columnBlockStride = 0;
  const TileSource* source = nullptr;  // in place of all others
};

// B[k, n]: either packed (a sub-block starting at kBegin, nBegin; nBegin a multiple of 32), or an
// activation read in place: data[k * ld + n], or data[n * ld + k] when transposed. A packed matrix
// that is read transposed is B^T [N, K], whole: one copy of a frozen weight serves y = x W^T and
// dx = dy W.
struct BOperand {
  const PackedMatrix* packed = nullptr;
  int kBegin = 0;
  int nBegin = 0;
  const float* data = nullptr;
  std::ptrdiff_t ld = 0;
  bool transposed = false;
  const PanelSource* source = nullptr;  // in place of all others
};

// Per element, in this order:
//   z = alpha * (A B) + U V
//   z *= multiplier row i % multiplierPeriod
//   z += bias;  z += residual;  z += C when accumulate
//   C = activation(z);  derivative = activation'(z) when given
// residual may be C itself. multiplierPeriod = 0 means row i. `multiplySum` moves the multiplication
// behind the additions; `multiplierOfRelu` multiplies by 1 where the multiplier is positive and else
// by 0.
struct Epilogue {
  float alpha = 1.0f;
  bool accumulate = false;
  Activation activation = Activation::kNone;
  const float* bias = nullptr;  // [N]
  RowMap residual;
  RowMap multiplier;
  int multiplierPeriod = 0;
  bool multiplierOfRelu = false;
  bool multiplySum = false;
  MutableRowMap derivative;
};

struct GemmArgs {
  std::int64_t m = 0;
  int n = 0;
  int k = 0;  // 0 is allowed: only the tail and the epilogue act
  AOperand a;
  BOperand b;
  MutableRowMap c;
  RowMap tailU;  // [M, R]; used when tailV is set
  const PackedTail* tailV = nullptr;
  int tailNBegin = 0;  // first column of V used, a multiple of 32
  Epilogue epilogue;
};

// Whether products with a packed matrix [K, N] or [N, K], or with parts of it that are whole strips, are split
// into bfloat16 parts (gemm_split.cc). It depends on shapes other than m only, so that bits do not depend on m.
bool isSplit(const Kernels& kernels, int k, int n);

// Whether a product with the transpose of this matrix gives the same bits as one with the transposed
// matrix: not where a last panel of 16 columns or fewer makes a block of K of its own, and not where both
// are split, which the transpose does not make faster.
bool transposesExactly(const Kernels& kernels, const PackedMatrix& matrix);

// Scratch that one thread needs, 64-byte aligned, for any operands of these extents (rank: tail's R,
// or 0). It never shrinks when an extent grows.
std::size_t gemmScratchBytes(const Kernels& kernels, std::int64_t m, int n, int k, int rank);

// On the calling thread. scratch: gemmScratchBytes(kernels, m, n, k, rank).
void gemm(const Kernels& kernels, const GemmArgs& args, void* scratch);

// On all threads of the pool (fewer when the product is too small to pay for waking them).
// scratch: pool.threads() * gemmScratchBytes(kernels, m, n, k, rank).
void gemm(const Kernels& kernels, ThreadPool& pool, const GemmArgs& args, void* scratch);

}  // namespace loko::cpu
