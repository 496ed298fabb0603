// The weights of test/fixtures/hash_weights.py, bit for bit: full-size models need no stored file.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { bytesOf, type TensorSource, writeSafetensors } from "../../lib/io/safetensors-writer.js";
import { elementsOf } from "../../lib/tensor/shape.js";

/** mean + bound * u, where u in [-1, 1) is a multiple of 2^-23: a 32-bit hash of the name and the index. */
function draw(name: string, count: number, mean: number, bound: number): Float32Array {
  let seed = 2166136261; // FNV-1a
  for (const byte of Buffer.from(name)) seed = Math.imul(seed ^ byte, 16777619);
  const values = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    let h = (seed + Math.imul(i, 0x9e3779b9)) | 0;
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b); // the finaliser of MurmurHash3
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    values[i] = mean + bound * (((h ^ (h >>> 16)) >>> 8) / 2 ** 23 - 1);
  }
  return values;
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
  return draw("pixel_values", elementsOf(shape), 0, 1.7);
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
    const read = () => bytesOf(draw(name, elementsOf(shape), mean, bound));
    return { name, dtype: "F32", shape, read };
  });
  await writeSafetensors(join(dir, "model.safetensors"), tensors);
}
