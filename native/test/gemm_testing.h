#pragma once

// Numbers that the tests of the matrix product draw, from one generator, and how they compare.

#include <cstddef>
#include <cstring>
#include <random>
#include <vector>

namespace loko::test {

inline std::mt19937& generator() {
  static std::mt19937 engine(20240607);
  return engine;
}

inline int pick(int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(generator());
}
inline bool coin() {
  return pick(0, 1) == 1;
}

inline std::vector<float> randomVector(std::size_t count) {
  std::uniform_real_distribution<float> distribution(-1.0f, 1.0f);
  std::vector<float> values(count);
  for (float& value : values) value = distribution(generator());
  return values;
}

inline bool sameBits(const std::vector<float>& x, const std::vector<float>& y) {
  return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0;
}

}  // namespace loko::test
