// What the steps of a training came to: since the last log entry, and since its beginning.

import type { BatchResult, LogEntry } from "./trainer-events.js";

/** Sums that a checkpoint keeps, so that a resumed run logs what an uninterrupted one does. */
export interface RunningTotals {
  /** Steps with a finite loss, and the sum of their losses. */
  lossSteps: number;
  lossSum: number;
  samples: number;
  correct: number;
  rows: number;
  passes: number;
  skipped: number;
}

export const ZERO: RunningTotals = {
  lossSteps: 0,
  lossSum: 0,
  samples: 0,
  correct: 0,
  rows: 0,
  passes: 0,
  skipped: 0,
};

/** A step as the log sees it. */
interface LoggedStep {
  readonly results: readonly BatchResult[];
  readonly learningRate: number | undefined;
}

/** Everything of {@link History} that a checkpoint keeps. */
export interface HistoryState {
  /** Since the last log entry. */
  readonly window: RunningTotals;
  readonly total: RunningTotals;
  /** Of the last step what a log entry tells of it, by its keys there. */
  readonly last: Readonly<Record<string, number>>;
  readonly log: readonly LogEntry[];
}

/** Gathers steps into log entries. */
export class History {
  readonly log: LogEntry[] = [];
  #window: RunningTotals = { ...ZERO };
  #total: RunningTotals = { ...ZERO };
  #last: Readonly<Record<string, number>> = {};
  #hasFiniteOutputs = true;

  static from({
    window,
    total,
    log,
    last = {},
  }: Omit<HistoryState, "last"> & Partial<HistoryState>): History {
    const history = new History();
    history.#window = { ...window };
    history.#total = { ...total };
    history.#last = { ...last };
    // One by one: a call with as many arguments as a long log has entries would overflow the stack.
    for (const entry of log) history.log.push(entry);
    return history;
  }

  get state(): HistoryState {
    return { window: this.#window, total: this.#total, last: this.#last, log: this.log };
  }

  get samples(): number {
    return this.#total.samples;
  }

  /** NaN before the first sample. */
  get onlineAccuracy(): number {
    return this.#total.correct / this.#total.samples;
  }

  /** Mean over all steps; NaN before the first. */
  get meanLoss(): number {
    return this.#total.lossSum / this.#total.lossSteps;
  }

  /** Steps that changed nothing. */
  get skipped(): number {
    return this.#total.skipped;
  }

  /** Whether there are steps that no entry tells of. */
  get isPending(): boolean {
    return this.#window.passes > 0;
  }

  /** Whether the outputs of the model in the last step were: what has diverged has none any more. */
  get hasFiniteOutputs(): boolean {
    return this.#hasFiniteOutputs;
  }

  add(step: LoggedStep): void {
    const samples = sum(step.results, ({ predictions }) => predictions.length);
    const loss = sum(step.results, (result) => result.loss * result.predictions.length) / samples;
    const skipped = step.results.some((result) => result.skipped !== null) ? 1 : 0;
    for (const totals of [this.#window, this.#total]) {
      if (Number.isFinite(loss)) {
        totals.lossSteps++;
        totals.lossSum += loss;
      }
      totals.samples += samples;
      totals.correct += sum(step.results, ({ correct }) => correct);
      totals.rows += sum(step.results, ({ rows }) => rows);
      totals.passes += step.results.length;
      totals.skipped += skipped;
    }
    this.#last = lastOf(step);
    this.#hasFiniteOutputs = step.results.at(-1)!.skipped !== "non-finite-logits";
  }

  /** The entry of the steps since the last one; only what is finite. */
  take(): Record<string, number> {
    const { lossSum, lossSteps, samples, correct, rows, passes, skipped } = this.#window;
    const entry = finiteOnly({
      loss: lossSum / lossSteps,
      ...this.#last,
      window_accuracy: correct / samples,
      online_accuracy: this.onlineAccuracy,
      // Only LoKO has another number of them than one.
      rows: "p_mean" in this.#last ? rows / passes : undefined,
      skipped: skipped === 0 ? undefined : skipped,
    });
    this.#window = { ...ZERO };
    return entry;
  }
}

function lastOf({ results, learningRate }: LoggedStep): Record<string, number> {
  const { gradientNorm, kalman } = results.at(-1)!;
  return finiteOnly({
    grad_norm: gradientNorm,
    learning_rate: learningRate,
    ...(kalman && {
      p_mean: kalman.pMean,
      p_min: kalman.pMin,
      p_max: kalman.pMax,
      gain: kalman.gain,
      trace_r: kalman.traceR,
      nis: kalman.nis,
    }),
  });
}

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0);
}

/** Without what is absent or not finite. */
export function finiteOnly(
  values: Readonly<Record<string, number | undefined>>,
): Record<string, number> {
  const kept = Object.entries(values).filter(([, value]) => Number.isFinite(value));
  return Object.fromEntries(kept) as Record<string, number>;
}
