#pragma once

// Which directions of the outputs are propagated backwards.

#include <vector>

#include "filter/loko_options.h"
#include "filter/spectrum.h"

namespace loko {

/// The k cotangents of a step and what turns their products G = U^T J into H = E G. Of a batch every sample has
/// as many; row i is of sample i % samples, as Objective::jacobian has them.
///
/// Stored Jacobian rows are those of ORTHONORMAL cotangents, never scaled by eigenvalues, so that
/// float32 keeps its relative precision per direction; E = diag(scale) is applied in float64.
struct CotangentBasis {
  int rows = 0;                 // k, of all samples
  int outputs = 0;              // m
  std::vector<double> vectors;  // U^T [k, m]
  std::vector<double> scale;    // [k]
  int samples = 1;              // B

  int rowsPerSample() const { return rows / samples; }
};

/// U^T x for x [B, m].
void project(const CotangentBasis& basis, const std::vector<double>& x,
             std::vector<double>& result);

/// The vectors of one sample, [k / B, m].
void vectorsOf(const CotangentBasis& basis, int sample, std::vector<double>& result);

class BasisChooser {
 public:
  /// For `samples` samples of `outputs` outputs. pi [B, m] (softmax and categorical) and innovation e [B, m]. Where
  /// samples need different numbers of rows, all have the largest.
  void choose(const LokoOptions& options, const std::vector<double>& pi,
              const std::vector<double>& innovation, int samples, CotangentBasis& basis);

  /// trace(C) of the last softmax or categorical batch, mean over its samples.
  double trace() const { return trace_; }

 private:
  void chooseOne(Observation observation, const RankOption& rank, const std::vector<double>& pi,
                 const std::vector<double>& innovation, CotangentBasis& basis);
  void chooseCategorical(const RankOption& rank, const std::vector<double>& pi,
                         const std::vector<double>& innovation, CotangentBasis& basis);

  SoftmaxSpectrum spectrum_;
  double trace_ = 0;
};

}  // namespace loko
