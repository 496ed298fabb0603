#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "cpu/gemm.h"
#include "cpu/isa.h"
#include "gemm_testing.h"

using namespace loko::cpu;
using namespace loko::test;

TEST_CASE("a packed matrix reads back what was packed, in both layouts and by regions") {
  const int k = 37;
  const int n = 77;
  const std::vector<float> nk = randomVector(static_cast<std::size_t>(k * n));
  PackedMatrix whole(k, n);
  whole.pack(nk.data(), k, WeightLayout::kNK);
  std::vector<float> kn(nk.size());
  whole.unpackTo(kn.data(), n, WeightLayout::kKN);
  for (int i = 0; i < k; ++i)
    for (int j = 0; j < n; ++j) {
      CHECK(kn[static_cast<std::size_t>(i * n + j)] == nk[static_cast<std::size_t>(j * k + i)]);
      CHECK(whole.get(i, j) == nk[static_cast<std::size_t>(j * k + i)]);
    }

  AlignedFloats memory = allocateAligned(PackedMatrix::floatCount(k, n));
  PackedMatrix parts(k, n, memory.get());
  parts.pack(nk.data(), k, WeightLayout::kNK, 0, k, 0, 30);
  parts.pack(nk.data() + 30 * k, k, WeightLayout::kNK, 0, 20, 30, n - 30);
  parts.pack(kn.data() + 20 * n + 30, n, WeightLayout::kKN, 20, k - 20, 30, n - 30);
  std::vector<float> back(nk.size());
  parts.unpackTo(back.data(), k, WeightLayout::kNK);
  CHECK(sameBits(back, nk));
}

TEST_CASE("a packed matrix is transposed panel by panel") {
  for (const Isa isa : availableIsas())
    for (const auto& [k, n] : {std::pair{1, 1}, {33, 70}, {64, 16}, {100, 48}, {31, 129}}) {
      const std::vector<float> source = randomVector(static_cast<std::size_t>(k * n));
      PackedMatrix matrix(k, n);
      matrix.pack(source.data(), n, WeightLayout::kKN);
      PackedMatrix expected(n, k);
      expected.pack(source.data(), n, WeightLayout::kNK);
      const std::size_t floats = PackedMatrix::floatCount(n, k);
      AlignedFloats memory = allocateAligned(floats);
      std::fill_n(memory.get(), floats, std::nanf(""));
      for (int column = 0; column < k; column += kPanelColumns)
        matrix.transposePanelTo(kernels(isa), column, memory.get());
      CHECK(std::memcmp(memory.get(), expected.panel(0, 0), floats * sizeof(float)) == 0);
    }
}
