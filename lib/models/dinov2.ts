// DINOv2 (Oquab et al., arXiv 2304.07193) as Dinov2ForImageClassification and Dinov2Model of Hugging Face
// transformers compute it in eval mode, with the weight names of their checkpoints.

import { LokoError } from "../errors.js";
import { readBoolean, readNumber } from "../io/config.js";
import { type JsonObject, originOf } from "../io/json.js";
import { GraphBuilder, type ModelGraph, type Value } from "../nn/graph.js";
import type { Architecture } from "./architecture.js";
import type { ImageExtent } from "./image-size.js";
import { labelCount } from "./labels.js";
import { derivedPositions, requireSquare } from "./positions.js";
import { hasHead, requireLayers } from "./transformer.js";
import {
  attend,
  embedPatches,
  positionsOf,
  readSize,
  readVisionConfig,
  type VisionConfig,
} from "./vision-transformer.js";

const PREFIX = "dinov2.";
const HEAD = "classifier";
const TASK_CLASS = "Dinov2ForImageClassification";
export const dinov2: Architecture = {
  modelType: "dinov2",
  taskClass: TASK_CLASS,
  pythonModule: "transformers.models.dinov2.modeling_dinov2",
  define(checkpoint, { numLabels, imageSize } = {}) {
    const { config } = checkpoint;
    const sizes = readConfig(config);
    requireLayers(checkpoint, PREFIX, sizes.layers);
    const extent = imageSize ?? { height: sizes.image, width: sizes.image };
    const positions = derivedPositions(positionsOf(PREFIX), sizes, extent);
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

function readConfig(config: JsonObject): VisionConfig {
  if (readBoolean(config, "use_swiglu_ffn", { default: false })) {
    throw new LokoError(
      "ERR_UNSUPPORTED",
      `${originOf(config)}: "use_swiglu_ffn" true is not supported; DINOv2 giant has it, the small, base ` +
        "and large models do not.",
    );
  }
  requireSquare(config, "image_size");
  requireSquare(config, "patch_size");
  const hidden = readSize(config, "hidden_size");
  const ratio = readNumber(config, "mlp_ratio", { min: 1 / hidden, max: 64 });
  return readVisionConfig(config, { eps: 1e-6, intermediate: Math.trunc(hidden * ratio) });
}

function build(config: VisionConfig, extent: ImageExtent, numLabels: number): ModelGraph {
  const g = new GraphBuilder();
  let x = embedPatches(g, config, extent, PREFIX);
  for (let layer = 0; layer < config.layers; layer++) {
    x = addBlock(g, x, `${PREFIX}encoder.layer.${layer}`, config);
  }
  x = g.layerNorm(x, { module: `${PREFIX}layernorm`, eps: config.eps });
  const features = g.concat([g.selectFirst(x), g.meanRows(x, { skip: 1 })]);
  const [logits] = g.linear(features, [{ module: HEAD, out: numLabels }]);
  return g.finish(logits);
}

/** As ViT's, but each branch is scaled feature by feature before it is added. */
function addBlock(g: GraphBuilder, input: Value, path: string, config: VisionConfig): Value {
  const { hidden, eps, intermediate, activation } = config;
  const before = g.layerNorm(input, { module: `${path}.norm1`, eps });
  const scaled = (module: string, index: number) => ({
    module: `${path}.${module}`,
    out: hidden,
    outputScale: `${path}.layer_scale${index}.lambda1`,
  });
  const [attended] = g.linear(
    attend(g, before, path, config),
    [scaled("attention.output.dense", 1)],
    { residual: input },
  );
  const after = g.layerNorm(attended, { module: `${path}.norm2`, eps });
  const [wide] = g.linear(after, [{ module: `${path}.mlp.fc1`, out: intermediate }], {
    activation,
  });
  const [output] = g.linear(wide, [scaled("mlp.fc2", 2)], { residual: attended });
  return output;
}
