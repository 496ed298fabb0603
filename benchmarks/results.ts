// From what was recorded to the figures of the table.
import { CONTENDERS } from "./contenders.js";
import { adapterSize, countFlops, stepFlops } from "./flops.js";
import type { Machine } from "./machine.js";
import { MODELS } from "./models.js";
import type { Race, Recording } from "./race.js";
import { largestRelativeDifference, mean, median, quantile } from "./statistics.js";
import type { Bar, Trial } from "./trials.js";

/** One line of the table. Times are of a step; NaN never occurs, what cannot be known is `null`. */
export interface Row {
  readonly contender: string;
  readonly steps: number;
  /** Mean of the cotangent rows of a step. */
  readonly rows: number;
  readonly medianSeconds: number;
  readonly p95Seconds: number;
  readonly samplesPerSecond: number;
  /** Processor time of a step, all threads: median over turns; `null` where it was not measured. */
  readonly cpuSeconds: number | null;
  readonly stepPeakBytes: number;
  readonly processPeakBytes: number;
  /** Operations that a step needs, see flops.ts. */
  readonly flops: number;
  readonly gflops: number;
  /** Of the multiply-add peak: median over rounds, each against the peak of the same round. */
  readonly shareOfPeak: number | null;
  /** Time over `flops` / peak, likewise. */
  readonly timeOverFloor: number | null;
  readonly crossingsPerStep?: number | undefined;
  readonly roundMedianSeconds: readonly number[];
}

/** What became of a bar; `value` is `null` where a contender took no part. */
export interface BarResult extends Bar {
  readonly value: number | null;
}

export interface TrialResult {
  readonly trial: Trial;
  readonly rows: readonly Row[];
  readonly skipped: Readonly<Record<string, string>>;
  /** Median over rounds in GFLOP/s; `null` where it cannot be measured. */
  readonly peakGflops: number | null;
  readonly bars: readonly BarResult[];
  /** Largest relative difference between the losses of our and PyTorch's contender with the same work. */
  readonly lossDifferences: readonly LossDifference[];
}

export interface LossDifference {
  readonly of: string;
  readonly against: string;
  readonly steps: number;
  readonly largest: number;
}

/** The content of a result file. */
export interface Results {
  readonly date: string;
  readonly set: string;
  readonly machine: Machine;
  /** Versions of PyTorch's side; `null` where it was left out. */
  readonly python: Readonly<Record<string, unknown>> | null;
  readonly trials: readonly TrialResult[];
}

export function summarise(race: Race): TrialResult {
  const { trial, recordings, skipped, peaks } = race;
  const rows = recordings.map((recording) => summariseRow(race, recording));
  return {
    trial,
    rows,
    skipped,
    peakGflops: peaks.length > 0 ? median(peaks) : null,
    bars: trial.bars.map((bar) => ({ ...bar, value: measure(bar, rows, recordings) })),
    lossDifferences: compareLosses(recordings),
  };
}

function summariseRow({ trial, peaks }: Race, recording: Recording): Row {
  const { turns } = recording;
  const seconds = turns.flatMap((turn) => turn.seconds);
  const rows = turns.flatMap((turn) => turn.rows);
  const shape = MODELS.get(trial.model)!;
  const sample = countFlops(shape, trial);
  const flopsOf = (rows: number) =>
    stepFlops(sample, {
      work: recording.kind.work,
      batch: trial.batch,
      rows,
      parameters: adapterSize(shape, trial),
    });
  const flops = mean(rows.map(flopsOf));
  const medianSeconds = median(seconds);
  const shares = turns.map(
    (turn) =>
      median(turn.seconds.map((s, i) => flopsOf(turn.rows[i]!) / s)) / (1e9 * peaks[turn.round]!),
  );
  const share = peaks.length > 0 ? median(shares) : null;
  return {
    contender: recording.name,
    steps: seconds.length,
    rows: mean(rows),
    medianSeconds,
    p95Seconds: quantile(seconds, 0.95),
    samplesPerSecond: (trial.batch * seconds.length) / seconds.reduce((a, b) => a + b, 0),
    cpuSeconds: processorTime(recording),
    stepPeakBytes: recording.stepPeakBytes,
    processPeakBytes: recording.processPeakBytes,
    flops,
    gflops: flops / medianSeconds / 1e9,
    shareOfPeak: share,
    timeOverFloor: share === null ? null : 1 / share,
    crossingsPerStep: recording.crossingsPerStep,
    roundMedianSeconds: turns.map((turn) => median(turn.seconds)),
  };
}

function processorTime({ turns }: Recording): number | null {
  const times = turns.flatMap(({ cpuSeconds, seconds }) =>
    cpuSeconds === undefined ? [] : cpuSeconds / seconds.length,
  );
  return times.length > 0 ? median(times) : null;
}

function measure(bar: Bar, rows: readonly Row[], recordings: readonly Recording[]): number | null {
  const row = (name?: string) => rows.find(({ contender }) => contender === name);
  const [of, against] = [row(bar.of), row(bar.against)];
  if (of === undefined) return null;
  switch (bar.metric) {
    case "floor":
      return of.timeOverFloor;
    case "microseconds":
      return 1e6 * of.medianSeconds;
    default:
      if (against === undefined) return null;
  }
  switch (bar.metric) {
    case "time":
      return of.medianSeconds / against.medianSeconds;
    case "cpu":
      return of.cpuSeconds && against.cpuSeconds ? of.cpuSeconds / against.cpuSeconds : null;
    case "memory":
      return against.stepPeakBytes > 0 ? of.stepPeakBytes / against.stepPeakBytes : null;
    case "losses": {
      const losses = (name: string) => recordings.find((r) => r.name === name)!.losses;
      return largestRelativeDifference(losses(of.contender), losses(against.contender));
    }
  }
}

/** Our contender against each of PyTorch's that does the same to the parameters. */
function compareLosses(recordings: readonly Recording[]): LossDifference[] {
  const pairs: LossDifference[] = [];
  for (const ours of recordings) {
    if (ours.kind.side !== "loko" || ours.kind.rows === "auto") continue;
    for (const theirs of recordings) {
      if (theirs.kind.side !== "torch" || theirs.kind.work !== ours.kind.work) continue;
      pairs.push({
        of: ours.name,
        against: theirs.name,
        steps: Math.min(ours.losses.length, theirs.losses.length),
        largest: largestRelativeDifference(ours.losses, theirs.losses),
      });
    }
  }
  return pairs;
}

/** A bar that was measured and is met; `undefined` where it could not be measured. */
export function isMet({ value, most }: BarResult): boolean | undefined {
  return value === null ? undefined : value <= most;
}

/** Contenders of a trial that can run here. */
export function runnable(trial: Trial, hasPython: boolean): string[] {
  return trial.contenders.filter((name) => hasPython || CONTENDERS.get(name)!.side === "loko");
}
