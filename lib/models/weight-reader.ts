import { byteLengthOf, type TensorSource } from "../io/safetensors-writer.js";
import { elementsOf } from "../tensor/shape.js";
import type { ModelRuntime } from "./runtime.js";

/** The present values of a weight, merged or as in the checkpoint, rounded to `dtype`; little-endian. */
export async function readWeight(
  runtime: ModelRuntime,
  name: string,
  shape: readonly number[],
  dtype: TensorSource["dtype"],
): Promise<Uint8Array> {
  const elements = elementsOf(shape);
  const target = new Uint8Array(byteLengthOf({ dtype, shape }));
  await runtime.run((session) => session.readWeight({ name, dtype, elements }, target));
  return target;
}
