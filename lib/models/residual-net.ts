// The residual nets of He et al. (arXiv 1512.03385), in the form of both transformers and torchvision: the
// stride of a bottleneck is on its 3x3 convolution unless the configuration says otherwise.

import { GraphBuilder, type ModelGraph, type Value } from "../nn/graph.js";
import type { ImageExtent } from "./image-size.js";

/** torch.nn.BatchNorm2d's default, which no configuration of these models changes. */
export const BATCH_NORM_EPS = 1e-5;

/** Paths of a convolution and the batch norm behind it. */
export interface ConvNames {
  readonly conv: string;
  readonly norm: string;
}

/** What two libraries call the same modules. */
export interface ResidualNames {
  readonly stem: ConvNames;
  /** The convolution `index` of a block. */
  block(stage: number, layer: number, index: number): ConvNames;
  shortcut(stage: number, layer: number): ConvNames;
  /** The linear module behind the global average. */
  readonly head: string;
}

export interface ResidualConfig {
  readonly channels: number;
  /** Channels of the stem. */
  readonly embedding: number;
  readonly layerType: "basic" | "bottleneck";
  readonly stages: readonly { readonly width: number; readonly depth: number }[];
  readonly downsampleInFirstStage: boolean;
  /** Whether a bottleneck strides in its first convolution. */
  readonly downsampleInBottleneck: boolean;
}

/** One convolution of a block. */
interface Layer {
  readonly out: number;
  readonly kernel: number;
  readonly stride: number;
}

export function residualNet(
  config: ResidualConfig,
  names: ResidualNames,
  { height, width }: ImageExtent,
  numLabels: number,
): ModelGraph {
  const g = new GraphBuilder();
  const pixels = g.pixels(g.image(config.channels, height, width));
  const stem = { out: config.embedding, kernel: 7, stride: 2 };
  let x = addConv(g, pixels, names.stem, stem, { activation: "relu" });
  x = g.maxPool(x, { kernel: 3, stride: 2, padding: 1 });
  config.stages.forEach(({ width: out, depth }, stage) => {
    for (let layer = 0; layer < depth; layer++) {
      const halves = layer === 0 && (stage > 0 || config.downsampleInFirstStage);
      const stride = halves ? 2 : 1;
      const layers = layersOf(config, out, stride);
      const residual =
        x.cols === out && stride === 1
          ? x
          : addConv(g, x, names.shortcut(stage, layer), { out, kernel: 1, stride });
      layers.forEach((spec, index) => {
        const isLast = index === layers.length - 1;
        const options = { activation: "relu", ...(isLast ? { residual } : {}) } as const;
        x = addConv(g, x, names.block(stage, layer, index), spec, options);
      });
    }
  });
  const [logits] = g.linear(g.meanRows(x), [{ module: names.head, out: numLabels }]);
  return g.finish(logits);
}

function layersOf(
  { layerType, downsampleInBottleneck }: ResidualConfig,
  out: number,
  stride: number,
): Layer[] {
  if (layerType === "basic") {
    return [
      { out, kernel: 3, stride },
      { out, kernel: 3, stride: 1 },
    ];
  }
  const reduced = Math.floor(out / 4);
  return [
    { out: reduced, kernel: 1, stride: downsampleInBottleneck ? stride : 1 },
    { out: reduced, kernel: 3, stride: downsampleInBottleneck ? 1 : stride },
    { out, kernel: 1, stride: 1 },
  ];
}

function addConv(
  g: GraphBuilder,
  input: Value,
  { conv, norm }: ConvNames,
  { out, kernel, stride }: Layer,
  options: { activation?: "relu"; residual?: Value } = {},
): Value {
  return g.conv2d(input, {
    module: conv,
    out,
    kernel,
    stride,
    padding: Math.floor(kernel / 2),
    norm: { module: norm, eps: BATCH_NORM_EPS },
    ...options,
  });
}
