// What ViT and DINOv2 have in common: configuration, patches, the projections of attention.

import { readBoolean, readNumber } from "../io/config.js";
import type { JsonObject } from "../io/json.js";
import type { Activation } from "../native/addon.js";
import type { GraphBuilder, Value } from "../nn/graph.js";
import type { ImageExtent } from "./image-size.js";
import { readActivation, requireMultiple } from "./transformer.js";

export interface VisionConfig {
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

/** A size of a configuration, which has no default. */
export function readSize(config: JsonObject, key: string): number {
  return readNumber(config, key, { integer: true, min: 1, max: 2 ** 20 });
}

/** Defaults are those of transformers; the sizes have none here and must be given. */
export function readVisionConfig(
  config: JsonObject,
  { eps, intermediate }: { eps: number; intermediate: number },
): VisionConfig {
  const result: VisionConfig = {
    hidden: readSize(config, "hidden_size"),
    layers: readSize(config, "num_hidden_layers"),
    heads: readSize(config, "num_attention_heads"),
    intermediate,
    activation: readActivation(config, { default: "gelu" }),
    eps: readNumber(config, "layer_norm_eps", { min: 0, default: eps }),
    image: readSize(config, "image_size"),
    patch: readSize(config, "patch_size"),
    channels: readNumber(config, "num_channels", { integer: true, min: 1, default: 3 }),
    qkvBias: readBoolean(config, "qkv_bias", { default: true }),
  };
  requireMultiple(config, "hidden_size", result.hidden, "num_attention_heads", result.heads);
  requireMultiple(config, "image_size", result.image, "patch_size", result.patch);
  return result;
}

/** The position embeddings of a model whose names begin with `prefix`. */
export const positionsOf = (prefix: string) => `${prefix}embeddings.position_embeddings`;

/** The class token and the projected patches of an image, at their positions. */
export function embedPatches(
  g: GraphBuilder,
  { hidden, channels, patch }: VisionConfig,
  { height, width }: ImageExtent,
  prefix: string,
): Value {
  const patches = g.patchify(g.image(channels, height, width), patch);
  const [embedded] = g.linear(patches, [
    {
      module: `${prefix}embeddings.patch_embeddings.projection`,
      out: hidden,
      weightShape: [hidden, channels, patch, patch],
    },
  ]);
  const cls = `${prefix}embeddings.cls_token`;
  return g.assembleTokens(embedded, { cls, pos: positionsOf(prefix) });
}

/** Multi-head attention of the block at `path`, before its output projection. */
export function attend(
  g: GraphBuilder,
  x: Value,
  path: string,
  { hidden, heads, qkvBias: bias }: VisionConfig,
): Value {
  const [q, k, v] = g.linear(x, [
    { module: `${path}.attention.attention.query`, out: hidden, bias },
    { module: `${path}.attention.attention.key`, out: hidden, bias },
    { module: `${path}.attention.attention.value`, out: hidden, bias },
  ]);
  return g.attention(q, k, v, heads);
}
