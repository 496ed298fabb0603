// Writes checkpoints of any size with drawn weights.
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { Checkpoint } from "../../lib/io/checkpoint.js";
import type { JsonObject } from "../../lib/io/json.js";
import { architectureOf } from "../../lib/models/architecture.js";

/** Uniform in [-1, 1), the same sequence in every run (a 32-bit linear congruential generator). */
function drawUniform(): () => number {
  let state = 1;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

export function vitConfig(size: {
  hidden: number;
  layers: number;
  heads: number;
  image: number;
  patch: number;
  labels: number;
}): JsonObject {
  return {
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
}

/** As roberta-base has it on the hub, with a head. */
export const ROBERTA_BASE: JsonObject = {
  model_type: "roberta",
  architectures: ["RobertaForSequenceClassification"],
  hidden_size: 768,
  num_hidden_layers: 12,
  num_attention_heads: 12,
  intermediate_size: 3072,
  hidden_act: "gelu",
  layer_norm_eps: 1e-5,
  vocab_size: 50265,
  max_position_embeddings: 514,
  type_vocab_size: 1,
  pad_token_id: 1,
  num_labels: 2,
};

/** Writes `config.json` and `model.safetensors`; returns the bytes of the weights. */
export function writeCheckpoint(dir: string, config: JsonObject): number {
  // The definition wants to see that the checkpoint holds each layer, not yet what is in it.
  const held = Array.from({ length: Number(config.num_hidden_layers) }, (_, layer) => {
    const name = `${config.model_type}.encoder.layer.${layer}.output.dense.bias`;
    return [
      name,
      { name, dtype: "F32", shape: [1], path: dir, byteOffset: 0, byteLength: 0 },
    ] as const;
  });
  const checkpoint: Checkpoint = { dir, config, weights: new Map(held) };
  const { weights } = architectureOf(checkpoint).define(checkpoint).graph;

  const header: Record<string, unknown> = {};
  let bytes = 0;
  for (const { name, shape } of weights) {
    const size = 4 * shape.reduce((product, extent) => product * extent, 1);
    header[name] = { dtype: "F32", shape, data_offsets: [bytes, bytes + size] };
    bytes += size;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, "config.json"), JSON.stringify(config));
  const file = openSync(join(dir, "model.safetensors"), "w");
  writeSync(file, Buffer.concat([length, text]));
  const draw = drawUniform();
  for (const { name, shape } of weights) {
    const values = new Float32Array(shape.reduce((product, extent) => product * extent, 1));
    const isNorm = /layernorm/i.test(name);
    // Norms near the identity, matrices scaled by their fan-in: activations stay of order 1.
    const scale = shape.length > 1 ? Math.sqrt(3 / shape.slice(1).reduce((a, b) => a * b)) : 0.02;
    for (let i = 0; i < values.length; i++) {
      values[i] = isNorm && name.endsWith("weight") ? 1 : scale * draw();
    }
    writeSync(file, new Uint8Array(values.buffer));
  }
  closeSync(file);
  return bytes;
}
