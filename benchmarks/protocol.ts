// What coordinator and children say to each other: one JSON value a line. A child first says that it is
// ready, or why it cannot; then it answers each request. It ends with its stdin.

/** First line of a child. */
export type Greeting = { readonly ready: Readonly<Record<string, unknown>> } | Failure;

export interface Failure {
  readonly failed: string;
}

/** Asks for steps; both sides go through the batches in order and begin anew after the last. */
export interface Request {
  readonly steps: number;
  /** Begin a new measurement of the memory peak, where the system can. */
  readonly resetPeak?: boolean;
}

/** What the steps took and saw. */
export interface Reply {
  readonly seconds: readonly number[];
  /** Cross entropy of the prediction before the step. */
  readonly losses: readonly number[];
  /** Cotangent rows that were propagated. */
  readonly rows: readonly number[];
  /** Largest resident memory since the start of the process or the last reset; 0 where unknown. */
  readonly peakBytes: number;
  /** Processor time of all threads over these steps; only our side measures it. */
  readonly cpuSeconds?: number;
  /** JavaScript-to-native calls; only our side counts them. */
  readonly crossings?: number;
}
