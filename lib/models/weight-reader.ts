import { byteLengthOf, type WritableDtype } from "../io/safetensors-writer.js";
import { elementsOf } from "../tensor/shape.js";
import type { ModelRuntime } from "./runtime.js";

/** The types of weights. */
export type FloatDtype = Exclude<WritableDtype, "I64">;

/** The present values of a weight, merged or as in the checkpoint, rounded to `dtype`; little-endian. */
export async function readWeight(
  runtime: ModelRuntime,
  name: string,
  shape: readonly number[],
  dtype: FloatDtype,
): Promise<Uint8Array> {
  const elements = elementsOf(shape);
  const target = new Uint8Array(byteLengthOf({ dtype, shape }));
  await runtime.run((session) => session.readWeight({ name, dtype, elements }, target));
  return target;
}
