// Vision Transformer (Dosovitskiy et al., arXiv 2010.11929) as ViTForImageClassification and ViTModel of
// Hugging Face transformers compute it in eval mode, with the weight names of their checkpoints.

import type { JsonObject } from "../io/json.js";
import { GraphBuilder, type ModelGraph, type Value } from "../nn/graph.js";
import type { Architecture } from "./architecture.js";
import type { ImageExtent } from "./image-size.js";
import { labelCount } from "./labels.js";
import { derivedPositions } from "./positions.js";
import { addFeedForward, hasHead, requireLayers } from "./transformer.js";
import {
  attend,
  embedPatches,
  positionsOf,
  readSize,
  readVisionConfig,
  type VisionConfig,
} from "./vision-transformer.js";

const PREFIX = "vit.";
const HEAD = "classifier";
const TASK_CLASS = "ViTForImageClassification";
export const vit: Architecture = {
  modelType: "vit",
  taskClass: TASK_CLASS,
  pythonModule: "transformers.models.vit.modeling_vit",
  define(checkpoint, { numLabels, imageSize } = {}) {
    const { config } = checkpoint;
    const sizes = readConfig(config);
    requireLayers(checkpoint, PREFIX, sizes.layers);
    const extent = imageSize ?? { height: sizes.image, width: sizes.image };
    const positions = derivedPositions(positionsOf(PREFIX), sizes, extent);
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

function readConfig(config: JsonObject): VisionConfig {
  const intermediate = readSize(config, "intermediate_size");
  return readVisionConfig(config, { eps: 1e-12, intermediate });
}

function build(config: VisionConfig, extent: ImageExtent, numLabels: number): ModelGraph {
  const g = new GraphBuilder();
  let x = embedPatches(g, config, extent, PREFIX);
  for (let layer = 0; layer < config.layers; layer++) {
    x = addBlock(g, x, `${PREFIX}encoder.layer.${layer}`, config);
  }
  x = g.layerNorm(x, { module: `${PREFIX}layernorm`, eps: config.eps });
  const [logits] = g.linear(g.selectFirst(x), [{ module: HEAD, out: numLabels }]);
  return g.finish(logits);
}

function addBlock(g: GraphBuilder, input: Value, path: string, config: VisionConfig): Value {
  const { hidden, eps } = config;
  const before = g.layerNorm(input, { module: `${path}.layernorm_before`, eps });
  const [attended] = g.linear(
    attend(g, before, path, config),
    [{ module: `${path}.attention.output.dense`, out: hidden }],
    { residual: input },
  );
  const after = g.layerNorm(attended, { module: `${path}.layernorm_after`, eps });
  return addFeedForward(g, after, { path, residual: attended, ...config });
}
