// What convolutional nets have in common: configurations, and what PyTorch keeps beside the weights.

import { describe, LokoError } from "../errors.js";
import { type JsonObject, originOf } from "../io/json.js";
import type { ModelGraph } from "../nn/graph.js";
import type { CarriedTensor } from "./carried.js";

const MAX_STAGES = 16;
const MAX_SIZE = 2 ** 16;
/** Published nets have up to 64 layers in a stage; a number in a file must not decide how long a load takes. */
export const MAX_DEPTH = 2 ** 8;

/**
 * A list of whole numbers >= 1, one for each stage.
 *
 * @throws LokoError ERR_CONFIG
 */
export function readSizes(config: JsonObject, key: string, max = MAX_SIZE): readonly number[] {
  const value = Object.hasOwn(config, key) ? config[key] : undefined;
  const isSize = (size: unknown) =>
    Number.isSafeInteger(size) && (size as number) >= 1 && (size as number) <= max;
  if (
    Array.isArray(value) &&
    value.length >= 1 &&
    value.length <= MAX_STAGES &&
    value.every(isSize)
  ) {
    return value as number[];
  }
  throw new LokoError(
    "ERR_CONFIG",
    `${originOf(config)}: "${key}" must be an array of 1 to ${MAX_STAGES} integers between 1 and ${max}, ` +
      `got ${describe(value)}.`,
  );
}

/** `num_batches_tracked` of every batch norm: a count of training steps, which nothing reads in eval mode. */
export function batchCounters(graph: ModelGraph): CarriedTensor[] {
  return graph.weights
    .filter(({ name }) => name.endsWith(".running_mean"))
    .map(({ name }) => ({
      name: name.replace(/running_mean$/, "num_batches_tracked"),
      shape: [],
      isParameter: false,
    }));
}
