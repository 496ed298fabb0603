// Layer normalisation over the columns of each row: one block for each row, which is read once and stays in registers;
// the sum of squares is that of what is left after the mean, as in native/ref. 128 rows of 768 columns: 0.8 MB, 128 blocks,
// which wait for memory once.

#include "cuda/context.h"
#include "cuda/launch.h"
#include "cuda/predecessor.cuh"
#include "cuda/reduce.cuh"

namespace loko::cuda {

namespace {

constexpr int kFewThreads = 128, kManyThreads = 256;
constexpr int kKept = 8;  // columns of a row that a thread keeps

struct Column {
  int index, mine;  // mine: of those of the thread
};

/// Calls visit(Column) for the thread's columns of a row, side by side with its neighbours'.
template <bool kKeeps, class Visit>
__device__ void forColumns(int cols, const Visit& visit) {
  if constexpr (kKeeps) {
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      const int column = static_cast<int>(threadIdx.x + i * blockDim.x);
      if (column < cols) visit(Column{column, i});
    }
  } else {
    for (int column = threadIdx.x; column < cols; column += blockDim.x) visit(Column{column, 0});
  }
}

/// The thread's columns of a row; kept, all of them are on their way before the first is used. A row that is
/// too long for that is read again each time.
template <bool kKeeps>
class Columns {
 public:
  __device__ Columns(const float* row, int cols) : row_(row) {
    if constexpr (kKeeps) {
      forColumns<true>(cols, [&](Column at) { kept_[at.mine] = row[at.index]; });
    }
  }
  __device__ float operator[](Column at) const { return kKeeps ? kept_[at.mine] : row_[at.index]; }

 private:
  const float* row_;
  float kept_[kKeeps ? kKept : 1];
};

template <bool kKeeps>
__global__ void layerNormKernel(const Rows x, const Rows y, const Rows xhat, const Rows rstd,
                                const float* gamma, const float* beta, int cols, float eps) {
  awaitPredecessor();
  __shared__ float forMean[kManyThreads / 32], forVariance[kManyThreads / 32];
  const int row = blockIdx.x;
  const Columns<kKeeps> in(x[row], cols), scale(gamma, cols), shift(beta, cols);
  float sum = 0;
  forColumns<kKeeps>(cols, [&](Column at) { sum += in[at]; });
  const float mean = blockSum(sum, forMean) / static_cast<float>(cols);
  float squares = 0;
  forColumns<kKeeps>(cols, [&](Column at) {
    const float centred = in[at] - mean;
    squares += centred * centred;
  });
  const float variance = blockSum(squares, forVariance) / static_cast<float>(cols);
  const float inverse = 1 / sqrtf(variance + eps);
  float* out = y[row];
  float* normalised = xhat.present() ? xhat[row] : nullptr;
  forColumns<kKeeps>(cols, [&](Column at) {
    const float value = (in[at] - mean) * inverse;
    if (normalised != nullptr) normalised[at.index] = value;
    out[at.index] = value * scale[at] + shift[at];
  });
  if (threadIdx.x == 0 && rstd.present()) *rstd[row] = inverse;
}

template <bool kKeeps>
__global__ void layerNormBackwardKernel(const Rows dy, const Rows dx, const Rows xhat,
                                        const Rows rstd, const float* gamma, int cols,
                                        bool accumulate) {
  awaitPredecessor();
  __shared__ float forMean[kManyThreads / 32], forProjection[kManyThreads / 32];
  const int row = blockIdx.x;
  float* out = dx[row];
  const Columns<kKeeps> cotangent(dy[row], cols), normalised(xhat[row], cols), scale(gamma, cols);
  const Columns<kKeeps> before(out, accumulate ? cols : 0);
  const float inverse = *rstd[row];
  float sum = 0, dot = 0;
  forColumns<kKeeps>(cols, [&](Column at) {
    const float g = cotangent[at] * scale[at];
    sum += g;
    dot += g * normalised[at];
  });
  const float mean = blockSum(sum, forMean) / static_cast<float>(cols);
  const float projection = blockSum(dot, forProjection) / static_cast<float>(cols);
  forColumns<kKeeps>(cols, [&](Column at) {
    const float g = cotangent[at] * scale[at];
    const float value = inverse * (g - mean - normalised[at] * projection);
    out[at.index] = accumulate ? value + before[at] : value;
  });
}

/// One block for each row, by the first kernel, which keeps rows, where they are short enough.
template <class Kernel, class... Arguments>
void launchRows(const char* name, std::int64_t rows, int cols, Kernel keeps, Kernel reads,
                Context& context, const Arguments&... arguments) {
  const int threads = cols <= kKept * kFewThreads ? kFewThreads : kManyThreads;
  launch({name, dim3(static_cast<unsigned>(rows)), dim3(static_cast<unsigned>(threads)),
          context.queue()},
         cols <= kKept * threads ? keeps : reads, arguments...);
}

}  // namespace

void run(const LayerNorm& op, const Frame& frame, Context& context) {
  const int rows = op.x.rows, cols = op.x.cols, batch = frame.batch;
  expectShape(op.y, rows, cols, "y");
  if (op.xhat.present()) expectShape(op.xhat, rows, cols, "xhat");
  if (op.rstd.present()) expectShape(op.rstd, rows, 1, "rstd");
  LOKO_CHECK((op.beta == kNoWeight) != (op.trainedBeta == kNoParameter),
             "a layer norm needs one beta, frozen or trained");
  const float* beta = op.beta != kNoWeight ? context.vector(op.beta, cols)
                                           : context.parameter(op.trainedBeta, cols);
  launchRows("layer norm", std::int64_t{batch} * rows, cols, layerNormKernel<true>,
             layerNormKernel<false>, context, context.rows(op.x, batch), context.rows(op.y, batch),
             context.rows(op.xhat, batch), context.rows(op.rstd, batch),
             context.vector(op.gamma, cols), beta, cols, op.eps);
}

void run(const LayerNormBackward& op, const Frame& frame, Context& context) {
  const int rows = op.dy.rows, cols = op.dy.cols, segments = frame.segments();
  expectShape(op.dx, rows, cols, "dx");
  expectShape(op.xhat, rows, cols, "xhat");
  expectShape(op.rstd, rows, 1, "rstd");
  launchRows("layer norm cotangent", std::int64_t{segments} * rows, cols,
             layerNormBackwardKernel<true>, layerNormBackwardKernel<false>, context,
             context.rows(op.dy, segments), context.rows(op.dx, segments),
             context.rows(op.xhat, frame.batch), context.rows(op.rstd, frame.batch),
             context.vector(op.gamma, cols), cols, op.accumulate);
}

}  // namespace loko::cuda
