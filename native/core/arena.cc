#include "core/arena.h"

#include <algorithm>
#include <numeric>

namespace loko {

std::int64_t placeBuffers(std::vector<PlannedBuffer>& buffers) {
  constexpr std::int64_t kAlignment = 64;
  const auto roundUp = [](std::int64_t n) {
    return (n + kAlignment - 1) / kAlignment * kAlignment;
  };

  std::vector<std::size_t> order(buffers.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return buffers[a].elements > buffers[b].elements;
  });

  std::int64_t total = 0;
  std::vector<std::size_t> placed;  // sorted by offset
  for (const std::size_t index : order) {
    PlannedBuffer& buffer = buffers[index];
    if (buffer.last < buffer.first) continue;
    const std::int64_t size = roundUp(buffer.elements);
    std::int64_t best = -1, bestGap = 0, end = 0;
    for (const std::size_t other : placed) {
      const PlannedBuffer& neighbour = buffers[other];
      if (neighbour.last < buffer.first || neighbour.first > buffer.last) continue;
      const std::int64_t gap = neighbour.offset - end;
      if (gap >= size && (best < 0 || gap < bestGap)) {
        best = end;
        bestGap = gap;
      }
      end = std::max(end, neighbour.offset + roundUp(neighbour.elements));
    }
    buffer.offset = best >= 0 ? best : end;
    total = std::max(total, buffer.offset + size);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), index,
                                   [&](std::size_t a, std::size_t b) {
                                     return buffers[a].offset < buffers[b].offset;
                                   }),
                  index);
  }
  return total;
}

}  // namespace loko
