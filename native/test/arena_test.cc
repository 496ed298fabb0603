#include "core/arena.h"

#include <algorithm>

#include "core/rng.h"
#include "doctest/doctest.h"

namespace loko {

TEST_CASE("buffers that live at the same step never overlap, and others share memory") {
  for (std::uint64_t round = 0; round < 200; ++round) {
    const RandomStream random(round, "arena");
    std::vector<PlannedBuffer> buffers(1 + static_cast<std::size_t>(random.uniform(0) * 40));
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < buffers.size(); ++i) {
      buffers[i].elements = 1 + static_cast<std::int64_t>(random.uniform(3 * i + 1) * 5000);
      buffers[i].first = static_cast<int>(random.uniform(3 * i + 2) * 30);
      buffers[i].last = buffers[i].first + static_cast<int>(random.uniform(3 * i + 3) * 10);
      sum += (buffers[i].elements + 63) / 64 * 64;
    }
    const std::int64_t total = placeBuffers(buffers);
    CHECK(total <= sum);
    for (const PlannedBuffer& a : buffers) {
      CHECK(a.offset % 64 == 0);
      CHECK(a.offset + a.elements <= total);
      for (const PlannedBuffer& b : buffers) {
        if (&a == &b || a.last < b.first || b.last < a.first) continue;
        CHECK((a.offset + a.elements <= b.offset || b.offset + b.elements <= a.offset));
      }
    }
    std::int64_t peak = 0;  // no placement can be below the most that lives at one step
    for (int step = 0; step < 40; ++step) {
      std::int64_t alive = 0;
      for (const PlannedBuffer& a : buffers) {
        if (a.first <= step && step <= a.last) alive += (a.elements + 63) / 64 * 64;
      }
      peak = std::max(peak, alive);
    }
    CHECK(total >= peak);
  }
}

TEST_CASE("a chain of equal buffers needs the memory of two") {
  std::vector<PlannedBuffer> buffers;
  for (int step = 0; step < 10; ++step) buffers.push_back({128, step, step + 1, 0});
  CHECK(placeBuffers(buffers) == 256);
}

TEST_CASE("a buffer that no step names takes no memory") {
  std::vector<PlannedBuffer> buffers{{1000, 0, -1, 0}, {64, 0, 0, 0}};
  CHECK(placeBuffers(buffers) == 64);
}

}  // namespace loko
