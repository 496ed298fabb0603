// Means, 95 % intervals and the comparisons of the report, from the lines of the results file.

import { BLOCK, HELD_OUT, type RunRecord } from "./run.js";

/** Quantiles t(0.975) of Student's distribution for 1, 2, … degrees of freedom. */
const T975 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];

export interface Estimate {
  readonly mean: number;
  /** Half of the 95 % interval of the mean over seeds; NaN for one seed. */
  readonly half: number;
}

export function estimate(values: readonly number[]): Estimate {
  const n = values.length;
  const mean = values.reduce((a, b) => a + b, 0) / n;
  if (n < 2) return { mean, half: Number.NaN };
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1);
  return { mean, half: (T975[n - 2] ?? 1.96) * Math.sqrt(variance / n) };
}

/** Accuracies in points (0 to 100). */
export function accuracyBetween(record: RunRecord, from: number, to: number): number {
  const [first, last] = [
    Math.round(from * record.hits.length),
    Math.round(to * record.hits.length),
  ];
  const hits = record.hits.slice(first, last).reduce((a, b) => a + b, 0);
  return (100 * hits) / Math.min(record.samples - first * BLOCK, (last - first) * BLOCK);
}

export const online = (record: RunRecord) => accuracyBetween(record, 0, 1);
export const lastQuarter = (record: RunRecord) => accuracyBetween(record, 0.75, 1);
export const secondHalf = (record: RunRecord) => accuracyBetween(record, 0.5, 1);

/** Runs by contender, in the order of their seeds. */
export function byContender(records: readonly RunRecord[]): ReadonlyMap<string, RunRecord[]> {
  const groups = new Map<string, RunRecord[]>();
  for (const record of [...records].sort((a, b) => a.seed - b.seed)) {
    const group = groups.get(record.contender);
    if (group === undefined) groups.set(record.contender, [record]);
    else group.push(record);
  }
  return groups;
}

const meanOf = (records: readonly RunRecord[], figure: (record: RunRecord) => number) =>
  estimate(records.map(figure)).mean;

/** The gradient method and learning rate with the best mean of `figure`, chosen with hindsight. */
export function bestBaseline(
  groups: ReadonlyMap<string, RunRecord[]>,
  isBaseline: (name: string) => boolean,
  figure: (record: RunRecord) => number = online,
): RunRecord[] | undefined {
  let best: RunRecord[] | undefined;
  for (const [name, records] of groups) {
    if (!isBaseline(name)) continue;
    if (best === undefined || meanOf(records, figure) > meanOf(best, figure)) best = records;
  }
  return best;
}

/** Blocks of the moving mean by which it is said when an accuracy is reached: 250 samples. */
const WINDOW = 10;

/**
 * Samples until the accuracy of the last {@link WINDOW} blocks, averaged over seeds, first reaches `target`;
 * undefined when it never does.
 */
export function samplesToReach(
  records: readonly RunRecord[],
  target: number,
  from = 0,
): number | undefined {
  const blocks = records[0]!.hits.length;
  const start = Math.round(from * blocks);
  for (let end = start + WINDOW; end <= blocks; end++) {
    if (meanOf(records, (r) => accuracyBetween(r, (end - WINDOW) / blocks, end / blocks)) >= target)
      return end * BLOCK;
  }
  return undefined;
}

/** The accuracy on the held-out samples after each block, mean over seeds; empty where a run was not tested. */
export function heldOutCurve(records: readonly RunRecord[]): readonly number[] {
  const tested = records.map(({ heldOut }) => heldOut?.length ?? 0);
  const points = tested.length === 0 ? 0 : Math.min(...tested);
  return Array.from({ length: points }, (_, i) =>
    meanOf(records, ({ heldOut }) => (100 * heldOut![i]!) / HELD_OUT),
  );
}

/** Samples after `from` until a curve of {@link heldOutCurve} first reaches `target`. */
export function samplesOnCurve(
  curve: readonly number[],
  target: number,
  from = 0,
): number | undefined {
  const start = Math.round(from * (curve.length - 1));
  const end = curve.findIndex((accuracy, i) => i > start && accuracy >= target);
  return end < 0 ? undefined : (end - start) * BLOCK;
}

/** Runs whose last quarter is below the frozen model's on the same samples. */
export function collapses(
  records: readonly RunRecord[],
  frozen: readonly RunRecord[],
): readonly number[] {
  return records
    .filter((record) => {
      const same = frozen.find(({ seed }) => seed === record.seed);
      return same !== undefined && lastQuarter(record) < lastQuarter(same);
    })
    .map(({ seed }) => seed);
}
