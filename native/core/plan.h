#pragma once

// A lowered graph: flat lists of steps over planned memory. Made once per LoweringRequest.

#include <cstdint>
#include <vector>

#include "core/op.h"

namespace loko {

struct Plan {
  int passRows = 1;  // most cotangent rows of one backward pass; more rows run as several passes
  std::vector<Step> forward;
  std::vector<Step>
      backward;  // each parameter block of the Jacobian is written by exactly one step
  View input;    // kInput
  View logits;   // [B, 1, m]
  View seed;     // [segments, 1, m]: the cotangents that backward starts from
  std::int64_t scratchElements = 0;
  std::int64_t inputElements = 0;
};

}  // namespace loko
