#pragma once

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a counter
// in, four words out, so any element of any stream can be drawn alone, in any order, on any device.
// Streams are told apart by name, never by the order of calls: adding a module changes no other
// module's values.

#include <array>
#include <cmath>
#include <cstdint>
#include <string>

namespace loko {

inline std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                           std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {
        static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
        static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return counter;
}

class RandomStream {
 public:
  RandomStream(std::uint64_t seed, const std::string& name) : seed_(seed) {
    stream_ = 0xCBF29CE484222325ull;  // FNV-1a
    for (const char c : name)
      stream_ = (stream_ ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
  }

  /// Uniform in [0, 1) with 24 bits, the i-th of the stream.
  float uniform(std::uint64_t i) const { return static_cast<float>(word(i, 0) >> 8) * 0x1p-24f; }
  /// Standard normal by Box and Muller, the i-th of the stream.
  float normal(std::uint64_t i) const {
    const double u = (word(i, 0) + 1.0) * 0x1p-32;
    const double v = word(i, 1) * 0x1p-32;
    return static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v));
  }

 private:
  std::uint32_t word(std::uint64_t i, int lane) const {
    return philox({static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i >> 32),
                   static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)},
                  {static_cast<std::uint32_t>(seed_),
                   static_cast<std::uint32_t>(seed_ >> 32)})[static_cast<std::size_t>(lane)];
  }

  std::uint64_t seed_, stream_;
};

}  // namespace loko
