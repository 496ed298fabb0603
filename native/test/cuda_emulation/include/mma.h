#pragma once

// nvcuda::wmma for bfloat16 and TF32 factors with float32 accumulators. Lane 0 holds the whole tile
// and does all the work; the other lanes pass through without waiting, so that a result which they
// read without __syncwarp() differs between the orders of threads.
//
// A kernel may depend on x[i] for i < num_elements only as CUDA allows it: the same function applied
// to every element. A factor that was not rounded with __float_to_tf32 is truncated, as hardware does.

#include <cstdint>
#include <type_traits>

#include "cuda_bf16.h"
#include "cuda_runtime.h"

namespace loko::emulation {

/// d[m][n] = c + a[m][k] b[k][n], row-major, each sum in the order of k, starting at c.
void multiplyTile(float* d, const float* a, const float* b, const float* c, int m, int n, int k);

/// Tiles must be aligned to 32 bytes and their stride to 16 bytes.
void checkTile(const void* tile, unsigned stride, unsigned elementBytes, const Site& site);

inline float tf32Operand(float x) {
  return __uint_as_float(__float_as_uint(x) & 0xffffe000u);
}

}  // namespace loko::emulation

namespace nvcuda {
namespace wmma {

/// Rounds to 10 bits of mantissa, to nearest, ties away from zero (cvt.rna.tf32.f32).
inline float __float_to_tf32(float x) {
  const unsigned bits = __float_as_uint(x);
  if ((bits & 0x7f800000u) == 0x7f800000u) return x;
  return __uint_as_float((bits + 0x1000u) & 0xffffe000u);
}

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
namespace precision {
struct tf32 {};
}  // namespace precision
enum layout_t { mem_row_major, mem_col_major };

namespace detail {

template <typename Element>
struct Storage {
  using type = Element;
};
template <>
struct Storage<precision::tf32> {
  using type = float;
};

template <typename Use, int m, int n, int k, typename Element>
constexpr bool kSupported = std::is_same_v<Use, accumulator>
                                ? std::is_same_v<Element, float>&& m == 16 && n == 16 &&
                                      (k == 16 || k == 8)
                                : m == 16 && n == 16 &&
                                      (std::is_same_v<Element, __nv_bfloat16>
                                           ? k == 16
                                           : std::is_same_v<Element, precision::tf32> && k == 8);

}  // namespace detail

template <typename Use, int m, int n, int k, typename Element, typename Layout = void>
struct fragment {
  static_assert(detail::kSupported<Use, m, n, k, Element>, "shape or type is not emulated");
  using element_type = Element;
  using storage_element_type = typename detail::Storage<Element>::type;
  static constexpr int rows = std::is_same_v<Use, matrix_b> ? k : m;
  static constexpr int columns = std::is_same_v<Use, matrix_a> ? k : n;
  enum { num_elements = rows * columns, num_storage_elements = num_elements };
  storage_element_type x[num_elements];  // row-major
};

template <typename Use, int m, int n, int k, typename Element, typename Layout, typename Value>
void fill_fragment(fragment<Use, m, n, k, Element, Layout>& tile, const Value& value) {
  if (loko::emulation::laneIndex() != 0) return;
  for (auto& element : tile.x) element = value;
}

namespace detail {

template <typename Fragment, typename T>
void load(Fragment& tile, const T* from, unsigned stride, bool rowMajor,
          const loko::emulation::Site& site) {
  if (loko::emulation::laneIndex() != 0) return;
  loko::emulation::checkTile(from, stride, sizeof(T), site);
  for (int row = 0; row < Fragment::rows; ++row)
    for (int column = 0; column < Fragment::columns; ++column)
      tile.x[row * Fragment::columns + column] =
          from[rowMajor ? row * static_cast<std::size_t>(stride) + column
                        : column * static_cast<std::size_t>(stride) + row];
}

template <typename Fragment>
void toFloat(float* to, const Fragment& tile) {
  for (int i = 0; i < Fragment::num_elements; ++i) {
    if constexpr (std::is_same_v<typename Fragment::element_type, precision::tf32>)
      to[i] = loko::emulation::tf32Operand(tile.x[i]);
    else
      to[i] = tile.x[i];
  }
}

}  // namespace detail

template <typename Use, int m, int n, int k, typename Element, typename Layout, typename T>
void load_matrix_sync(fragment<Use, m, n, k, Element, Layout>& tile, const T* from, unsigned stride,
                      LOKO_CALL_SITE) {
  static_assert(!std::is_same_v<Use, accumulator>, "an accumulator needs its layout");
  detail::load(tile, from, stride, std::is_same_v<Layout, row_major>,
               LOKO_SITE("load_matrix_sync"));
}

template <int m, int n, int k, typename T>
void load_matrix_sync(fragment<accumulator, m, n, k, float>& tile, const T* from, unsigned stride,
                      layout_t layout, LOKO_CALL_SITE) {
  detail::load(tile, from, stride, layout == mem_row_major, LOKO_SITE("load_matrix_sync"));
}

template <int m, int n, int k>
void store_matrix_sync(float* to, const fragment<accumulator, m, n, k, float>& tile,
                       unsigned stride, layout_t layout, LOKO_CALL_SITE) {
  if (loko::emulation::laneIndex() != 0) return;
  loko::emulation::checkTile(to, stride, sizeof(float), LOKO_SITE("store_matrix_sync"));
  for (int row = 0; row < m; ++row)
    for (int column = 0; column < n; ++column)
      to[layout == mem_row_major ? row * static_cast<std::size_t>(stride) + column
                                 : column * static_cast<std::size_t>(stride) + row] =
          tile.x[row * n + column];
}

template <int m, int n, int k, typename Element, typename LayoutA, typename LayoutB>
void mma_sync(fragment<accumulator, m, n, k, float>& d,
              const fragment<matrix_a, m, n, k, Element, LayoutA>& a,
              const fragment<matrix_b, m, n, k, Element, LayoutB>& b,
              const fragment<accumulator, m, n, k, float>& c) {
  if (loko::emulation::laneIndex() != 0) return;
  float left[m * k], right[k * n];
  detail::toFloat(left, a);
  detail::toFloat(right, b);
  loko::emulation::multiplyTile(d.x, left, right, c.x, m, n, k);
}

}  // namespace wmma
}  // namespace nvcuda
