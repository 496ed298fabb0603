// Batch norm, pooling and ReLU masks, written once for all vector widths. Part of kernels_ops.inc.h.

void maskPositiveKernel(float* y, const float* x, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i += kWidth) {
    const int left = n - i < kWidth ? static_cast<int>(n - i) : kWidth;
    const Vec positive = loadLanes(x + i, left);
    storeLanes(y + i, select(positive > broadcast(0.0f), loadLanes(y + i, left), broadcast(0.0f)),
               left);
  }
}

// Both directions must agree on the sign of z to the bit.
LOKO_INLINE Vec normalized(const BatchNormRow& row, int i, int left) {
  return fma(loadLanes(row.scale + i, left), loadLanes(row.x + i, left),
             loadLanes(row.shift + i, left));
}

void batchNormKernel(const BatchNormRow& row, float* y) {
  const Vec zero = broadcast(0.0f);
  for (int i = 0; i < row.columns; i += kWidth) {
    const int left = row.columns - i;
    Vec z = normalized(row, i, left);
    // Written so that NaN passes.
    if (row.relu) z = select(z < zero, zero, z);
    storeLanes(y + i, z, left);
  }
}

void batchNormBackwardKernel(const BatchNormRow& row, const float* dy, float* dx, bool accumulate) {
  const Vec zero = broadcast(0.0f);
  for (int i = 0; i < row.columns; i += kWidth) {
    const int left = row.columns - i;
    Vec value = loadLanes(row.scale + i, left) * loadLanes(dy + i, left);
    if (row.relu) value = select(normalized(row, i, left) > zero, value, zero);
    if (accumulate) value += loadLanes(dx + i, left);
    storeLanes(dx + i, value, left);
  }
}

void maxUpdateKernel(float* best, float* index, const float* x, float tap, int n) {
  for (int i = 0; i < n; i += kWidth) {
    const int left = n - i;
    const Vec value = loadLanes(x + i, left), held = loadLanes(best + i, left);
    const IntVec larger = (value > held) | (value != value);
    storeLanes(best + i, select(larger, value, held), left);
    if (index)
      storeLanes(index + i, select(larger, broadcast(tap), loadLanes(index + i, left)), left);
  }
}

void addWhereEqualKernel(float* dx, const float* dy, const float* index, float tap, int n) {
  for (int i = 0; i < n; i += kWidth) {
    const int left = n - i;
    const IntVec chosen = loadLanes(index + i, left) == broadcast(tap);
    const Vec held = loadLanes(dx + i, left);
    storeLanes(dx + i, select(chosen, held + loadLanes(dy + i, left), held), left);
  }
}
