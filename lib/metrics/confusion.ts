import { describe, LokoError } from "../errors.js";
import { checkNotEmpty, checkSameLength } from "./checks.js";

/**
 * How the F1 scores of the classes become one number, with the meanings of scikit-learn's `f1_score`:
 * - `"binary"`: the F1 score of class 1; at most two classes may occur.
 * - `"macro"`: the mean over the classes that occur among labels or predictions.
 * - `"micro"`: of the counts of all classes together; the same as the accuracy.
 * - `"weighted"`: the mean weighted by the number of labels of each class.
 */
export type F1Average = "binary" | "macro" | "micro" | "weighted";

const AVERAGES: readonly F1Average[] = ["binary", "macro", "micro", "weighted"];

/** What the optimizers report where logits are not finite: a prediction that is never right. */
const NO_PREDICTION = -1;

interface ClassCounts {
  labels: number;
  predictions: number;
  correct: number;
}

/**
 * Counts how often each label met each prediction. Memory grows with the pairs that occur, not with the
 * number of samples, so it serves as the accumulator of all metrics of classification. Any integer is a
 * class; a prediction of -1, which optimizers report where the logits are not finite, is a class that
 * no label has.
 *
 * @example
 * ```ts
 * const matrix = new ConfusionMatrix();
 * for (const { labels, predictions } of results) matrix.add(labels, predictions);
 * console.log(matrix.accuracy(), matrix.f1Score("macro"));
 * ```
 */
export class ConfusionMatrix {
  readonly #rows = new Map<number, Map<number, number>>();
  #samples = 0;

  /** Number of samples counted. */
  get samples(): number {
    return this.#samples;
  }

  /** The classes that occur among labels or predictions, ascending. */
  get classes(): number[] {
    return [...this.#classCounts().keys()].sort((a, b) => a - b);
  }

  /**
   * Counts a batch.
   *
   * @param labels - the true class of each sample.
   * @param predictions - as many.
   * @throws LokoError ERR_INPUT_TYPE for what is no array of numbers, ERR_SHAPE_MISMATCH for different
   * lengths, ERR_LABEL_RANGE for what is no integer; nothing of the batch is counted then.
   */
  add(labels: ArrayLike<number>, predictions: ArrayLike<number>): void {
    checkSameLength({ labels, predictions });
    checkIntegers(labels, "labels");
    checkIntegers(predictions, "predictions");
    for (let i = 0; i < labels.length; i++) {
      let row = this.#rows.get(labels[i]!);
      if (row === undefined) {
        row = new Map();
        this.#rows.set(labels[i]!, row);
      }
      row.set(predictions[i]!, (row.get(predictions[i]!) ?? 0) + 1);
    }
    this.#samples += labels.length;
  }

  /** How many samples with this label were predicted so. */
  count(label: number, prediction: number): number {
    return this.#rows.get(label)?.get(prediction) ?? 0;
  }

  /**
   * Share of samples predicted correctly.
   *
   * @throws LokoError ERR_SHAPE_MISMATCH when nothing was counted.
   */
  accuracy(): number {
    checkNotEmpty(this.#samples);
    let correct = 0;
    for (const label of this.#rows.keys()) correct += this.count(label, label);
    return correct / this.#samples;
  }

  /**
   * F1 score, 2·TP / (2·TP + FP + FN); 0 for a class without labels and predictions.
   *
   * @param average - default `"binary"`.
   * @throws LokoError ERR_OPTION for an unknown average, and for `"binary"` when other classes than two
   * with class 1 among them occur; ERR_SHAPE_MISMATCH when nothing was counted.
   */
  f1Score(average: F1Average = "binary"): number {
    checkNotEmpty(this.#samples);
    const classes = this.#classCounts();
    switch (average) {
      case "binary":
        checkBinary([...classes.keys()]);
        return f1Of(classes.get(1));
      case "micro":
        return this.accuracy();
      case "macro":
        return sum(classes.values(), f1Of) / classes.size;
      case "weighted":
        return sum(classes.values(), (counts) => f1Of(counts) * counts.labels) / this.#samples;
      default:
        throw new LokoError(
          "ERR_OPTION",
          `average must be one of ${AVERAGES.map(describe).join(", ")}, got ${describe(average)}.`,
        );
    }
  }

  /**
   * Matthews correlation coefficient in [-1, 1], for two classes and more (Gorodkin 2004); 0 where it is
   * undefined because all labels or all predictions are of one class.
   *
   * @throws LokoError ERR_SHAPE_MISMATCH when nothing was counted.
   */
  matthewsCorrelation(): number {
    checkNotEmpty(this.#samples);
    const classes = [...this.#classCounts().values()];
    const total = this.#samples;
    const correct = sum(classes, (counts) => counts.correct);
    const covariance = correct * total - sum(classes, (c) => c.labels * c.predictions);
    const ofLabels = total ** 2 - sum(classes, (c) => c.labels ** 2);
    const ofPredictions = total ** 2 - sum(classes, (c) => c.predictions ** 2);
    if (ofLabels === 0 || ofPredictions === 0) return 0;
    return covariance / Math.sqrt(ofLabels * ofPredictions);
  }

  #classCounts(): Map<number, ClassCounts> {
    const classes = new Map<number, ClassCounts>();
    const at = (name: number): ClassCounts => {
      const counts = classes.get(name) ?? { labels: 0, predictions: 0, correct: 0 };
      classes.set(name, counts);
      return counts;
    };
    for (const [label, row] of this.#rows) {
      for (const [prediction, count] of row) {
        at(label).labels += count;
        at(prediction).predictions += count;
        if (label === prediction) at(label).correct += count;
      }
    }
    return classes;
  }
}

function f1Of(counts: ClassCounts | undefined): number {
  return counts === undefined ? 0 : (2 * counts.correct) / (counts.labels + counts.predictions);
}

function sum<T>(items: Iterable<T>, term: (item: T) => number): number {
  let total = 0;
  for (const item of items) total += term(item);
  return total;
}

function checkIntegers(values: ArrayLike<number>, name: string): void {
  for (let i = 0; i < values.length; i++) {
    if (!Number.isSafeInteger(values[i])) {
      throw new LokoError(
        "ERR_LABEL_RANGE",
        `${name}[${i}] must be a class, an integer, got ${describe(values[i])}.`,
      );
    }
  }
}

function checkBinary(classes: readonly number[]): void {
  const real = classes.filter((name) => name !== NO_PREDICTION);
  if (real.length < 2 || (real.length === 2 && real.includes(1))) return;
  throw new LokoError(
    "ERR_OPTION",
    `The average "binary" is the F1 score of class 1 against one other class; the classes here are ` +
      `${real.slice(0, 10).join(", ")}${real.length > 10 ? ", ..." : ""}. Use "macro", "micro" or ` +
      `"weighted".`,
  );
}

/**
 * Share of samples predicted correctly, as scikit-learn's `accuracy_score`.
 *
 * @param labels - the true class of each sample.
 * @param predictions - as many.
 * @throws LokoError ERR_INPUT_TYPE for what is no array of numbers, ERR_SHAPE_MISMATCH for different
 * lengths or no sample, ERR_LABEL_RANGE for what is no integer.
 */
export function accuracy(labels: ArrayLike<number>, predictions: ArrayLike<number>): number {
  return matrixOf(labels, predictions).accuracy();
}

/**
 * F1 score, as scikit-learn's `f1_score`.
 *
 * @param labels - the true class of each sample.
 * @param predictions - as many.
 * @param options - `average`, default `"binary"`, the F1 score of class 1.
 * @throws LokoError as {@link accuracy}, and ERR_OPTION as {@link ConfusionMatrix.f1Score}.
 */
export function f1Score(
  labels: ArrayLike<number>,
  predictions: ArrayLike<number>,
  { average = "binary" }: { average?: F1Average } = {},
): number {
  return matrixOf(labels, predictions).f1Score(average);
}

/**
 * Matthews correlation coefficient of two or more classes, as scikit-learn's `matthews_corrcoef`.
 *
 * @throws LokoError as {@link accuracy}.
 */
export function matthewsCorrelation(
  labels: ArrayLike<number>,
  predictions: ArrayLike<number>,
): number {
  return matrixOf(labels, predictions).matthewsCorrelation();
}

function matrixOf(labels: ArrayLike<number>, predictions: ArrayLike<number>): ConfusionMatrix {
  const matrix = new ConfusionMatrix();
  matrix.add(labels, predictions);
  return matrix;
}
