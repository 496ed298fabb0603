import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { sizeOf, writeTensors } from "./tensors-file.js";

/** Uniform in [-1, 1), the same sequence in every run (a 32-bit linear congruential generator). */
export function drawUniform(seed = 1): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

/** Writes a model folder, `config.json` and `model.safetensors`, with drawn weights; returns their bytes. */
export function writeRandomModel(
  dir: string,
  config: object,
  weights: readonly { readonly name: string; readonly shape: readonly number[] }[],
): number {
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, "config.json"), JSON.stringify(config));
  const draw = drawUniform();
  return writeTensors(
    join(dir, "model.safetensors"),
    weights.map(({ name, shape }) => ({
      name,
      dtype: "F32",
      shape,
      values: () => drawWeight(name, shape, draw),
    })),
  );
}

/** Norms near the identity, matrices scaled by their fan-in: activations stay of order 1. */
function drawWeight(name: string, shape: readonly number[], draw: () => number): Float32Array {
  const values = new Float32Array(sizeOf(shape));
  if (/norm/i.test(name) && /weight|running_var/.test(name)) return values.fill(1);
  const scale = shape.length > 1 ? Math.sqrt(3 / sizeOf(shape.slice(1))) : 0.02;
  for (let i = 0; i < values.length; i++) values[i] = scale * draw();
  return values;
}
