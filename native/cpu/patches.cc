#include "cpu/patches.h"

#include <algorithm>
#include <numeric>

namespace loko::cpu {

namespace {

alignas(64) const float kZeros[kMaxTileDepth] = {};

}  // namespace

PatchRows::PatchRows(const View& source, const float* base, int channels, GatherAxis y,
                     GatherAxis x)
    : base_(base),
      ld_(source.ld),
      sampleStride_(source.sampleStride),
      channels_(channels),
      y_(y),
      x_(x),
      runs_(x.tapStep == 1 && source.ld == channels) {}

PatchRows::Place PatchRows::locate(std::int64_t row) const {
  const std::int64_t pixels = std::int64_t{y_.grid} * x_.grid;
  const int pixel = static_cast<int>(row % pixels);
  return {base_ + row / pixels * sampleStride_, pixel / x_.grid * y_.step + y_.first,
          pixel % x_.grid * x_.step + x_.first};
}

void PatchRows::packTile(const Kernels& kernels, float* tile, std::int64_t row, int height, int k0,
                         int depth) const {
  const float* rows[kMaxTileRows];
  if (channels_ % kPackGroup != 0) {
    alignas(64) float patches[kMaxTileRows * kMaxTileDepth];
    for (int i = 0; i < height; ++i) {
      rows[i] = patches + i * kMaxTileDepth;
      copy(patches + i * kMaxTileDepth, row + i, k0, depth);
    }
    kernels.packRows(tile, rows, height, depth);
    return;
  }
  Place places[kMaxTileRows];
  for (int i = 0; i < height; ++i) places[i] = locate(row + i);
  for (int k = k0; k < k0 + depth;) {
    const int tap = k / channels_, channel = k % channels_;
    const int count = std::min(channels_ - channel, k0 + depth - k);
    const int down = tap / x_.taps * y_.tapStep, across = tap % x_.taps * x_.tapStep;
    for (int i = 0; i < height; ++i) {
      const int y = places[i].y + down, x = places[i].x + across;
      rows[i] = inside(y, x) ? pixel(places[i], y, x) + channel : kZeros;
    }
    kernels.packRows(tile, rows, height, count);
    tile += std::ptrdiff_t{height} * count;
    k += count;
  }
}

void PatchRows::copy(float* out, std::int64_t row, int k0, int depth) const {
  const Place place = locate(row);
  const int rowOfTaps = x_.taps * channels_;
  for (int k = k0; k < k0 + depth;) {
    const int y = place.y + k / rowOfTaps * y_.tapStep;
    const int inRow = k % rowOfTaps;
    const bool outside = y < 0 || y >= y_.source;
    int count;
    if (runs_ || outside) {
      count = std::min(rowOfTaps - inRow, k0 + depth - k);
      const std::int64_t begin = std::int64_t{place.x} * channels_ + inRow;
      const std::int64_t end = outside ? 0 : std::int64_t{x_.source} * channels_;
      const int from = static_cast<int>(std::clamp<std::int64_t>(-begin, 0, count));
      const int to = static_cast<int>(std::clamp<std::int64_t>(end - begin, from, count));
      std::fill_n(out, from, 0.0f);
      if (to > from) std::copy_n(pixel(place, y, 0) + begin + from, to - from, out + from);
      std::fill_n(out + to, count - to, 0.0f);
    } else {
      const int channel = inRow % channels_, x = place.x + inRow / channels_ * x_.tapStep;
      count = std::min(channels_ - channel, k0 + depth - k);
      if (inside(y, x)) {
        std::copy_n(pixel(place, y, x) + channel, count, out);
      } else {
        std::fill_n(out, count, 0.0f);
      }
    }
    out += count;
    k += count;
  }
}

PatchRows patchesOf(const Window& window, const View& x, const float* base, int channels) {
  const GatherAxis down{window.input.height,    window.output.height, window.stride.height,
                        -window.padding.height, window.kernel.height, window.dilation.height};
  const GatherAxis across{window.input.width,    window.output.width, window.stride.width,
                          -window.padding.width, window.kernel.width, window.dilation.width};
  return PatchRows(x, base, channels, down, across);
}

// Tap k reaches position y where y + padding - k * dilation is a multiple of the stride. The taps that do
// are evenly spaced, and so are the outputs they come from.
PhaseAxis phaseAxis(int phase, int input, int output, int kernel, int stride, int padding,
                    int dilation) {
  PhaseAxis axis;
  axis.phase = phase;
  axis.pixels = (input - phase + stride - 1) / stride;
  axis.tapStride = stride / std::gcd(stride, dilation);
  while (axis.firstTap < std::min(kernel, axis.tapStride) &&
         (phase + padding - axis.firstTap * dilation) % stride != 0) {
    ++axis.firstTap;
  }
  if (axis.firstTap < std::min(kernel, axis.tapStride)) {
    axis.taps = (kernel - axis.firstTap + axis.tapStride - 1) / axis.tapStride;
  }
  axis.gather.source = output;
  axis.gather.grid = axis.pixels;
  axis.gather.first = (phase + padding - axis.firstTap * dilation) / stride;
  axis.gather.taps = axis.taps;
  axis.gather.tapStep = -axis.tapStride * dilation / stride;
  return axis;
}

TransposedTaps::Block TransposedTaps::blockAt(int k, int end, int n) const {
  const int out = packed_.n(), tap = k / out, column = k % out;
  const int ky = y_.firstTap + tap / x_.taps * y_.tapStride;
  const int kx = x_.firstTap + tap % x_.taps * x_.tapStride;
  const int count = std::min({out - column, end - k, kPanelColumns - column % kPanelColumns});
  return {packed_.panel((ky * kernelWidth_ + kx) * channels_ + n, column),
          packed_.panelColumns(column), count};
}

// Neighbouring blocks are a whole panel of the packed matrix apart, out of sight of the hardware's
// prefetchers: each block asks for the lines of the next one.
void TransposedTaps::fillPanel(const Kernels& kernels, float* panel, int width, int n, int columns,
                               int k0, int depth) const {
  const int end = k0 + depth;
  Block block = k0 < end ? blockAt(k0, end, n) : Block{};
  for (int k = k0; k < end;) {
    const Block next = k + block.count < end ? blockAt(k + block.count, end, n) : Block{};
    const float* rows[kPanelColumns];
    for (int j = 0; j < columns; ++j) {
      rows[j] = block.data + std::ptrdiff_t{j} * block.ld;
      const float* ahead = next.data + std::ptrdiff_t{j} * next.ld;
      for (int line = 0; line < next.count; line += kPackGroup) __builtin_prefetch(ahead + line);
    }
    kernels.transposeBlock(panel, width, rows, columns, block.count, width);
    panel += std::ptrdiff_t{width} * block.count;
    k += block.count;
    block = next;
  }
}

}  // namespace loko::cpu
