#pragma once

// What operations address: views into planned memory, frozen weights, and places in theta.

#include <cstdint>

namespace loko {

enum class Space : std::uint8_t {
  kNone,      // an optional operand that is absent
  kScratch,   // activations and cotangents, laid out by the arena
  kInput,     // the batch as the user gave it
  kTheta,     // the n trainable parameters
  kJacobian,  // cotangent rows x n: G of the filter, or one row: the gradient
};

/// [samples or segments, rows, cols] somewhere in a space. Element (s, t, c) lives at
/// offset + s*sampleStride + t*ld + c. A view may select the first row of each sample (rows = 1) or
/// a range of columns of a wider buffer (cols < ld).
struct View {
  Space space = Space::kNone;
  std::int64_t offset = 0;
  int rows = 0;
  int cols = 0;
  std::int64_t ld = 0;
  std::int64_t sampleStride = 0;
  int buffer = -1;  // the planned buffer behind a scratch view; for the planner and messages only

  bool present() const { return space != Space::kNone; }
};

/// A frozen tensor held by the backend in the layout it likes best.
using WeightId = int;
constexpr WeightId kNoWeight = -1;
/// Position in theta (and in a row of the Jacobian); kNoParameter marks an absent one.
using ParameterOffset = std::int64_t;
constexpr ParameterOffset kNoParameter = -1;

/// One adapted linear module: y[:, outBegin:outEnd] += scale * (x A^T) B^T, with A [rank, in] at
/// theta + a and B [outEnd - outBegin, rank] at theta + b (PEFT's shapes). The columns of x A^T are
/// [hBegin, hBegin + rank) of the buffer h that all sites of one linear share, without gaps.
///
/// Where the output of the linear is scaled column by column (a folded batch norm, a layer scale), that
/// scale multiplies what B gives, too: outputScale is a vector over all columns of the output.
///
/// For a convolution A is [rank, in, kh, kw]. One with groups has a site for each of them, of rank / groups.
struct LoraSite {
  ParameterOffset a = 0;
  ParameterOffset b = 0;
  int rank = 0;
  int outBegin = 0;
  int outEnd = 0;
  int hBegin = 0;
  float scale = 1;
  WeightId outputScale = kNoWeight;
};

}  // namespace loko
