// The rules of torch.optim on row 0 of the Jacobian, one kernel over all parameters; the formulas are in
// filter/gradient_rules.h.

#include <algorithm>

#include "cuda/context.h"
#include "cuda/launch.h"
#include "cuda/predecessor.cuh"
#include "filter/gradient_rules.h"

namespace loko::cuda {

namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kMaxBlocks = 4096;

template <class Rule, class... Arrays>
__global__ void gradientKernel(const Rule rule, std::int64_t n, Arrays... arrays) {
  awaitPredecessor();
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride) {
    rule.apply(i, arrays...);
  }
}

__global__ void finiteKernel(const float* gradient, std::int64_t n, unsigned* offenders) {
  awaitPredecessor();
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  bool found = false;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride) {
    // Exponent bits all set: infinite or not a number.
    found = found || (__float_as_uint(gradient[i]) & 0x7f800000u) == 0x7f800000u;
  }
  if (found) atomicOr(offenders, 1u);
}

}  // namespace

void gradientUpdate(const GradientUpdate& update, const std::vector<StateArray*>& state,
                    Context& context) {
  const std::int64_t n = context.parameters();
  const auto arrays = stateValues<State>(update, state, n);
  if (n == 0) return;
  float* theta = context.parameter(0, n);
  const float* gradient = context.jacobian(0, 0, n);
  withRule<float>(update, theta, gradient, arrays.data(), [&](const auto& rule, auto*... pointers) {
    using Rule = std::decay_t<decltype(rule)>;
    launch({"gradient update", dim3(blocksFor(n, kThreads, kMaxBlocks)), dim3(kThreads),
            context.queue()},
           gradientKernel<Rule, decltype(pointers)...>, rule, n, pointers...);
  });
}

bool gradientIsFinite(Context& context) {
  const std::int64_t n = context.parameters();
  if (n == 0) return true;
  auto* offenders = static_cast<unsigned*>(context.results());
  check(cudaMemsetAsync(offenders, 0, sizeof *offenders, context.stream()), "cudaMemsetAsync");
  launch({"gradient is finite", dim3(blocksFor(n, kThreads, kMaxBlocks)), dim3(kThreads),
          context.queue()},
         finiteKernel, context.jacobian(0, 0, n), n, offenders);
  unsigned found = 0;
  context.download(&found, offenders, sizeof found);
  return found == 0;
}

}  // namespace loko::cuda
