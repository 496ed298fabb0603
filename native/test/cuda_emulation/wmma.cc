#include <mma.h>

#include <cstdint>
#include <cstring>

namespace loko::emulation {

void multiplyTile(float* d, const float* a, const float* b, const float* c, int m, int n, int k) {
  if (d != c) std::memmove(d, c, sizeof(float) * static_cast<std::size_t>(m * n));
  for (int i = 0; i < m; ++i) {
    float* row = d + i * n;
    for (int l = 0; l < k; ++l) {
      const float factor = a[i * k + l];
      for (int j = 0; j < n; ++j) row[j] += factor * b[l * n + j];
    }
  }
}

void checkTile(const void* tile, unsigned stride, unsigned elementBytes, const Site& site) {
  if (reinterpret_cast<std::uintptr_t>(tile) % 32 != 0)
    reportMisuse(site, "the tile is not aligned to 32 bytes");
  if (stride * elementBytes % 16 != 0)
    reportMisuse(site, "the stride is not a multiple of 16 bytes");
}

}  // namespace loko::emulation
