import { describe, LokoError } from "../errors.js";

/** Of the labels that a batch holds. */
const LARGEST = 2 ** 31 - 1;

/** What the label of an example has to be: a class index, or any number. */
export type LabelKind = "index" | "number";

/**
 * The label of an example that needs one. Examples come from any JavaScript, and a typed array would turn
 * every label into some number.
 *
 * @param where - names the example in a message
 * @throws LokoError ERR_DATA_COLUMN where there is none, ERR_LABEL_UNKNOWN for what is no number,
 * ERR_LABEL_RANGE for a number that is no class index, ERR_INPUT_NOT_FINITE for a target that is not finite.
 */
export function exampleLabel(label: unknown, kind: LabelKind, where: string): number {
  if (label === undefined || label === null) {
    throw new LokoError("ERR_DATA_COLUMN", `${where} has no label, and one is needed here.`);
  }
  const expected = kind === "index" ? "a class index" : "a number";
  if (typeof label !== "number") {
    const advice = typeof label === "string" ? "; a model's label2id has the index of a name" : "";
    throw new LokoError(
      "ERR_LABEL_UNKNOWN",
      `${where}: expected ${expected} as label, got ${describe(label)}${advice}.`,
    );
  }
  if (kind === "index" && !(Number.isInteger(label) && label >= 0 && label <= LARGEST)) {
    throw new LokoError(
      "ERR_LABEL_RANGE",
      `${where}: expected ${expected} as label, an integer in [0, ${LARGEST}], got ${label}.`,
    );
  }
  if (kind === "number" && !Number.isFinite(Math.fround(label))) {
    throw new LokoError(
      "ERR_INPUT_NOT_FINITE",
      `${where}: expected a finite target, got ${label}.`,
    );
  }
  return label;
}
