// ResNetForImageClassification and ResNetModel of Hugging Face transformers in eval mode.

import { describe, LokoError } from "../errors.js";
import { readBoolean, readNumber, readString } from "../io/config.js";
import { type JsonObject, originOf } from "../io/json.js";
import type { Architecture } from "./architecture.js";
import { batchCounters, MAX_DEPTH, readSizes } from "./conv-net.js";
import { buildFor } from "./image-size.js";
import { labelCount } from "./labels.js";
import { type ResidualConfig, type ResidualNames, residualNet } from "./residual-net.js";
import { hasHead } from "./transformer.js";

const PREFIX = "resnet.";
const HEAD = "classifier";
const TASK_CLASS = "ResNetForImageClassification";

/** The configuration names none; it is what the published checkpoints were trained with. */
const DEFAULT_IMAGE = { height: 224, width: 224 };

const NAMES: ResidualNames = {
  stem: convLayer(`${PREFIX}embedder.embedder`),
  block: (stage, layer, index) =>
    convLayer(`${PREFIX}encoder.stages.${stage}.layers.${layer}.layer.${index}`),
  shortcut: (stage, layer) =>
    convLayer(`${PREFIX}encoder.stages.${stage}.layers.${layer}.shortcut`),
  head: `${HEAD}.1`,
};

function convLayer(path: string) {
  return { conv: `${path}.convolution`, norm: `${path}.normalization` };
}

export const resnet: Architecture = {
  modelType: "resnet",
  taskClass: TASK_CLASS,
  pythonModule: "transformers.models.resnet.modeling_resnet",
  define(checkpoint, { numLabels, imageSize = DEFAULT_IMAGE } = {}) {
    const { config } = checkpoint;
    const sizes = readConfig(config);
    const graph = buildFor("this net", imageSize, () =>
      residualNet(sizes, NAMES, imageSize, numLabels ?? labelCount(config)),
    );
    return {
      graph,
      head: HEAD,
      newModules: hasHead(checkpoint, TASK_CLASS, `${HEAD}.1.weight`) ? [] : [HEAD],
      prefix: PREFIX,
      carried: batchCounters(graph),
      isIgnored: () => false,
    };
  },
};

/** Strict where transformers has defaults: all published files have these keys. */
function readConfig(config: JsonObject): ResidualConfig {
  // Within blocks transformers uses ReLU whatever the configuration says.
  const activation = readString(config, "hidden_act");
  if (activation !== "relu") {
    throw new LokoError(
      "ERR_UNKNOWN_ACTIVATION",
      `${originOf(config)}: "hidden_act" must be "relu", got ${describe(activation)}.`,
    );
  }
  const widths = readSizes(config, "hidden_sizes");
  const depths = readSizes(config, "depths", MAX_DEPTH);
  if (widths.length !== depths.length) {
    throw new LokoError(
      "ERR_CONFIG",
      `${originOf(config)}: "hidden_sizes" and "depths" must have one entry for each stage, got ` +
        `${widths.length} and ${depths.length}.`,
    );
  }
  return {
    channels: readNumber(config, "num_channels", { integer: true, min: 1, max: 2 ** 10 }),
    embedding: readNumber(config, "embedding_size", { integer: true, min: 1, max: 2 ** 16 }),
    layerType: readString(config, "layer_type", { oneOf: ["basic", "bottleneck"] }),
    stages: widths.map((width, stage) => ({ width, depth: depths[stage]! })),
    downsampleInFirstStage: readBoolean(config, "downsample_in_first_stage"),
    downsampleInBottleneck: readBoolean(config, "downsample_in_bottleneck", { default: false }),
  };
}
