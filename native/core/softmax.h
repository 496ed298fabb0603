#pragma once

namespace loko {

/// pi = exp(z - logsumexp(z)) for z [outputs]; returns logsumexp(z). pi may be z.
double softmax(const double* logits, int outputs, double* pi);

}  // namespace loko
