// Vision Transformer (Dosovitskiy et al., arXiv 2010.11929) as ViTForImageClassification and ViTModel of
// Hugging Face transformers compute it in eval mode, with the weight names of their checkpoints.

import { describe, LokoError } from "../errors.js";
import type { Checkpoint } from "../io/checkpoint.js";
import { readBoolean, readNumber, readString } from "../io/config.js";
import { type JsonObject, originOf } from "../io/json.js";
import type { Activation } from "../native/addon.js";
import { GraphBuilder, type ModelGraph, type Value } from "../nn/graph.js";
import type { Architecture } from "./architecture.js";

const PREFIX = "vit.";
const HEAD = "classifier";

/** `hidden_act` in transformers' spelling (transformers.activations.ACT2FN). */
const ACTIVATIONS: ReadonlyMap<string, Activation> = new Map([
  ["gelu", "gelu"],
  ["gelu_new", "gelu_tanh"],
  ["gelu_pytorch_tanh", "gelu_tanh"],
  ["relu", "relu"],
  ["quick_gelu", "quick_gelu"],
]);

interface ViTConfig {
  readonly hidden: number;
  readonly layers: number;
  readonly heads: number;
  readonly intermediate: number;
  readonly activation: Activation;
  readonly eps: number;
  readonly image: number;
  readonly patch: number;
  readonly channels: number;
  readonly qkvBias: boolean;
}

export const vit: Architecture = {
  modelType: "vit",
  define(checkpoint, numLabels) {
    const { config } = checkpoint;
    const sizes = readConfig(config);
    requireLayers(checkpoint, sizes.layers);
    return {
      graph: build(sizes, numLabels ?? labelCount(config)),
      head: HEAD,
      hasHead: hasHead(checkpoint),
      prefix: PREFIX,
      // The pooler of ViTModel feeds no classifier, and the mask token only pretraining.
      isIgnored: (name) => /^(?:vit\.)?(?:pooler\.|embeddings\.mask_token$)/.test(name),
    };
  },
};

/** Defaults are those of transformers' ViTConfig; the sizes have none here and must be given. */
function readConfig(config: JsonObject): ViTConfig {
  const size = (key: string) => readNumber(config, key, { integer: true, min: 1, max: 2 ** 20 });
  const result: ViTConfig = {
    hidden: size("hidden_size"),
    layers: size("num_hidden_layers"),
    heads: size("num_attention_heads"),
    intermediate: size("intermediate_size"),
    activation: readActivation(config),
    eps: readNumber(config, "layer_norm_eps", { min: 0, default: 1e-12 }),
    image: size("image_size"),
    patch: size("patch_size"),
    channels: readNumber(config, "num_channels", { integer: true, min: 1, default: 3 }),
    qkvBias: readBoolean(config, "qkv_bias", { default: true }),
  };
  requireMultiple(config, "hidden_size", result.hidden, "num_attention_heads", result.heads);
  requireMultiple(config, "image_size", result.image, "patch_size", result.patch);
  return result;
}

function readActivation(config: JsonObject): Activation {
  const name = readString(config, "hidden_act", { default: "gelu" });
  const activation = ACTIVATIONS.get(name);
  if (activation !== undefined) return activation;
  throw new LokoError(
    "ERR_UNKNOWN_ACTIVATION",
    `${originOf(config)}: "hidden_act" must be one of ` +
      `${[...ACTIVATIONS.keys()].map(describe).join(", ")}, got ${describe(name)}.`,
  );
}

function requireMultiple(
  config: JsonObject,
  key: string,
  value: number,
  ofKey: string,
  of: number,
): void {
  if (value % of === 0) return;
  throw new LokoError(
    "ERR_CONFIG",
    `${originOf(config)}: "${key}" must be a multiple of "${ofKey}", got ${value} and ${of}.`,
  );
}

/** As transformers counts: entries of id2label, else num_labels, else 2. */
function labelCount(config: JsonObject): number {
  const labels = Object.hasOwn(config, "id2label") ? config.id2label : undefined;
  if (labels === undefined || labels === null) {
    return readNumber(config, "num_labels", { integer: true, min: 1, default: 2 });
  }
  const count = typeof labels === "object" ? Object.keys(labels).length : 0;
  if (count > 0) return count;
  throw new LokoError(
    "ERR_CONFIG",
    `${originOf(config)}: "id2label" must map class indices to names, got ${describe(labels)}.`,
  );
}

/**
 * A checkpoint that says it is a classifier must hold the head; any other brings one when it has one.
 */
function hasHead({ config, weights }: Checkpoint): boolean {
  const { architectures } = config;
  return (
    (Array.isArray(architectures) && architectures.includes("ViTForImageClassification")) ||
    weights.has(`${HEAD}.weight`)
  );
}

/** Before the graph is built: a number in a configuration must not decide how long that takes. */
function requireLayers({ config, weights }: Checkpoint, layers: number): void {
  const held = new Set<string>();
  for (const name of weights.keys()) {
    const [, layer] = /^(?:vit\.)?encoder\.layer\.(\d+)\./.exec(name) ?? [];
    if (layer !== undefined) held.add(layer);
  }
  if (layers <= held.size) return;
  throw new LokoError(
    "ERR_WEIGHT_MISSING",
    `${originOf(config)}: "num_hidden_layers" promises ${layers} layers, but the checkpoint holds ` +
      `${held.size}.`,
  );
}

function build(config: ViTConfig, numLabels: number): ModelGraph {
  const { hidden, channels, image, patch } = config;
  const g = new GraphBuilder();
  const patches = g.patchify(g.image(channels, image, image), patch);
  const [embedded] = g.linear(patches, [
    {
      module: `${PREFIX}embeddings.patch_embeddings.projection`,
      out: hidden,
      weightShape: [hidden, channels, patch, patch],
    },
  ]);
  let x = g.assembleTokens(embedded, {
    cls: `${PREFIX}embeddings.cls_token`,
    pos: `${PREFIX}embeddings.position_embeddings`,
  });
  for (let layer = 0; layer < config.layers; layer++) {
    x = addBlock(g, x, `${PREFIX}encoder.layer.${layer}`, config);
  }
  x = g.layerNorm(x, { module: `${PREFIX}layernorm`, eps: config.eps });
  const [logits] = g.linear(g.selectFirst(x), [{ module: HEAD, out: numLabels }]);
  return g.finish(logits);
}

function addBlock(g: GraphBuilder, input: Value, path: string, config: ViTConfig): Value {
  const { hidden, heads, eps, qkvBias: bias } = config;
  const before = g.layerNorm(input, { module: `${path}.layernorm_before`, eps });
  const [q, k, v] = g.linear(before, [
    { module: `${path}.attention.attention.query`, out: hidden, bias },
    { module: `${path}.attention.attention.key`, out: hidden, bias },
    { module: `${path}.attention.attention.value`, out: hidden, bias },
  ]);
  const [attended] = g.linear(
    g.attention(q, k, v, heads),
    [{ module: `${path}.attention.output.dense`, out: hidden }],
    { residual: input },
  );
  const after = g.layerNorm(attended, { module: `${path}.layernorm_after`, eps });
  const [wide] = g.linear(
    after,
    [{ module: `${path}.intermediate.dense`, out: config.intermediate }],
    { activation: config.activation },
  );
  const [output] = g.linear(wide, [{ module: `${path}.output.dense`, out: hidden }], {
    residual: attended,
  });
  return output;
}
