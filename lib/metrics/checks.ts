import { types } from "node:util";
import { describe, LokoError } from "../errors.js";

/**
 * Checks that two named lists of numbers belong together.
 *
 * @throws LokoError ERR_INPUT_TYPE, ERR_SHAPE_MISMATCH.
 */
export function checkSameLength(lists: Readonly<Record<string, ArrayLike<number>>>): void {
  for (const [name, values] of Object.entries(lists)) {
    if (!Array.isArray(values) && !types.isTypedArray(values)) {
      throw new LokoError(
        "ERR_INPUT_TYPE",
        `${name} must be an array or a typed array of numbers, got ${describe(values)}.`,
      );
    }
  }
  const [a, b] = Object.values(lists).map(({ length }) => length);
  if (a !== b) {
    throw new LokoError(
      "ERR_SHAPE_MISMATCH",
      `${Object.keys(lists).join(" and ")} must have as many elements, got ${a} and ${b}.`,
    );
  }
}

/** @throws LokoError ERR_SHAPE_MISMATCH. */
export function checkNotEmpty(count: number): void {
  if (count > 0) return;
  throw new LokoError("ERR_SHAPE_MISMATCH", "A metric needs at least one sample, got none.");
}
