// Writes checkpoints of any size with drawn weights.
import { writeRandomModel } from "../../benchmarks/random-weights.js";
import type { Checkpoint } from "../../lib/io/checkpoint.js";
import type { JsonObject } from "../../lib/io/json.js";
import { architectureOf } from "../../lib/models/architecture.js";

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

  return writeRandomModel(dir, config, weights);
}
