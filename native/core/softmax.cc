#include "core/softmax.h"

#include <algorithm>
#include <cmath>

namespace loko {

double softmax(const double* logits, int outputs, double* pi) {
  const double largest = *std::max_element(logits, logits + outputs);
  double sum = 0;
  for (int c = 0; c < outputs; ++c) sum += pi[c] = std::exp(logits[c] - largest);
  for (int c = 0; c < outputs; ++c) pi[c] /= sum;
  return largest + std::log(sum);
}

}  // namespace loko
