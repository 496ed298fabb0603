import { describe, LokoError, nearestNames } from "../errors.js";

/** How the labels of a dataset are read. */
export interface LabelOptions {
  /**
   * Names that may stand for class indices. A string is looked up here first and then read as an
   * integer. `model.label2id` fits.
   */
  label2id?: ReadonlyMap<string, number> | Readonly<Record<string, number>>;
  /** Number of classes; a label that is not below it is an error. Default: no upper limit. */
  numLabels?: number;
  /** Labels are numbers to predict, and neither indices nor names. Default false. */
  regression?: boolean;
}

/** Reads the label of one record; `where` names its place for a message. */
export type ReadLabel = (value: unknown, where: () => string) => number | undefined;

/** Marks a row without a label, as in the test sets of GLUE. */
const NO_LABEL = -1;

/**
 * @returns a function that gives a class index, or undefined for -1; a float with `regression`. It
 * throws LokoError ERR_LABEL_UNKNOWN for a value that is no label and ERR_LABEL_RANGE for an index
 * outside of [0, numLabels).
 */
export function labelReader(options: LabelOptions): ReadLabel {
  if (options.regression) return readNumber;
  const ids = toMap(options.label2id);
  const { numLabels = Number.POSITIVE_INFINITY } = options;
  return (value, where) => {
    const index = toIndex(value, ids);
    if (index === undefined) throw unknownLabel(value, ids, where());
    if (index === NO_LABEL) return undefined;
    if (index >= 0 && index < numLabels) return index;
    const range = Number.isFinite(numLabels) ? `in [0, ${numLabels})` : ">= 0";
    throw new LokoError(
      "ERR_LABEL_RANGE",
      `${where()}: expected a label ${range}, or ${NO_LABEL} for none, got ${describe(value)}` +
        `${index === value ? "" : `, which stands for ${index}`}.`,
    );
  };
}

function toMap(ids: LabelOptions["label2id"] = {}): ReadonlyMap<string, number> {
  return ids instanceof Map ? ids : new Map(Object.entries(ids));
}

function toIndex(value: unknown, ids: ReadonlyMap<string, number>): number | undefined {
  if (typeof value === "boolean") return Number(value);
  const index =
    typeof value === "string"
      ? (ids.get(value) ?? (/^[+-]?\d+$/.test(value) ? Number(value) : undefined))
      : value;
  return Number.isSafeInteger(index) ? (index as number) : undefined;
}

/** Shows at most this many names, and the nearest to a mistyped one. */
const SHOWN_NAMES = 20;

function unknownLabel(value: unknown, ids: ReadonlyMap<string, number>, where: string): LokoError {
  const got = value === undefined ? "nothing" : describe(value);
  if (ids.size === 0) {
    return new LokoError(
      "ERR_LABEL_UNKNOWN",
      `${where}: expected an integer label, got ${got}. Pass label2id to read names.`,
    );
  }
  const names = ids.size > SHOWN_NAMES ? nearestNames(String(value), ids.keys()) : [...ids.keys()];
  return new LokoError(
    "ERR_LABEL_UNKNOWN",
    `${where}: expected an integer or a name of label2id, got ${got}; ` +
      `the ${ids.size > SHOWN_NAMES ? "nearest" : "known"} names are ${names.map(describe).join(", ")}.`,
  );
}

function readNumber(value: unknown, where: () => string): number {
  const number = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
  if (typeof number === "number" && Number.isFinite(Math.fround(number))) return number;
  const got = value === undefined ? "nothing" : describe(value);
  throw new LokoError(
    "ERR_LABEL_UNKNOWN",
    `${where()}: expected a finite number to predict, got ${got}.`,
  );
}
