// The rules of torch.optim on row 0 of the Jacobian; the formulas are in filter/gradient_rules.h.
#include <cstring>

#include "cpu/context.h"
#include "filter/gradient_rules.h"

namespace loko::cpu {

void gradientUpdate(const GradientUpdate& update, const std::vector<StateArray*>& state,
                    Context& context) {
  const std::int64_t n = context.parameters();
  const auto arrays = stateValues<State>(update, state, n);
  float* theta = context.parameter(0, n);
  const float* gradient = context.jacobian(0, 0, n);
  context.forEachRange(n, 200, [&](std::int64_t begin, std::int64_t end, int) {
    applyRule<float>(update, begin, end, theta, gradient, arrays.data());
  });
}

bool gradientIsFinite(Context& context) {
  const std::int64_t n = context.parameters();
  const float* gradient = context.jacobian(0, 0, n);
  // Exponent bits all set: infinite or not a number. No early exit, so that the loop vectorises.
  std::uint32_t offenders = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    std::uint32_t bits;
    std::memcpy(&bits, gradient + i, sizeof bits);
    offenders |= (bits & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  }
  return offenders == 0;
}

}  // namespace loko::cpu
