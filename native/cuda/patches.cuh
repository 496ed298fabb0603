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
  using Parts = Vectors<false, kExtent>;

  __device__ FetchPatches(const Operand& operand, const Patches& patches, int base, int end)
      : operand_(operand), patches_(patches), base_(base), end_(end) {}

  __device__ void load(int k, int depth) {
    const bool whole = patches_.channels % 4 == 0;  // a vector lies in one tap
#pragma unroll
    for (int i = 0; i < Parts::kCount; ++i) {
      const int at = k + Parts::depthOf(i), index = base_ + Parts::extentOf(i);
      float4& value = parts_.values[i];
      if (index >= end_ || at >= depth) {
        value = make_float4(0, 0, 0, 0);
      } else if (whole) {
        value =
            fetchFrom(operand_, pixel(index, at / patches_.channels), at % patches_.channels, 4);
      } else {
        value = make_float4(element(index, at, depth), element(index, at + 1, depth),
                            element(index, at + 2, depth), element(index, at + 3, depth));
      }
    }
  }

  template <class Set>
  __device__ void each(Set set) const {
    parts_.each(set);
  }

 private:
  __device__ const char* pixel(int index, int tap) const {
    const int pixels = kOfCotangent ? patches_.window.input.height * patches_.window.input.width
                                    : patches_.window.output.height * patches_.window.output.width;
    const int sample = index / pixels, here = index % pixels;
    const int there = kOfCotangent ? outputOfTap(patches_.window, here, tap)
                                   : tapPixel(patches_.window, here, tap);
    return there < 0 ? nullptr : reinterpret_cast<const char*>(operand_.rows.at(sample, there));
  }
  __device__ float element(int index, int at, int depth) const {
    if (at >= depth) return 0;
    const char* row = pixel(index, at / patches_.channels);
    return row == nullptr ? 0 : reinterpret_cast<const float*>(row)[at % patches_.channels];
  }

  const Operand& operand_;
  const Patches& patches_;
  int base_, end_;
  Parts parts_;
};

/// The weights of a convolution, [out, taps * in] as forward reads them, for its cotangent: depth
/// tap * out + o, columns the input channels.
class FetchTurnedWeights {
 public:
  static constexpr bool kAcross = true;
  using Parts = Vectors<true, kTileColumns>;

  __device__ FetchTurnedWeights(const Operand& operand, const Patches& patches, int base, int end)
      : operand_(operand), patches_(patches), base_(base), end_(end) {}

  __device__ void load(int k, int depth) {
#pragma unroll
    for (int i = 0; i < Parts::kCount; ++i) {
      const int at = k + Parts::depthOf(i), column = base_ + Parts::extentOf(i);
      const int tap = at / patches_.channels, out = at % patches_.channels;
      const char* row = at < depth ? rowOf(operand_, out) : nullptr;
      parts_.values[i] =
          fetchFrom(operand_, row, std::int64_t{tap} * patches_.others + column, end_ - column);
    }
  }

  template <class Set>
  __device__ void each(Set set) const {
    parts_.each(set);
  }

 private:
  const Operand& operand_;
  const Patches& patches_;
  int base_, end_;
  Parts parts_;
};

/// The pixels that output pixels have as one of their taps, read across: depth is the output pixel.
class FetchTap {
 public:
  static constexpr bool kAcross = true;
  using Parts = Vectors<true, kTileColumns>;

  __device__ FetchTap(const Operand& operand, const Window& window, int tap, int base, int end)
      : operand_(operand), window_(window), tap_(tap), base_(base), end_(end) {}

  __device__ void load(int k, int depth) {
    const int pixels = window_.output.height * window_.output.width;
#pragma unroll
    for (int i = 0; i < Parts::kCount; ++i) {
      const int at = k + Parts::depthOf(i), column = base_ + Parts::extentOf(i);
      const int q = at < depth ? tapPixel(window_, at % pixels, tap_) : -1;
      const char* row =
          q < 0 ? nullptr : reinterpret_cast<const char*>(operand_.rows.at(at / pixels, q));
      parts_.values[i] = fetchFrom(operand_, row, column, end_ - column);
    }
  }

  template <class Set>
  __device__ void each(Set set) const {
    parts_.each(set);
  }

 private:
  const Operand& operand_;
  const Window& window_;
  int tap_, base_, end_;
  Parts parts_;
};

}  // namespace loko::cuda
