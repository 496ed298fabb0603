#pragma once

// The operands of a convolution as a matrix product: A is gathered while it is packed, so that the matrix
// of all patches (kernel height x width times the image) never exists.

#include "core/op_image.h"
#include "cpu/gemm.h"

namespace loko::cpu {

/// One side of a gather: tap t of grid position i is source position i * step + first + t * tapStep.
struct GatherAxis {
  int source = 1, grid = 1;
  int step = 1, first = 0;
  int taps = 1, tapStep = 1;
};

/// Row (sample, i, j) of a grid, columns (tap row, tap column, channel) of what the taps meet in the source;
/// zero outside.
class PatchRows final : public TileSource {
 public:
  /// `base`: the first of `channels` channels of pixel 0 of sample 0 of `source`.
  PatchRows(const View& source, const float* base, int channels, GatherAxis y, GatherAxis x);

  void packTile(const Kernels& kernels, float* tile, std::int64_t row, int height, int k0,
                int depth) const override;
  /// Columns [k0, k0 + depth) of one row.
  void copy(float* out, std::int64_t row, int k0, int depth) const;

 private:
  struct Place {
    const float* sample;
    int y, x;  // source position of tap (0, 0)
  };
  Place locate(std::int64_t row) const;
  bool inside(int y, int x) const { return y >= 0 && y < y_.source && x >= 0 && x < x_.source; }
  const float* pixel(const Place& place, int y, int x) const {
    return place.sample + (std::int64_t{y} * x_.source + x) * ld_;
  }

  const float* base_;
  std::ptrdiff_t ld_, sampleStride_;
  int channels_;
  GatherAxis y_, x_;
  bool runs_;  // a row of taps is one piece of memory
};

/// The patches of forward: what the kernel of `window` meets, for `channels` channels from `base` on.
PatchRows patchesOf(const Window& window, const View& x, const float* base, int channels);

/// One phase of the way back: the input pixels at (phase + i * stride), and the taps that reach them.
struct PhaseAxis {
  int phase = 0, pixels = 0;                  // input positions phase, phase + stride, ...
  int firstTap = 0, tapStride = 1, taps = 0;  // of the kernel
  GatherAxis gather;                          // over the output
};
PhaseAxis phaseAxis(int phase, int input, int output, int kernel, int stride, int padding,
                    int dilation);

/// W of a convolution as B[(tap, out), in] of one phase, transposed block by block out of the matrix that
/// forward uses, B[(tap, in), out].
class TransposedTaps final : public PanelSource {
 public:
  TransposedTaps(const PackedMatrix& packed, int channels, int kernelWidth, const PhaseAxis& y,
                 const PhaseAxis& x)
      : packed_(packed), channels_(channels), kernelWidth_(kernelWidth), y_(y), x_(x) {}

  void fillPanel(const Kernels& kernels, float* panel, int width, int n, int columns, int k0,
                 int depth) const override;

 private:
  /// Up to 32 columns of the packed matrix that lie together, from the row of input n on.
  struct Block {
    const float* data = nullptr;
    int ld = 0, count = 0;
  };
  Block blockAt(int k, int end, int n) const;

  const PackedMatrix& packed_;
  int channels_, kernelWidth_;
  PhaseAxis y_, x_;
};

}  // namespace loko::cpu
