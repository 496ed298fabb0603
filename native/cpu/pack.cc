// Packed operands of gemm.h: weights packed once and the low-rank tail packed every step.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "core/status.h"
#include "cpu/gemm.h"

namespace loko::cpu {

namespace {

constexpr std::size_t kAlignment = 64;

std::size_t paddedColumns(int n) {
  const int rest = n % kPanelColumns;
  const int last = rest == 0                     ? 0
                   : rest <= kNarrowPanelColumns ? kNarrowPanelColumns
                                                 : kPanelColumns;
  return static_cast<std::size_t>(n - rest + last);
}

void checkExtents(int k, int n) {
  LOKO_CHECK(k >= 0 && n >= 0, "packed extents " + std::to_string(k) + " x " + std::to_string(n));
}

}  // namespace

void FreeAligned::operator()(float* p) const {
  ::operator delete[](p, std::align_val_t{kAlignment});
}

AlignedFloats allocateAligned(std::size_t count) {
  void* memory = ::operator new[](std::max<std::size_t>(count, 1) * sizeof(float),
                                  std::align_val_t{kAlignment}, std::nothrow);
  if (memory == nullptr)
    throw Error(ErrorCode::kOutOfMemory,
                "Could not allocate " + std::to_string(count * sizeof(float)) + " bytes");
  std::memset(memory, 0, count * sizeof(float));
  return AlignedFloats(static_cast<float*>(memory));
}

std::size_t PackedMatrix::floatCount(int k, int n) {
  checkExtents(k, n);
  return static_cast<std::size_t>(k) * paddedColumns(n);
}

PackedMatrix::PackedMatrix(int k, int n) : owned_(allocateAligned(floatCount(k, n))), k_(k), n_(n) {
  data_ = owned_.get();
}

PackedMatrix::PackedMatrix(int k, int n, float* memory) : data_(memory), k_(k), n_(n) {
  LOKO_CHECK(reinterpret_cast<std::uintptr_t>(memory) % kAlignment == 0,
             "alignment of packed memory");
  std::memset(memory, 0, floatCount(k, n) * sizeof(float));
}

PackedMatrix PackedMatrix::view(int k, int n, float* packed) {
  PackedMatrix matrix;
  matrix.data_ = packed;
  matrix.k_ = k;
  matrix.n_ = n;
  return matrix;
}

void PackedMatrix::pack(const float* source, std::ptrdiff_t ld, WeightLayout layout, int kBegin,
                        int kCount, int nBegin, int nCount) {
  LOKO_CHECK(kBegin >= 0 && kCount >= 0 && kBegin + kCount <= k_ && nBegin >= 0 && nCount >= 0 &&
                 nBegin + nCount <= n_,
             "packing outside of the matrix");
  const int nEnd = nBegin + nCount;
  for (int n0 = nBegin; n0 < nEnd;) {
    const int n1 = std::min(nEnd, (n0 / kPanelColumns + 1) * kPanelColumns);
    const int stride = panelColumns(n0);
    float* out = data_ + offset(kBegin, n0);
    if (layout == WeightLayout::kNK) {
      // Sixteen k at a time: the touched part of the panel stays in the first-level cache.
      for (int k0 = 0; k0 < kCount; k0 += kPackGroup)
        for (int n = n0; n < n1; ++n)
          for (int k = k0; k < std::min(kCount, k0 + kPackGroup); ++k)
            out[k * stride + (n - n0)] = source[(n - nBegin) * ld + k];
    } else {
      for (int k = 0; k < kCount; ++k)
        std::copy_n(source + k * ld + (n0 - nBegin), n1 - n0, out + k * stride);
    }
    n0 = n1;
  }
}

void PackedMatrix::transposePanelTo(const Kernels& kernels, int n, float* target) const {
  const int columns = std::min(kPanelColumns, k_ - n);
  const int width = columns <= kNarrowPanelColumns ? kNarrowPanelColumns : kPanelColumns;
  float* out = target + static_cast<std::ptrdiff_t>(n) * n_;
  const float* rows[kPanelColumns];
  for (int k = 0; k < n_; k += kPanelColumns) {
    for (int j = 0; j < columns; ++j) rows[j] = panel(n + j, k);
    kernels.transposeBlock(out, width, rows, columns, std::min(kPanelColumns, n_ - k), width);
    out += kPanelColumns * width;
  }
}

void PackedMatrix::unpackTo(float* destination, std::ptrdiff_t ld, WeightLayout layout) const {
  for (int n = 0; n < n_; ++n)
    for (int k = 0; k < k_; ++k)
      destination[layout == WeightLayout::kNK ? n * ld + k : k * ld + n] = get(k, n);
}

std::size_t PackedTail::floatCount(int rank, int n) {
  return PackedMatrix::floatCount(rank, n);
}

PackedTail::PackedTail(int rank, int n)
    : matrix_(rank, n),
      ranges_(static_cast<std::size_t>((n + kPanelColumns - 1) / kPanelColumns)) {}

PackedTail::PackedTail(int rank, int n, float* memory)
    : matrix_(rank, n, memory),
      ranges_(static_cast<std::size_t>((n + kPanelColumns - 1) / kPanelColumns)) {}

void PackedTail::pack(const TailSite* sites, int count) {
  LOKO_CHECK(count >= 0 && count <= kMaxTailSites, std::to_string(count) + " tail sites");
  for (int s = 0; s < count; ++s)
    LOKO_CHECK(sites[s].rowBegin >= 0 && sites[s].rowBegin <= sites[s].rowEnd &&
                   sites[s].rowEnd <= rank() && sites[s].columnBegin >= 0 &&
                   sites[s].columnBegin <= sites[s].columnEnd && sites[s].columnEnd <= n(),
               "tail site outside of the matrix");
  for (int n0 = 0; n0 < n(); n0 += kPanelColumns) packPanel(sites, count, n0);
}

void PackedTail::packPanel(const TailSite* sites, int count, int n0) {
  const int stride = matrix_.panelColumns(n0);
  float* panel = matrix_.panel(0, n0);
  Range range{rank(), 0};
  for (int s = 0; s < count; ++s) {
    if (sites[s].columnBegin >= n0 + stride || sites[s].columnEnd <= n0) continue;
    range.begin = std::min(range.begin, sites[s].rowBegin);
    range.end = std::max(range.end, sites[s].rowEnd);
  }
  if (range.begin >= range.end) range = {0, 0};
  ranges_[static_cast<std::size_t>(n0 / kPanelColumns)] = range;
  std::fill(panel + range.begin * stride, panel + range.end * stride, 0.0f);

  for (int s = 0; s < count; ++s) {
    const TailSite& site = sites[s];
    const int n1 = std::max(n0, site.columnBegin);
    const int n2 = std::min(n0 + stride, site.columnEnd);
    const bool nk = site.layout == WeightLayout::kNK;
    for (int r = site.rowBegin; r < site.rowEnd; ++r) {
      float* row = panel + r * stride;
      const std::ptrdiff_t k = r - site.rowBegin;
      const float* source = nk ? site.source + k : site.source + k * site.ld;
      const std::ptrdiff_t step = nk ? site.ld : 1;
      for (int n = n1; n < n2; ++n)
        row[n - n0] += site.scale * source[(n - site.columnBegin) * step];
    }
  }
}

}  // namespace loko::cpu
