// DenseNet-BC (Huang et al., arXiv 1608.06993) as torchvision and timm compute it in eval mode; their weights
// have the same names.

import { readNumber } from "../io/config.js";
import { GraphBuilder, type ModelGraph, type Value } from "../nn/graph.js";
import type { Architecture } from "./architecture.js";
import { MAX_DEPTH, readSizes } from "./conv-net.js";
import { buildFor, type ImageExtent } from "./image-size.js";
import { BATCH_NORM_EPS as eps } from "./residual-net.js";
import { defineTimm, readTimmConfig } from "./timm.js";

const HEAD = "classifier";
/** Arguments that timm's densenet* functions pass on to the net. */
const ARGUMENTS = ["growth_rate", "block_config", "bn_size"];

interface DenseConfig {
  readonly channels: number;
  /** Channels that each dense layer adds; the stem has twice as many. */
  readonly growth: number;
  /** Channels between the two convolutions of a dense layer, in units of `growth`. */
  readonly bottleneck: number;
  /** Dense layers of each block. */
  readonly blocks: readonly number[];
}

export const densenets: readonly Architecture[] = [
  architecture("densenet121", 32, [6, 12, 24, 16]),
  architecture("densenet161", 48, [6, 12, 36, 24]),
  architecture("densenet169", 32, [6, 12, 32, 32]),
  architecture("densenet201", 32, [6, 12, 48, 32]),
];

function architecture(modelType: string, growth: number, blocks: readonly number[]): Architecture {
  return {
    modelType,
    key: "architecture",
    taskClass: "DenseNet",
    pythonModule: "timm.models.densenet",
    define({ config }, options = {}) {
      const { channels, numLabels, imageSize, args } = readTimmConfig(config, options, ARGUMENTS);
      const size = (key: string, usual: number) =>
        readNumber(args, key, { integer: true, min: 1, max: 2 ** 12, default: usual });
      const sizes: DenseConfig = {
        channels,
        growth: size("growth_rate", growth),
        bottleneck: size("bn_size", 4),
        blocks: Object.hasOwn(args, "block_config")
          ? readSizes(args, "block_config", MAX_DEPTH)
          : blocks,
      };
      const graph = buildFor(modelType, imageSize, () => build(sizes, imageSize, numLabels));
      return defineTimm(config, graph, HEAD);
    },
  };
}

function build(
  { channels, growth, bottleneck, blocks }: DenseConfig,
  { height, width }: ImageExtent,
  numLabels: number,
): ModelGraph {
  const g = new GraphBuilder();
  const stem = g.conv2d(g.pixels(g.image(channels, height, width)), {
    module: "features.conv0",
    out: 2 * growth,
    kernel: 7,
    stride: 2,
    padding: 3,
    norm: { module: "features.norm0", eps },
    activation: "relu",
  });
  let x = g.maxPool(stem, { kernel: 3, stride: 2, padding: 1 });
  blocks.forEach((layers, i) => {
    if (i > 0) x = addTransition(g, x, `features.transition${i}`);
    x = addBlock(g, x, `features.denseblock${i + 1}`, { layers, growth, bottleneck });
  });
  x = g.batchNorm(x, { module: "features.norm5", eps, activation: "relu" });
  const [logits] = g.linear(g.meanRows(x), [{ module: HEAD, out: numLabels }]);
  return g.finish(logits);
}

/** Each layer reads the input of the block and the outputs of all layers before it. */
function addBlock(
  g: GraphBuilder,
  input: Value,
  path: string,
  { layers, growth, bottleneck }: { layers: number; growth: number; bottleneck: number },
): Value {
  const features = [input];
  for (let layer = 1; layer <= layers; layer++) {
    const name = `${path}.denselayer${layer}`;
    const joined = layer === 1 ? input : g.concat(features);
    const before = g.batchNorm(joined, { module: `${name}.norm1`, eps, activation: "relu" });
    const middle = g.conv2d(before, {
      module: `${name}.conv1`,
      out: bottleneck * growth,
      kernel: 1,
      norm: { module: `${name}.norm2`, eps },
      activation: "relu",
    });
    features.push(
      g.conv2d(middle, { module: `${name}.conv2`, out: growth, kernel: 3, padding: 1 }),
    );
  }
  return g.concat(features);
}

/** Half the channels, then half the image. */
function addTransition(g: GraphBuilder, input: Value, path: string): Value {
  const before = g.batchNorm(input, { module: `${path}.norm`, eps, activation: "relu" });
  const out = Math.floor(input.cols / 2);
  return g.avgPool(g.conv2d(before, { module: `${path}.conv`, out, kernel: 1 }), { kernel: 2 });
}
