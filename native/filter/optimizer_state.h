#pragma once

// The state of an optimizer, theta included, as named arrays of numbers: everything that makes a
// resumed run equal to one that never stopped, bit by bit. float32 widened to float64 and back is exact.

#include <cstdint>
#include <string>
#include <vector>

#include "filter/optimizer.h"

namespace loko {

/// One array of the state; a number or a count is one of shape [].
struct StateEntry {
  std::string name;
  std::vector<std::int64_t> shape;
  std::int64_t size = 1;
};

/// What the state consists of: theta [n] first, then what the optimizer lists.
std::vector<StateEntry> describeState(Optimizer& optimizer, std::int64_t parameters);

/// The numbers of all entries, one after the other.
std::vector<double> readState(Optimizer& optimizer, Objective& objective);

/// Replaces the state by numbers in the order of describeState(). Throws, and changes nothing, kOption
/// for another number of them, one that is not finite or outside its domain, or a count that is none.
void writeState(Optimizer& optimizer, Objective& objective, const std::vector<double>& values);

}  // namespace loko
