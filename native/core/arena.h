#pragma once

// Places buffers with known lifetimes in one allocation (greedy by size: Pisarchyk and Lee,
// "Efficient memory management for deep neural net inference", arXiv 2001.03288).

#include <cstdint>
#include <vector>

namespace loko {

struct PlannedBuffer {
  std::int64_t elements = 0;
  int first = 0, last = -1;  // step indices, inclusive; last < first: never used
  std::int64_t offset = 0;   // filled in by placeBuffers
};

/// Assigns offsets (multiples of 64 elements: 256 bytes of float32) so that no two buffers that
/// live at the same step overlap; returns the elements needed.
std::int64_t placeBuffers(std::vector<PlannedBuffer>& buffers);

}  // namespace loko
