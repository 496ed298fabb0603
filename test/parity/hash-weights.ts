// The weights of test/fixtures/hash_weights.py, bit for bit: full-size models need no stored file.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { bytesOf, type TensorSource, writeSafetensors } from "../../lib/io/safetensors-writer.js";
import { elementsOf } from "../../lib/tensor/shape.js";

/** `count` numbers in [-1, 1), multiples of 2^-23: a 32-bit hash of the name and the index. */
function uniform(name: string, count: number): Float64Array {
  let seed = 2166136261; // FNV-1a
  for (const byte of Buffer.from(name)) seed = Math.imul(seed ^ byte, 16777619);
  return Float64Array.from({ length: count }, (_, i) => {
    let h = (seed + Math.imul(i, 0x9e3779b9)) | 0;
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b); // the finaliser of MurmurHash3
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    return ((h ^ (h >>> 16)) >>> 8) / 2 ** 23 - 1;
  });
}

function meanAndBound(name: string, shape: readonly number[], gain: number): [number, number] {
  if (name.endsWith("running_var")) return [1, 0.3];
  if (shape.length === 1 && name.endsWith("weight")) return [1, 0.2];
  if (name.endsWith("lambda1")) return [0.5, 0.2];
  if ([2, 4].includes(shape.length)) {
    return [0, gain * Math.sqrt(6 / elementsOf(shape.slice(1)))];
  }
  return [0, 0.1];
}

export function hashPixels(shape: readonly number[]): Float32Array {
  return Float32Array.from(uniform("pixel_values", elementsOf(shape)), (u) => 1.7 * u);
}

/** Writes a model folder. */
export async function writeHashedModel(
  dir: string,
  config: object,
  weights: readonly { readonly name: string; readonly shape: readonly number[] }[],
  gain: number,
): Promise<void> {
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, "config.json"), JSON.stringify(config));
  const tensors = weights.map(({ name, shape }): TensorSource => {
    const [mean, bound] = meanAndBound(name, shape, gain);
    const read = () =>
      bytesOf(Float32Array.from(uniform(name, elementsOf(shape)), (u) => mean + bound * u));
    return { name, dtype: "F32", shape, read };
  });
  await writeSafetensors(join(dir, "model.safetensors"), tensors);
}
