#pragma once

// The operations of convolutional nets. Pixels are rows in the order of an image, channels are columns
// (NHWC): pixel (y, x) is row y * width + x.

#include <vector>

#include "core/activation.h"
#include "core/view.h"

namespace loko {

struct Extent {
  int height = 1, width = 1;
  int pixels() const { return height * width; }
};

/// How a kernel moves over an image: tap (ky, kx) of output pixel (y, x) is input pixel
/// (y * stride.height - padding.height + ky * dilation.height, the same across), where there is one.
struct Window {
  Extent input, output;
  Extent kernel, stride, padding{0, 0}, dilation;

  int taps() const { return kernel.pixels(); }
  /// Each output pixel sees the input pixel of its own number and no other.
  bool pointwise() const {
    return taps() == 1 && stride.pixels() == 1 && padding.height == 0 && padding.width == 0;
  }
};

/// The derivative of an activation as forward left it, shared by all segments of a sample.
struct FoldedDerivative {
  View factor;
  /// `factor` is the output of a ReLU, whose derivative is 1 where that is positive and else 0: nothing
  /// is stored for it.
  bool ofRelu = false;
  /// Multiplies what was accumulated before, too: every term of the cotangent has come.
  bool ofSum = false;

  bool present() const { return factor.present(); }
};

// ---- forward ----------------------------------------------------------------------------------

/// h[:, site columns] = conv(x, A) for every site, over all channels of x. h [B, output pixels, sum of
/// ranks].
struct ConvLoraDown {
  View x, h;
  Window window;
  std::vector<LoraSite> sites;
};

/// z = conv(x, W) + bias + sum over sites of scale h B^T + residual; y = act(z); actGrad = act'(z) when
/// present. weights[g] is [out / groups, taps * in / groups] with (ky, kx, channel) along a row; group g
/// reads and writes the g-th of `groups` equal ranges of columns.
struct Conv2d {
  View x, y;
  Window window;
  std::vector<WeightId> weights;  // one for each group
  WeightId bias = kNoWeight;
  View residual;
  Activation activation = Activation::kNone;
  View actGrad;
  View h;
  std::vector<LoraSite> sites;

  int groups() const { return static_cast<int>(weights.size()); }
};

/// y = scale * x + shift for each column, then ReLU where `relu`.
struct BatchNorm {
  View x, y;
  WeightId scale = kNoWeight, shift = kNoWeight;
  bool relu = false;
};

/// y = the largest of the taps inside the image; index, where present, is the number ky * kernel.width +
/// kx of the first tap that holds it (of a NaN, the last).
struct MaxPool {
  View x, y, index;
  Window window;
};

/// y = the sum of the taps inside the image over their number, where countIncludePad that of the taps
/// inside the image and its padding.
struct AvgPool {
  View x, y;
  Window window;
  bool countIncludePad = true;
};

/// y [B, 1, cols] = the mean of the rows from `skip` on.
struct MeanRows {
  View x, y;
  int skip = 0;
};

/// dst[b] = src[b], as a range of columns of a concatenation that could not be placed without a copy.
struct CopyRows {
  View src, dst;
};

/// y [B, 1, cols * rows] = the transpose of x [B, rows, cols]: the order (channel, y, x) of a planar image.
struct Flatten {
  View x, y;
};

// ---- backward ---------------------------------------------------------------------------------

/// u = scale dy B for every site, and the parameter blocks of the Jacobian: dB[seg] = scale dy^T h ->
/// [out, rank] at site.b, dA[seg] -> [rank, in, kh, kw] at site.a.
///
/// spread [segments, input pixels, taps * columns of u], where present, receives what each input pixel
/// meets: column t * (columns of u) + r of pixel q is u[p, r] of the output pixel p that has q as its tap
/// t, or 0. It turns dA into one product with x, and is what Conv2dBackward adds to dx.
struct ConvLoraBackward {
  View dy, x, h, u, spread;
  Window window;
  std::vector<LoraSite> sites;
};

/// dx (+)= (conv^T(dy, W) + sum over sites of conv^T(u, A)) * derivative. spread as above, in place of u.
struct Conv2dBackward {
  View dy, dx;
  bool accumulate = false;
  Window window;
  std::vector<WeightId> weights;  // those of forward
  FoldedDerivative derivative;
  View spread;
  std::vector<LoraSite> sites;

  int groups() const { return static_cast<int>(weights.size()); }
};

/// dx (+)= scale * dy, where `relu` only where scale * x + shift is positive.
struct BatchNormBackward {
  View dy, dx, x;
  bool accumulate = false;
  WeightId scale = kNoWeight, shift = kNoWeight;
  bool relu = false;
};

/// dx (+)= dy of each window whose largest tap the pixel is.
struct MaxPoolBackward {
  View dy, dx, index;
  bool accumulate = false;
  Window window;
};

struct AvgPoolBackward {
  View dy, dx;
  bool accumulate = false;
  Window window;
  bool countIncludePad = true;
};

struct MeanRowsBackward {
  View dy, dx;
  bool accumulate = false;
  int skip = 0;
};

struct FlattenBackward {
  View dy, dx;
  bool accumulate = false;
};

}  // namespace loko
