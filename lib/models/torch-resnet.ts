// ResNet-18, -34, -50, -101 and -152 of torchvision and timm in eval mode; their weights have the same names.

import { describe, LokoError } from "../errors.js";
import { type JsonObject, originOf } from "../io/json.js";
import type { Architecture } from "./architecture.js";
import { MAX_DEPTH, readSizes } from "./conv-net.js";
import { buildFor } from "./image-size.js";
import { type ResidualConfig, type ResidualNames, residualNet } from "./residual-net.js";
import { defineTimm, readTimmConfig } from "./timm.js";

const HEAD = "fc";

const NAMES: ResidualNames = {
  stem: { conv: "conv1", norm: "bn1" },
  block: (stage, layer, index) => {
    const path = `layer${stage + 1}.${layer}`;
    return { conv: `${path}.conv${index + 1}`, norm: `${path}.bn${index + 1}` };
  },
  shortcut: (stage, layer) => {
    const path = `layer${stage + 1}.${layer}.downsample`;
    return { conv: `${path}.0`, norm: `${path}.1` };
  },
  head: HEAD,
};

const CHANNELS = [64, 128, 256, 512];
/** Output channels of a bottleneck over those of its 3x3 convolution. */
const EXPANSION = { basic: 1, bottleneck: 4 } as const;
/** Arguments that timm's resnet* functions pass on to the net. */
const ARGUMENTS = ["layers", "channels"];

export const torchResnets: readonly Architecture[] = [
  architecture("resnet18", "basic", [2, 2, 2, 2]),
  architecture("resnet34", "basic", [3, 4, 6, 3]),
  architecture("resnet50", "bottleneck", [3, 4, 6, 3]),
  architecture("resnet101", "bottleneck", [3, 4, 23, 3]),
  architecture("resnet152", "bottleneck", [3, 8, 36, 3]),
];

function architecture(
  modelType: string,
  layerType: "basic" | "bottleneck",
  layers: readonly number[],
): Architecture {
  return {
    modelType,
    key: "architecture",
    taskClass: "ResNet",
    pythonModule: "timm.models.resnet",
    define({ config }, options = {}) {
      const { channels, numLabels, imageSize, args } = readTimmConfig(config, options, ARGUMENTS);
      const sizes = residualConfig(args, channels, layerType, layers);
      const graph = buildFor(modelType, imageSize, () =>
        residualNet(sizes, NAMES, imageSize, numLabels),
      );
      return defineTimm(config, graph, HEAD);
    },
  };
}

function readStages(
  args: JsonObject,
  key: string,
  usual: readonly number[],
  max?: number,
): readonly number[] {
  if (!Object.hasOwn(args, key)) return usual;
  const sizes = readSizes(args, key, max);
  if (sizes.length === CHANNELS.length) return sizes;
  throw new LokoError(
    "ERR_CONFIG",
    `${originOf(args)}: "${key}" must be an array of ${CHANNELS.length} integers, got ${describe(sizes)}.`,
  );
}

function residualConfig(
  args: JsonObject,
  channels: number,
  layerType: "basic" | "bottleneck",
  layers: readonly number[],
): ResidualConfig {
  const depths = readStages(args, "layers", layers, MAX_DEPTH);
  const widths = readStages(args, "channels", CHANNELS);
  return {
    channels,
    embedding: 64,
    layerType,
    stages: depths.map((depth, stage) => ({ width: widths[stage]! * EXPANSION[layerType], depth })),
    downsampleInFirstStage: false,
    downsampleInBottleneck: false,
  };
}
