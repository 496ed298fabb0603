// DINOv2 (Oquab et al., arXiv 2304.07193) as Dinov2ForImageClassification and Dinov2Model of Hugging Face
// transformers compute it in eval mode, with the weight names of their checkpoints.

import { LokoError } from "../errors.js";
import { readBoolean, readNumber } from "../io/config.js";
import { type JsonObject, originOf } from "../io/json.js";
import type { Activation } from "../native/addon.js";
import { GraphBuilder, type ModelGraph, type Value } from "../nn/graph.js";
import type { Architecture } from "./architecture.js";
import type { ImageExtent } from "./image-size.js";
import { labelCount } from "./labels.js";
import { derivedPositions, requireSquare } from "./positions.js";
import { hasHead, readActivation, requireLayers, requireMultiple } from "./transformer.js";

const PREFIX = "dinov2.";
const HEAD = "classifier";
const TASK_CLASS = "Dinov2ForImageClassification";
const POSITIONS = `${PREFIX}embeddings.position_embeddings`;

interface Dinov2Config {
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

export const dinov2: Architecture = {
  modelType: "dinov2",
  taskClass: TASK_CLASS,
  pythonModule: "transformers.models.dinov2.modeling_dinov2",
  define(checkpoint, { numLabels, imageSize } = {}) {
    const { config } = checkpoint;
    const sizes = readConfig(config);
    requireLayers(checkpoint, PREFIX, sizes.layers);
    const extent = imageSize ?? { height: sizes.image, width: sizes.image };
    const positions = derivedPositions(POSITIONS, sizes, extent);
    const hasMask = readBoolean(config, "use_mask_token", { default: true });
    return {
      graph: build(sizes, extent, numLabels ?? labelCount(config)),
      head: HEAD,
      newModules: hasHead(checkpoint, TASK_CLASS, `${HEAD}.weight`) ? [] : [HEAD],
      prefix: PREFIX,
      derived: positions === undefined ? [] : [positions],
      // Only pretraining masks patches.
      carried: hasMask
        ? [{ name: `${PREFIX}embeddings.mask_token`, shape: [1, sizes.hidden], isParameter: true }]
        : [],
      isIgnored: () => false,
    };
  },
};

/** Defaults are those of transformers' Dinov2Config; the sizes have none here and must be given. */
function readConfig(config: JsonObject): Dinov2Config {
  const size = (key: string) => readNumber(config, key, { integer: true, min: 1, max: 2 ** 20 });
  if (readBoolean(config, "use_swiglu_ffn", { default: false })) {
    throw new LokoError(
      "ERR_UNSUPPORTED",
      `${originOf(config)}: "use_swiglu_ffn" true is not supported; DINOv2 giant has it, the small, base ` +
        "and large models do not.",
    );
  }
  requireSquare(config, "image_size");
  requireSquare(config, "patch_size");
  const hidden = size("hidden_size");
  const result: Dinov2Config = {
    hidden,
    layers: size("num_hidden_layers"),
    heads: size("num_attention_heads"),
    intermediate: Math.trunc(
      hidden * readNumber(config, "mlp_ratio", { min: 1 / hidden, max: 64 }),
    ),
    activation: readActivation(config, { default: "gelu" }),
    eps: readNumber(config, "layer_norm_eps", { min: 0, default: 1e-6 }),
    image: size("image_size"),
    patch: size("patch_size"),
    channels: readNumber(config, "num_channels", { integer: true, min: 1, default: 3 }),
    qkvBias: readBoolean(config, "qkv_bias", { default: true }),
  };
  requireMultiple(config, "hidden_size", hidden, "num_attention_heads", result.heads);
  requireMultiple(config, "image_size", result.image, "patch_size", result.patch);
  return result;
}

function build(
  config: Dinov2Config,
  { height, width }: ImageExtent,
  numLabels: number,
): ModelGraph {
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
  const features = g.concat([g.selectFirst(x), g.meanRows(x, { skip: 1 })]);
  const [logits] = g.linear(features, [{ module: HEAD, out: numLabels }]);
  return g.finish(logits);
}

/** As ViT's, but each branch is scaled feature by feature before it is added. */
function addBlock(g: GraphBuilder, input: Value, path: string, config: Dinov2Config): Value {
  const { hidden, heads, eps, qkvBias: bias, intermediate, activation } = config;
  const before = g.layerNorm(input, { module: `${path}.norm1`, eps });
  const [q, k, v] = g.linear(before, [
    { module: `${path}.attention.attention.query`, out: hidden, bias },
    { module: `${path}.attention.attention.key`, out: hidden, bias },
    { module: `${path}.attention.attention.value`, out: hidden, bias },
  ]);
  const scaled = (module: string, index: number) => ({
    module: `${path}.${module}`,
    out: hidden,
    outputScale: `${path}.layer_scale${index}.lambda1`,
  });
  const [attended] = g.linear(g.attention(q, k, v, heads), [scaled("attention.output.dense", 1)], {
    residual: input,
  });
  const after = g.layerNorm(attended, { module: `${path}.norm2`, eps });
  const [wide] = g.linear(after, [{ module: `${path}.mlp.fc1`, out: intermediate }], {
    activation,
  });
  const [output] = g.linear(wide, [scaled("mlp.fc2", 2)], { residual: attended });
  return output;
}
