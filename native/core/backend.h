#pragma once

// What the engine asks of a device. Implementations: native/cpu (float32), native/ref (float64, the
// executable specification that the others are tested against), native/cuda.
//
// Rules. A backend belongs to one engine and is used from one thread (it may fan out to its own
// workers inside a call). After prepare() nothing allocates inside run() or the update calls.
// Results never depend on the number of threads: every reduction has an order fixed by shapes
// alone.

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "core/op.h"

namespace loko {

/// n numbers of optimizer state (p, moments) in the backend's own memory and precision.
class StateArray {
 public:
  virtual ~StateArray() = default;
  virtual std::int64_t size() const = 0;
};

/// What changes from run to run of the same plan.
struct Frame {
  int batch = 1;              // B
  int rows = 1;               // k: cotangent rows in this pass; segments = rows * batch
  std::int64_t firstRow = 0;  // Jacobian row of segment 0; segment s writes row firstRow + s
  bool reduce = false;        // all segments add up into Jacobian row 0 (written, not accumulated)
  const StateArray* gramWeights = nullptr;  // p; null: all ones
  double* gram = nullptr;  // [gramSize, gramSize] host, row-major, both triangles; null: skip Gram
  int gramRows = 0;        // Jacobian rows 0..gramRows-1 take part,
  const StateArray* factor = nullptr;  // below these rows of it, [factorRows, n] row-major
  int factorRows = 0;

  int segments() const { return rows * batch; }
  int gramSize() const { return factorRows + gramRows; }
};

struct WorkspaceHint {
  int batch = 1;
  int maxRows = 1;      // most cotangent rows of one pass
  int maxGramRows = 0;  // most rows of one Gram or Kalman update, those of a factor included
};

enum class CovarianceRule : std::uint8_t {
  kFullyDecoupled,        // p (1 - p q): FDEKF, the paper's rule
  kVariationalDecoupled,  // p / (1 + p q): VDEKF, with q from R instead of S
};

/// With V = [factor; G], factor [r, n] and G [k, n]: theta += p * (V^T gain);  q = column sums of
/// (root V)^2;  p <- rule(p, q), then max(p, floor);  factor <- carry V, its last `dualRows` rows also times
/// p / (new p) where that is not 0 / 0. All of it sees V, p as they were before.
struct KalmanUpdate {
  int rows = 0;                   // k: rows 0..k-1 of the Jacobian space
  StateArray* factor = nullptr;   // null: V = G
  int factorRows = 0;             // r
  int dualRows = 0;               // the last ones of the factor
  const double* gain = nullptr;   // [r + k]
  const double* root = nullptr;   // [rootRows, r + k] row-major
  int rootRows = 0;               // may be 0
  const double* carry = nullptr;  // [r, r + k] row-major
  CovarianceRule rule = CovarianceRule::kFullyDecoupled;
  double floor = 0;  // p_min > 0

  int width() const { return factorRows + rows; }
};

/// Of a range of a state array: x <- min(most, factor * x + added).
struct Transition {
  double factor = 1, added = 0;
  double most = std::numeric_limits<double>::infinity();
};

struct KalmanUpdateResult {
  std::int64_t floored = 0;          // entries that the floor caught in this step
  double sum = 0, min = 0, max = 0;  // of the new p
};

/// The update rules of torch.optim; hyper-parameters already resolved for this step (t from 1).
struct GradientUpdate {
  enum class Rule : std::uint8_t { kSgd, kAdaGrad, kRmsProp, kAdam, kAdamW };
  Rule rule = Rule::kSgd;
  std::int64_t step = 1;
  double learningRate = 0, weightDecay = 0;
  double beta1 = 0, beta2 = 0, eps = 0;  // Adam, AdamW
  bool amsgrad = false;                  // Adam, AdamW: running maximum of the second moment
  double momentum = 0, dampening = 0;    // SGD, RMSProp
  bool nesterov = false;                 // SGD
  double learningRateDecay = 0;          // AdaGrad
  double alpha = 0;                      // RMSProp smoothing
  bool centered = false;                 // RMSProp
};

/// How many cotangent rows one backward pass may have: more make larger products, fewer keep memory bounded
/// and the cotangents in cache.
struct PassLimits {
  std::int64_t bytes = std::int64_t{64}
                       << 20;  // of the largest cotangent buffer; several live at once
  int rows = 64;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual const char* name() const = 0;
  /// Human-readable facts for deviceInfo(): kernels chosen, threads.
  virtual std::string description() const = 0;
  virtual PassLimits passLimits() const { return {}; }

  // ---- frozen weights (copied; the caller's memory may go)
  /// W [out, in] row-major; one copy serves y = x W^T and dx = dy W.
  virtual WeightId addMatrix(const float* data, int out, int in) = 0;
  virtual WeightId addVector(const float* data, std::int64_t size) = 0;
  /// A table of which a run reads few rows. `readRow` fills one row of `cols` floats; it may be called
  /// at any time until release(), from the thread that uses the backend, and may throw.
  virtual WeightId addTable(int rows, int cols, std::function<void(int, float*)> readRow) = 0;
  /// Frees the memory of a weight that no plan uses any more; its id is never given again.
  virtual void release(WeightId weight) = 0;

  // ---- memory
  /// Makes room for `elements` in a space; contents are undefined afterwards where it grew. kTheta
  /// keeps its contents.
  virtual void reserve(Space space, std::int64_t elements) = 0;
  /// The leading dimension of kJacobian is the number of parameters given to reserveJacobian.
  virtual void reserveJacobian(std::int64_t rows, std::int64_t parameters) = 0;
  virtual void write(Space space, std::int64_t offset, const float* source, std::int64_t count) = 0;
  virtual void read(Space space, std::int64_t offset, float* target, std::int64_t count) = 0;
  /// Strided rows of one view (samples x rows x cols, densely packed on the host side), in double:
  /// logits out, cotangent seeds in.
  virtual void readView(const View& view, int samples, double* target) = 0;
  virtual void writeView(const View& view, int samples, const double* source) = 0;

  // ---- execution
  virtual void prepare(const std::vector<Step>& steps, const WorkspaceHint& hint) = 0;
  virtual void run(const Step& step, const Frame& frame) = 0;
  /// The steps in their order, as run() would: a list that was given to prepare(), which a device may
  /// record to launch it whole the next time.
  virtual void runAll(const std::vector<Step>& steps, const Frame& frame) {
    for (const Step& step : steps) run(step, frame);
  }

  // ---- optimizer state
  virtual std::unique_ptr<StateArray> makeState(std::int64_t size, double value) = 0;
  virtual void fill(StateArray& state, std::int64_t begin, std::int64_t end, double value) = 0;
  virtual void readState(const StateArray& state, double* target) = 0;
  /// source[end - begin] to state[begin, end).
  virtual void writeState(StateArray& state, std::int64_t begin, std::int64_t end,
                          const double* source) = 0;

  // ---- updates, on theta and rows of the Jacobian space
  /// x <- min(most, factor * x + added), x = state[begin, end).
  virtual void transition(StateArray& state, std::int64_t begin, std::int64_t end,
                          const Transition& transition) = 0;
  /// p <- min(most, p); the rows [firstRow, lastRow) of `factor`, which are kept over p, times p / (new p).
  virtual void capVariance(StateArray& p, double most, StateArray& factor, int firstRow,
                           int lastRow) = 0;
  virtual KalmanUpdateResult kalmanUpdate(const KalmanUpdate& update, StateArray& p) = 0;
  /// Jacobian row 0 is the gradient. `state` holds as many arrays as stateArrays(rule) says.
  virtual void gradientUpdate(const GradientUpdate& update,
                              const std::vector<StateArray*>& state) = 0;
  /// True when row 0 of the Jacobian (the gradient) has only finite entries.
  virtual bool gradientIsFinite() = 0;
};

}  // namespace loko
