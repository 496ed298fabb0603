#pragma once

// The matrix products of all operations, as plain structs that kernels take by value.
//
// A product is a sum of terms over the same outputs: the base product and one term for each low-rank
// factor that joins it, so a LoRA costs depth, not another pass over the output. What remains of the
// operation (bias, residual, activation, derivative) is its epilogue.

#include <cuda_runtime.h>

#include <cstdint>

#include "core/activation.h"
#include "core/op_image.h"
#include "cuda/rows.cuh"

namespace loko::cuda {

constexpr int kMaxTerms = 29;  // a base product and 28 factors; a kernel takes 4 KB of parameters
constexpr int kMaxSmallProducts = 8;

/// One operand of a term. Its rows are rows or columns of the product, or, when it is read across, the
/// depth. `half`: data is bfloat16.
struct Operand {
  Rows rows;
  bool half = false;
  bool aligned = false;  // vectors of four elements may be read
};

/// left [m, depth] x right [depth, columns begin .. end) of the product; outside them the term is 0.
struct Term {
  Operand left, right;
  int depth = 0;
  int begin = 0, end = 0;
  float scale = 1;
  const float* columnScale = nullptr;  // by the product's column
  const float* depthScale = nullptr;
};

struct Epilogue {
  Rows target;
  bool transposed = false;  // output (m, n) goes to row n, column m
  int columnStride = 1;     // of the target
  bool accumulate = false;
  bool ofRelu = false, ofSum = false;  // FoldedDerivative
  Activation activation = Activation::kNone;
  Rows addend;  // a term that is there already
  const float* bias = nullptr;
  Rows residual, actGrad, derivative;
};

/// What the left operand of the first term is gathered from: patches of `channels` columns for each tap.
struct Patches {
  Window window;
  int channels = 0;
  int others = 0;  // channels of the other side, which lie along the weights
};

enum class Gather : std::uint8_t { kNone, kPatches, kCotangentPatches };

/// [m, n]: right operands are read along or, all of them, across.
struct Product {
  int m = 0, n = 0, termCount = 0;
  Gather gather = Gather::kNone;
  bool exact = false;  // in float32 whatever the precision
  Patches patches;
  Epilogue epilogue;
  Term terms[kMaxTerms];
};

/// Products of one term, the same for every segment: what a segment adds to the pointers.
struct SmallProduct {
  int m = 0, n = 0;
  Term term;
  Epilogue epilogue;
  std::int64_t leftStep = 0, rightStep = 0, targetStep = 0;
  int leftSamples = 1, rightSamples = 1;  // segment s uses sample s % samples
  int tap = -1;  // the right operand's rows are the pixels that output pixels have as this tap
};

struct SmallProducts {
  int count = 0, segments = 1;
  int firstSegment = 0;  // of a launch: a grid has room for 65,535 problems
  Window window;         // of the items with a tap; all have one or none
  SmallProduct items[kMaxSmallProducts];
};

enum class Orientation : std::uint8_t { kAlong, kAcross };

class Context;

/// Writes the outputs of the product, on the context's stream and in its precision.
void run(const Product& product, Orientation right, Context& context);
/// In float32: what they make is small, and part of the Jacobian.
void run(const SmallProducts& products, Orientation left, Orientation right, Context& context);

}  // namespace loko::cuda
