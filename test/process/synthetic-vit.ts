// Writes a ViT checkpoint of any size with drawn weights.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Checkpoint } from "../../lib/io/checkpoint.js";
import { vit } from "../../lib/models/vit.js";

export interface SyntheticViT {
  hidden: number;
  layers: number;
  heads: number;
  image: number;
  patch: number;
  labels: number;
}

/** Uniform in [-1, 1), the same sequence in every run (a 32-bit linear congruential generator). */
function drawUniform(): () => number {
  let state = 1;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

export function writeSyntheticViT(dir: string, size: SyntheticViT): void {
  const config = {
    model_type: "vit",
    architectures: ["ViTForImageClassification"],
    hidden_size: size.hidden,
    num_hidden_layers: size.layers,
    num_attention_heads: size.heads,
    intermediate_size: 4 * size.hidden,
    image_size: size.image,
    patch_size: size.patch,
    num_labels: size.labels,
  };
  // The definition wants to see that the checkpoint holds each layer, not yet what is in it.
  const held = Array.from({ length: size.layers }, (_, layer) => {
    const name = `vit.encoder.layer.${layer}.output.dense.bias`;
    const shape = [size.hidden];
    return [name, { name, dtype: "F32", shape, path: dir, byteOffset: 0, byteLength: 0 }] as const;
  });
  const checkpoint: Checkpoint = { dir, config, weights: new Map(held) };
  const { graph } = vit.define(checkpoint);

  const draw = drawUniform();
  const header: Record<string, unknown> = {};
  const data: Uint8Array[] = [];
  let offset = 0;
  for (const { name, shape } of graph.weights) {
    const values = new Float32Array(shape.reduce((product, extent) => product * extent, 1));
    const isNorm = name.includes("layernorm");
    // Norms near the identity, matrices scaled by their fan-in: activations stay of order 1.
    const scale = shape.length > 1 ? Math.sqrt(3 / shape.slice(1).reduce((a, b) => a * b)) : 0.02;
    for (let i = 0; i < values.length; i++) {
      values[i] = isNorm && name.endsWith("weight") ? 1 : scale * draw();
    }
    header[name] = {
      dtype: "F32",
      shape,
      data_offsets: [offset, offset + values.byteLength],
    };
    data.push(new Uint8Array(values.buffer));
    offset += values.byteLength;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, "config.json"), JSON.stringify(config));
  writeFileSync(join(dir, "model.safetensors"), Buffer.concat([length, text, ...data]));
}
