import { types } from "node:util";
import { describe, LokoError, nearestNames } from "../errors.js";
import { checkLabels, checkValues } from "../models/inputs.js";
import type { Targets } from "../optim/optimizer.js";
import { checkOptions, integerIn } from "../options.js";
import { checkNotEmpty } from "./checks.js";
import { ConfusionMatrix } from "./confusion.js";
import { RunningMean } from "./mean.js";

const CLASSIFICATION = {
  accuracy: (matrix) => matrix.accuracy(),
  f1: (matrix) => matrix.f1Score("binary"),
  f1Macro: (matrix) => matrix.f1Score("macro"),
  f1Micro: (matrix) => matrix.f1Score("micro"),
  f1Weighted: (matrix) => matrix.f1Score("weighted"),
  matthewsCorrelation: (matrix) => matrix.matthewsCorrelation(),
} satisfies Record<string, (matrix: ConfusionMatrix) => number>;

/**
 * What {@link MetricAccumulator} computes: `"accuracy"`, `"f1"` (of class 1), `"f1Macro"`, `"f1Micro"`,
 * `"f1Weighted"` and `"matthewsCorrelation"` for classification, `"meanSquaredError"` for regression; each as
 * scikit-learn defines it.
 *
 * @useDeclaredType
 */
export type MetricName = keyof typeof CLASSIFICATION | "meanSquaredError";

/** What a model's targets are: class indices, or floats. */
export type Task = "classification" | "regression";

/** The metrics of a task; the first is the one computed by default. */
export const METRICS: Readonly<Record<Task, readonly MetricName[]>> = {
  classification: Object.keys(CLASSIFICATION) as MetricName[],
  regression: ["meanSquaredError"],
};

/**
 * How well a model did on some samples: the metrics that were asked for, by their names, and always the number
 * of samples and the loss.
 */
export interface Evaluation extends Readonly<Partial<Record<MetricName, number>>> {
  /** Number of samples. */
  readonly samples: number;
  /**
   * Mean over the samples: cross entropy in nats for class indices, squared error over all outputs for
   * float targets. NaN when a logit was not finite.
   */
  readonly loss: number;
}

/** Predictions beside what should have been predicted, as each event of `trainOnline` has them. */
export interface Predicted {
  /** [B * m], row-major. */
  readonly logits: Float32Array;
  /** Class indices [B], or float targets [B * m]. */
  readonly labels: Targets;
}

/** Options of {@link MetricAccumulator}. */
export interface MetricOptions {
  /** What to compute. Default `["accuracy"]` for class indices, `["meanSquaredError"]` for floats. */
  metrics?: readonly MetricName[];
  /**
   * Number of outputs m. Default: what the logits have for each class index; 1 for float targets, whose
   * elements are then counted as samples.
   */
  outputs?: number;
}

/**
 * Gathers loss and metrics over any number of batches, in float64. Fed with the events of `trainOnline`
 * it gives online (predict-first) metrics.
 *
 * @example
 * ```ts
 * const online = new MetricAccumulator({ metrics: ["f1", "matthewsCorrelation"] });
 * for await (const event of trainOnline(model, optimizer, stream)) online.add(event);
 * const { loss, f1 } = online.result();
 * ```
 */
export class MetricAccumulator {
  readonly #asked: readonly MetricName[] | undefined;
  readonly #outputs: number | undefined;
  readonly #matrix = new ConfusionMatrix();
  readonly #loss = new RunningMean();
  #task: Task | undefined;
  #samples = 0;

  /** @throws LokoError ERR_OPTION, also for an unknown metric. */
  constructor(options: MetricOptions = {}) {
    checkOptions("MetricAccumulator", options, {
      metrics: { expected: "an array of metrics", accepts: Array.isArray },
      outputs: integerIn(1),
    });
    const { metrics, outputs } = options;
    for (const name of metrics ?? []) checkMetric(name);
    this.#asked = metrics && [...metrics];
    this.#outputs = outputs;
  }

  /** Samples gathered so far. */
  get samples(): number {
    return this.#samples;
  }

  /**
   * Adds a batch.
   *
   * @throws LokoError ERR_INPUT_TYPE (also for labels of another type than before),
   * ERR_SHAPE_MISMATCH, ERR_LABEL_RANGE, ERR_INPUT_NOT_FINITE for a target; ERR_OPTION when a metric
   * does not fit the labels. Nothing is added then.
   */
  add({ logits, labels }: Predicted): void {
    if (!types.isFloat32Array(logits)) throw typeError("logits", "a Float32Array", logits);
    if (types.isFloat32Array(labels)) {
      this.#enter("regression");
      this.#addValues(logits, labels);
    } else if (types.isInt32Array(labels)) {
      this.#enter("classification");
      this.#addLabels(logits, labels);
    } else {
      throw typeError("labels", "an Int32Array or a Float32Array", labels);
    }
  }

  /**
   * Loss and metrics of all batches so far.
   *
   * @throws LokoError ERR_SHAPE_MISMATCH when there was none; ERR_OPTION for `"f1"` of more than two
   * classes.
   */
  result(): Evaluation {
    checkNotEmpty(this.#samples);
    const task = this.#task!;
    const names = this.#asked ?? METRICS[task].slice(0, 1);
    const loss = this.#loss.mean();
    const values = names.map((name) => [
      name,
      name === "meanSquaredError" ? loss : CLASSIFICATION[name](this.#matrix),
    ]);
    return { samples: this.#samples, loss, ...Object.fromEntries(values) };
  }

  #enter(task: Task): void {
    if (this.#task === task) return;
    if (this.#task !== undefined) {
      throw new LokoError(
        "ERR_INPUT_TYPE",
        "All labels must be class indices (Int32Array), or all float targets (Float32Array).",
      );
    }
    checkMetricsFit(this.#asked ?? [], task);
    this.#task = task;
  }

  #addLabels(logits: Float32Array, labels: Int32Array): void {
    const outputs = this.#outputs ?? logits.length / labels.length;
    if (labels.length * outputs !== logits.length || !Number.isInteger(outputs) || outputs === 0) {
      throw new LokoError(
        "ERR_SHAPE_MISMATCH",
        `logits must have ${labels.length} x ${this.#outputs ?? "m"} elements, one row for each of ` +
          `the ${labels.length} labels, got ${logits.length}.`,
      );
    }
    checkLabels(labels, labels.length, outputs);
    const predictions = new Int32Array(labels.length);
    for (let b = 0; b < labels.length; b++) {
      const row = logits.subarray(b * outputs, (b + 1) * outputs);
      predictions[b] = predict(row);
      this.#loss.add(crossEntropy(row, labels[b]!));
    }
    this.#matrix.add(labels, predictions);
    this.#samples += labels.length;
  }

  #addValues(logits: Float32Array, targets: Float32Array): void {
    const { length } = logits;
    const outputs = this.#outputs ?? 1;
    if (length === 0 || length % outputs !== 0) {
      throw new LokoError(
        "ERR_SHAPE_MISMATCH",
        `logits must have B x ${outputs} elements, got ${length}.`,
      );
    }
    checkValues(targets, length / outputs, outputs);
    for (let i = 0; i < targets.length; i++) this.#loss.add((logits[i]! - targets[i]!) ** 2);
    this.#samples += length / outputs;
  }
}

/**
 * Index of the largest logit, the first of equals; -1 where they are not all finite.
 *
 * @internal
 */
export function predict(logits: Float32Array): number {
  if (!logits.every(Number.isFinite)) return -1;
  let best = 0;
  for (let c = 1; c < logits.length; c++) if (logits[c]! > logits[best]!) best = c;
  return best;
}

/** −log softmax(z)[label]. */
function crossEntropy(logits: Float32Array, label: number): number {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - largest);
  return Math.log(sum) + (largest - logits[label]!);
}

function typeError(name: string, expected: string, got: unknown): LokoError {
  return new LokoError("ERR_INPUT_TYPE", `${name} must be ${expected}, got ${describe(got)}.`);
}

function checkMetric(name: unknown): void {
  const known = Object.values(METRICS).flat();
  if (known.includes(name as MetricName)) return;
  const near = nearestNames(String(name), known).map(describe).join(", ");
  throw new LokoError("ERR_OPTION", `Unknown metric ${describe(name)}; the nearest are ${near}.`);
}

/**
 * Checks that metrics have a meaning for a task.
 *
 * @throws LokoError ERR_OPTION.
 * @internal
 */
export function checkMetricsFit(metrics: readonly MetricName[], task: Task): void {
  for (const name of metrics) {
    checkMetric(name);
    if (METRICS[task].includes(name)) continue;
    throw new LokoError(
      "ERR_OPTION",
      `The metric ${describe(name)} does not fit ${task}; use ` +
        `${METRICS[task].map(describe).join(", ")}.`,
    );
  }
}
