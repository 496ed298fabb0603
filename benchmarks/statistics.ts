/** The value below which a share of the values lies, by linear interpolation; NaN of no values. */
export function quantile(values: ArrayLike<number>, share: number): number {
  const sorted = Float64Array.from(values).sort();
  if (sorted.length === 0) return Number.NaN;
  const position = share * (sorted.length - 1);
  const below = Math.floor(position);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below]! + (position - below) * (sorted[above]! - sorted[below]!);
}

export const median = (values: ArrayLike<number>): number => quantile(values, 0.5);

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Largest |a − b| / |b| over the steps that both have; NaN where there is none. */
export function largestRelativeDifference(a: readonly number[], b: readonly number[]): number {
  const steps = Math.min(a.length, b.length);
  let largest = steps === 0 ? Number.NaN : 0;
  for (let i = 0; i < steps; i++) {
    largest = Math.max(largest, Math.abs(a[i]! - b[i]!) / Math.abs(b[i]!));
  }
  return largest;
}
