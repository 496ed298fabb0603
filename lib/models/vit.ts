// Vision Transformer (Dosovitskiy et al., arXiv 2010.11929) as ViTForImageClassification and ViTModel of
// Hugging Face transformers compute it in eval mode, with the weight names of their checkpoints.

import { readBoolean, readNumber } from "../io/config.js";
import type { JsonObject } from "../io/json.js";
import type { Activation } from "../native/addon.js";
import { GraphBuilder, type ModelGraph, type Value } from "../nn/graph.js";
import type { Architecture } from "./architecture.js";
import type { ImageExtent } from "./image-size.js";
import { labelCount } from "./labels.js";
import { derivedPositions } from "./positions.js";
import {
  addFeedForward,
  hasHead,
  readActivation,
  requireLayers,
  requireMultiple,
} from "./transformer.js";

const PREFIX = "vit.";
const HEAD = "classifier";
const TASK_CLASS = "ViTForImageClassification";
const POSITIONS = `${PREFIX}embeddings.position_embeddings`;

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
  taskClass: TASK_CLASS,
  pythonModule: "transformers.models.vit.modeling_vit",
  define(checkpoint, { numLabels, imageSize } = {}) {
    const { config } = checkpoint;
    const sizes = readConfig(config);
    requireLayers(checkpoint, PREFIX, sizes.layers);
    const extent = imageSize ?? { height: sizes.image, width: sizes.image };
    const positions = derivedPositions(POSITIONS, sizes, extent);
    return {
      graph: build(sizes, extent, numLabels ?? labelCount(config)),
      head: HEAD,
      newModules: hasHead(checkpoint, TASK_CLASS, `${HEAD}.weight`) ? [] : [HEAD],
      prefix: PREFIX,
      derived: positions === undefined ? [] : [positions],
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
    activation: readActivation(config, { default: "gelu" }),
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

function build(config: ViTConfig, { height, width }: ImageExtent, numLabels: number): ModelGraph {
  const { hidden, channels, patch } = config;
  const g = new GraphBuilder();
  const patches = g.patchify(g.image(channels, height, width), patch);
  const [embedded] = g.linear(patches, [
    {
      module: `${PREFIX}embeddings.patch_embeddings.projection`,
      out: hidden,
      weightShape: [hidden, channels, patch, patch],
    },
  ]);
  let x = g.assembleTokens(embedded, { cls: `${PREFIX}embeddings.cls_token`, pos: POSITIONS });
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
  return addFeedForward(g, after, { path, residual: attended, ...config });
}
