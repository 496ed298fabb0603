#pragma once

// Operands of convolutions, gathered while a tile is loaded: the matrix of patches, kernel size times the
// image, never exists.

#include "cuda/fetch.cuh"
#include "cuda/window.cuh"

namespace loko::cuda {

/// Depth tap * channels + c of the patch of a pixel: of the output, from the input (a convolution), or of the
/// input, from the output (its cotangent).
template <int kExtent, bool kOfCotangent>
class FetchPatches {
 public:
  static constexpr bool kAcross = false;
  static constexpr bool kWhole = false;
  using Parts = Vectors<false, kExtent>;

  __device__ FetchPatches(const Operand& operand, const Patches& patches, int base, int end)
      : operand_(operand), patches_(patches), base_(base), end_(end) {}

  template <bool>
  __device__ Parts load(int k, int depth) const {
    Parts parts;
    const bool whole = patches_.channels % 4 == 0;  // a vector lies in one tap
#pragma unroll
    for (int i = 0; i < Parts::kCount; ++i) {
      const int at = k + Parts::depthOf(i), index = base_ + Parts::extentOf(i);
      Packed<false>& vector = parts.packed[i];
      if (index >= end_ || at >= depth) {
        vector = Packed<false>::zero();
      } else if (whole) {
        const float* row = pixel(index, at / patches_.channels);
        if (row != nullptr) row += at % patches_.channels;
        vector = fetchVector<false>(row, 4, operand_.aligned);
      } else {
        vector = {make_float4(element(index, at, depth), element(index, at + 1, depth),
                              element(index, at + 2, depth), element(index, at + 3, depth))};
      }
    }
    return parts;
  }

 private:
  __device__ const float* pixel(int index, int tap) const {
    const int pixels = kOfCotangent ? patches_.window.input.height * patches_.window.input.width
                                    : patches_.window.output.height * patches_.window.output.width;
    const int sample = index / pixels, here = index % pixels;
    const int there = kOfCotangent ? outputOfTap(patches_.window, here, tap)
                                   : tapPixel(patches_.window, here, tap);
    return there < 0 ? nullptr : operand_.rows.at(sample, there);
  }
  __device__ float element(int index, int at, int depth) const {
    if (at >= depth) return 0;
    const float* row = pixel(index, at / patches_.channels);
    return row == nullptr ? 0 : row[at % patches_.channels];
  }

  const Operand& operand_;
  const Patches& patches_;
  int base_, end_;
};

/// The weights of a convolution, [out, taps * in] as forward reads them, for its cotangent: depth
/// tap * out + o, columns the input channels.
template <bool kHalf>
class FetchTurnedWeights {
 public:
  static constexpr bool kAcross = true;
  static constexpr bool kWhole = false;
  using Parts = Vectors<true, kTileColumns, kHalf>;

  __device__ FetchTurnedWeights(const Operand& operand, const Patches& patches, int base, int end)
      : operand_(operand), patches_(patches), base_(base), end_(end) {}

  template <bool>
  __device__ Parts load(int k, int depth) const {
    Parts parts;
#pragma unroll
    for (int i = 0; i < Parts::kCount; ++i) {
      const int at = k + Parts::depthOf(i), column = base_ + Parts::extentOf(i);
      const int tap = at / patches_.channels, out = at % patches_.channels;
      const auto* start =
          at >= depth ? nullptr
                      : rowOf<kHalf>(operand_, out) + std::int64_t{tap} * patches_.others + column;
      parts.packed[i] = fetchVector<kHalf>(start, end_ - column, operand_.aligned);
    }
    return parts;
  }

 private:
  const Operand& operand_;
  const Patches& patches_;
  int base_, end_;
};

/// The pixels that output pixels have as one of their taps, read across: depth is the output pixel.
class FetchTap {
 public:
  static constexpr bool kAcross = true;
  static constexpr bool kWhole = false;
  using Parts = Vectors<true, kTileColumns>;

  __device__ FetchTap(const Operand& operand, const Window& window, int tap, int base, int end)
      : operand_(operand), window_(window), tap_(tap), base_(base), end_(end) {}

  template <bool>
  __device__ Parts load(int k, int depth) const {
    Parts parts;
    const int pixels = window_.output.height * window_.output.width;
#pragma unroll
    for (int i = 0; i < Parts::kCount; ++i) {
      const int at = k + Parts::depthOf(i), column = base_ + Parts::extentOf(i);
      const int q = at < depth ? tapPixel(window_, at % pixels, tap_) : -1;
      const float* start = q < 0 ? nullptr : operand_.rows.at(at / pixels, q) + column;
      parts.packed[i] = fetchVector<false>(start, end_ - column, operand_.aligned);
    }
    return parts;
  }

 private:
  const Operand& operand_;
  const Window& window_;
  int tap_, base_, end_;
};

}  // namespace loko::cuda
