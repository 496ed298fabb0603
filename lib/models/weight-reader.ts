import { byteLengthOf, type TensorSource } from "../io/safetensors-writer.js";
import type { ModelRuntime } from "./runtime.js";

/** The present values of a weight, merged or as in the checkpoint, rounded to `dtype`; little-endian. */
export async function readWeight(
  runtime: ModelRuntime,
  name: string,
  shape: readonly number[],
  dtype: TensorSource["dtype"],
): Promise<Uint8Array> {
  const elements = shape.reduce((product, extent) => product * extent, 1);
  const target = new Uint8Array(byteLengthOf({ dtype, shape }));
  await runtime.run((session) => session.readWeight({ name, dtype, elements }, target));
  return target;
}
