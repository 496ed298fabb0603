#pragma once

// What every backend asks of the operands of a step before it touches memory. Only a wrong lowering can
// fail here, but for a Jacobian that is too large.

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/status.h"
#include "core/view.h"

namespace loko {

inline std::string shapeText(int rows, int cols) {
  return "[" + std::to_string(rows) + ", " + std::to_string(cols) + "]";
}

inline void expectShape(const View& view, int rows, int cols, const char* operand) {
  LOKO_CHECK(view.rows == rows && view.cols == cols, std::string(operand) + " is " +
                                                         shapeText(view.rows, view.cols) +
                                                         ", expected " + shapeText(rows, cols));
}

inline void checkRange(const StateArray& state, std::int64_t begin, std::int64_t end) {
  LOKO_CHECK(0 <= begin && begin <= end && end <= state.size(), "a range outside the state");
}

/// The rows [first, last) of a factor [r, n].
inline void checkRows(const StateArray& factor, std::int64_t n, int first, int last) {
  LOKO_CHECK(0 <= first && first <= last && last * n <= factor.size(), "rows outside the factor");
}

/// Sites must lie inside the columns of h (or u) and of the linear's output.
inline void checkSites(const std::vector<LoraSite>& sites, const View& h, int rows, int out) {
  for (const LoraSite& site : sites) {
    LOKO_CHECK(site.hBegin >= 0 && site.hBegin + site.rank <= h.cols && h.rows == rows,
               "a LoRA site outside its low-rank buffer");
    LOKO_CHECK(0 <= site.outBegin && site.outBegin < site.outEnd && site.outEnd <= out,
               "a LoRA site outside its linear");
  }
}

/// Elements from the first of a view over `samples` samples or segments to behind its last.
inline std::int64_t spanOf(const View& view, int samples) {
  return (samples - 1) * view.sampleStride + (view.rows - 1) * view.ld + view.cols;
}

/// Throws where a view begins or ends outside a space of `size` elements.
inline void checkInside(const View& view, int samples, std::int64_t size) {
  const std::int64_t end = view.offset + spanOf(view, samples);
  LOKO_CHECK(view.offset >= 0 && end <= size,
             "a view ends at " + std::to_string(end) + " of " + std::to_string(size));
}

/// The memory of a space, of a backend's four.
template <class Memory>
Memory& memoryOf(Space space, Memory& scratch, Memory& input, Memory& theta, Memory& jacobian) {
  switch (space) {
    case Space::kScratch:
      return scratch;
    case Space::kInput:
      return input;
    case Space::kTheta:
      return theta;
    case Space::kJacobian:
      return jacobian;
    case Space::kNone:
      break;
  }
  throw Error(ErrorCode::kInternal, "an absent operand has no memory");
}

/// Elements of a Jacobian; throws kOutOfMemory for more than can be counted.
inline std::int64_t jacobianSize(std::int64_t rows, std::int64_t parameters) {
  LOKO_CHECK(rows >= 0 && parameters >= 0, "negative extent of the Jacobian");
  if (parameters > 0 && rows > std::numeric_limits<std::int64_t>::max() / parameters) {
    throw Error(ErrorCode::kOutOfMemory, "A Jacobian of " + std::to_string(rows) + " rows and " +
                                             std::to_string(parameters) +
                                             " parameters exceeds the address space");
  }
  return rows * parameters;
}

}  // namespace loko
