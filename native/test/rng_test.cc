#include "core/rng.h"

#include <cmath>

#include "doctest/doctest.h"

namespace loko {

TEST_CASE("Philox4x32-10 gives the known answers of Random123") {
  // kat_vectors of the Random123 distribution, lines "philox4x32 10".
  const std::array<std::uint32_t, 4> zero = philox({0, 0, 0, 0}, {0, 0});
  CHECK(zero == std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  constexpr std::uint32_t ones = 0xffffffff;
  const std::array<std::uint32_t, 4> full = philox({ones, ones, ones, ones}, {ones, ones});
  CHECK(full == std::array<std::uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  const std::array<std::uint32_t, 4> pi =
      philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0});
  CHECK(pi == std::array<std::uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("a stream is uniform and normal to the accuracy of its sample") {
  const RandomStream stream(7, "moments");
  constexpr int kDraws = 200000;
  double uniform = 0, normal = 0, square = 0;
  for (std::uint64_t i = 0; i < kDraws; ++i) {
    uniform += stream.uniform(i);
    normal += stream.normal(i);
    square += static_cast<double>(stream.normal(i)) * stream.normal(i);
  }
  // Five standard errors: sqrt(1/12), 1 and sqrt(2) over sqrt(draws).
  const double root = std::sqrt(static_cast<double>(kDraws));
  CHECK(uniform / kDraws == doctest::Approx(0.5).epsilon(5 * 0.289 / root / 0.5));
  CHECK(std::abs(normal / kDraws) < 5 / root);
  CHECK(std::abs(square / kDraws - 1) < 5 * std::sqrt(2.0) / root);
}

TEST_CASE("streams of other names and seeds differ") {
  CHECK(RandomStream(1, "a").uniform(0) != RandomStream(1, "b").uniform(0));
  CHECK(RandomStream(1, "a").uniform(0) != RandomStream(2, "a").uniform(0));
}

}  // namespace loko
