// LeNet-5 (LeCun et al., 1998) with full connections between its maps and a linear output, as
// docs/models.md writes it in PyTorch.

import { describe, LokoError } from "../errors.js";
import { readNumber, readString } from "../io/config.js";
import { type JsonObject, originOf } from "../io/json.js";
import { GraphBuilder, type ModelGraph, type Value } from "../nn/graph.js";
import type { Architecture } from "./architecture.js";
import { readSizes } from "./conv-net.js";
import { buildFor } from "./image-size.js";
import { labelCount } from "./labels.js";

const HEAD = "fc3";

interface LeNetConfig {
  readonly channels: number;
  readonly image: number;
  /** Of the first convolution. */
  readonly padding: number;
  readonly activation: "relu" | "tanh";
  readonly pooling: "max" | "average";
  readonly convChannels: readonly number[];
  readonly hiddenSizes: readonly number[];
}

export const lenet: Architecture = {
  modelType: "lenet",
  taskClass: "LeNet5",
  pythonModule: null,
  define({ config }, { numLabels, imageSize } = {}) {
    const sizes = readConfig(config);
    const { image } = sizes;
    if (imageSize !== undefined && (imageSize.height !== image || imageSize.width !== image)) {
      throw new LokoError(
        "ERR_SHAPE_MISMATCH",
        `imageSize: the first linear module of a LeNet fits images of "image_size" ${image} only, got ` +
          `${imageSize.height}x${imageSize.width}.`,
      );
    }
    const extent = { height: image, width: image };
    return {
      graph: buildFor("this net", extent, () => build(sizes, numLabels ?? labelCount(config))),
      head: HEAD,
      newModules: [],
      prefix: "",
      isIgnored: () => false,
    };
  },
};

function readConfig(config: JsonObject): LeNetConfig {
  return {
    channels: readNumber(config, "num_channels", { integer: true, min: 1, max: 2 ** 10 }),
    image: readNumber(config, "image_size", { integer: true, min: 1, max: 2 ** 12 }),
    padding: readNumber(config, "padding", { integer: true, min: 0, max: 4 }),
    activation: readString(config, "hidden_act", { oneOf: ["relu", "tanh"] }),
    pooling: readString(config, "pooling", { oneOf: ["max", "average"] }),
    convChannels: readPair(config, "conv_channels"),
    hiddenSizes: readPair(config, "hidden_sizes"),
  };
}

function readPair(config: JsonObject, key: string): readonly number[] {
  const sizes = readSizes(config, key);
  if (sizes.length === 2) return sizes;
  throw new LokoError(
    "ERR_CONFIG",
    `${originOf(config)}: "${key}" must be an array of 2 integers, got ${describe(sizes)}.`,
  );
}

function build(config: LeNetConfig, numLabels: number): ModelGraph {
  const { channels, image, padding, activation, convChannels, hiddenSizes } = config;
  const g = new GraphBuilder();
  const pool = (x: Value) =>
    config.pooling === "max" ? g.maxPool(x, { kernel: 2 }) : g.avgPool(x, { kernel: 2 });
  let x = g.pixels(g.image(channels, image, image));
  convChannels.forEach((out, i) => {
    const conv = { module: `conv${i + 1}`, out, kernel: 5, padding: i === 0 ? padding : 0 };
    x = pool(g.conv2d(x, { ...conv, bias: true, activation }));
  });
  x = g.flatten(x);
  hiddenSizes.forEach((out, i) => {
    [x] = g.linear(x, [{ module: `fc${i + 1}`, out }], { activation });
  });
  const [logits] = g.linear(x, [{ module: HEAD, out: numLabels }]);
  return g.finish(logits);
}
