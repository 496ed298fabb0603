#pragma once

// What linear maps and convolutions with LoRA have in common: the side of the output, where B acts on
// rows of r numbers whatever A was.

#include <vector>

#include "cpu/context.h"

namespace loko::cpu {

inline View columnsOf(View view, int begin, int cols) {
  view.offset += begin;
  view.cols = cols;
  return view;
}

/// How left^T right of all segments is added up: `count` products, each over all samples of one
/// cotangent row where memory allows, else over one segment. `left` is indexed by segment, `right` by
/// sample.
struct Summands {
  int count, samples;
  Summands(const View& left, const View& right, const Frame& frame);
};
inline std::ptrdiff_t rowDistance(const View& view, int samples) {
  return samples > 1 && view.rows == 1 ? view.sampleStride : view.ld;
}

/// The sum of ranks.
int columnsOfSites(const std::vector<LoraSite>& sites);

/// scale B^T of the sites whose outputs lie in columns [begin, begin + n) of `out`, as the tail [rank, n].
const PackedTail* packOutputTail(const std::vector<LoraSite>& sites, int rank, int begin, int n,
                                 int out, Context& context);
void needOutputTail(const std::vector<LoraSite>& sites, int rank, int n, Context& context);

/// u = scale dy B and the blocks dB = scale dy^T h of all sites.
struct OutputSide {
  View dy, h, u;
  const std::vector<LoraSite>& sites;
};
void needOutputSide(const OutputSide& side, const WorkspaceHint& hint, Context& context);
void writeOutputSide(const OutputSide& side, const Frame& frame, Context& context);

/// Folds an activation's derivative into the product that writes dx.
void foldDerivative(const FoldedDerivative& derivative, const View& dx, int batch, GemmArgs& args,
                    Context& context);

}  // namespace loko::cpu
