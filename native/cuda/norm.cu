// Layer normalisation over the columns of each row: one block for each row, two passes over it as in
// native/ref, the second from cache. 128 rows of 768 columns: 0.8 MB, 128 blocks.

#include "cuda/context.h"
#include "cuda/launch.h"
#include "cuda/predecessor.cuh"
#include "cuda/reduce.cuh"

namespace loko::cuda {

namespace {

constexpr int kThreads = 128;

__global__ void layerNormKernel(const Rows x, const Rows y, const Rows xhat, const Rows rstd,
                                const float* gamma, const float* beta, int cols, float eps) {
  awaitPredecessor();
  __shared__ float forMean[kThreads / 32], forVariance[kThreads / 32];
  const int row = blockIdx.x;
  const float* in = x[row];
  float sum = 0;
  for (int c = threadIdx.x; c < cols; c += kThreads) sum += in[c];
  const float mean = blockSum(sum, forMean) / static_cast<float>(cols);
  float squares = 0;
  for (int c = threadIdx.x; c < cols; c += kThreads) {
    const float centred = in[c] - mean;
    squares += centred * centred;
  }
  const float variance = blockSum(squares, forVariance) / static_cast<float>(cols);
  const float inverse = 1 / sqrtf(variance + eps);
  float* out = y[row];
  float* normalised = xhat.present() ? xhat[row] : nullptr;
  for (int c = threadIdx.x; c < cols; c += kThreads) {
    const float value = (in[c] - mean) * inverse;
    if (normalised != nullptr) normalised[c] = value;
    out[c] = value * gamma[c] + beta[c];
  }
  if (threadIdx.x == 0 && rstd.present()) *rstd[row] = inverse;
}

__global__ void layerNormBackwardKernel(const Rows dy, const Rows dx, const Rows xhat,
                                        const Rows rstd, const float* gamma, int cols,
                                        bool accumulate) {
  awaitPredecessor();
  __shared__ float forMean[kThreads / 32], forProjection[kThreads / 32];
  const int row = blockIdx.x;
  const float* cotangent = dy[row];
  const float* normalised = xhat[row];
  float sum = 0, dot = 0;
  for (int c = threadIdx.x; c < cols; c += kThreads) {
    const float g = cotangent[c] * gamma[c];
    sum += g;
    dot += g * normalised[c];
  }
  const float mean = blockSum(sum, forMean) / static_cast<float>(cols);
  const float projection = blockSum(dot, forProjection) / static_cast<float>(cols);
  const float inverse = *rstd[row];
  float* out = dx[row];
  for (int c = threadIdx.x; c < cols; c += kThreads) {
    const float g = cotangent[c] * gamma[c];
    const float value = inverse * (g - mean - normalised[c] * projection);
    out[c] = accumulate ? value + out[c] : value;
  }
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
  launch({"layer norm", dim3(static_cast<unsigned>(batch * rows)), dim3(kThreads), context.queue()},
         layerNormKernel, context.rows(op.x, batch), context.rows(op.y, batch),
         context.rows(op.xhat, batch), context.rows(op.rstd, batch), context.vector(op.gamma, cols),
         beta, cols, op.eps);
}

void run(const LayerNormBackward& op, const Frame& frame, Context& context) {
  const int rows = op.dy.rows, cols = op.dy.cols, segments = frame.segments();
  expectShape(op.dx, rows, cols, "dx");
  expectShape(op.xhat, rows, cols, "xhat");
  expectShape(op.rstd, rows, 1, "rstd");
  launch({"layer norm cotangent", dim3(static_cast<unsigned>(segments * rows)), dim3(kThreads),
          context.queue()},
         layerNormBackwardKernel, context.rows(op.dy, segments), context.rows(op.dx, segments),
         context.rows(op.xhat, frame.batch), context.rows(op.rstd, frame.batch),
         context.vector(op.gamma, cols), cols, op.accumulate);
}

}  // namespace loko::cuda
