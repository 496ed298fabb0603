// ResNets with bottlenecks in transformers' names: config, weights, operations.
import type { WeightShape } from "./models.js";

/** Sizes as `ResNetConfig` names them; ResNet-50 is 64, [256, 512, 1024, 2048], [3, 4, 6, 3]. */
export interface ResNetShape {
  readonly kind: "resnet";
  readonly size: number;
  readonly channels: number;
  readonly embedding: number;
  readonly hiddenSizes: readonly number[];
  readonly depths: readonly number[];
}

interface Convolution {
  readonly path: string;
  readonly in: number;
  readonly out: number;
  readonly kernel: number;
  /** Side of its output in pixels. */
  readonly side: number;
}

/** A bottleneck narrows to a quarter of its output. */
const REDUCTION = 4;

export function resnetConfig(shape: ResNetShape): Record<string, unknown> {
  return {
    model_type: "resnet",
    architectures: ["ResNetForImageClassification"],
    num_channels: shape.channels,
    embedding_size: shape.embedding,
    hidden_sizes: shape.hiddenSizes,
    depths: shape.depths,
    layer_type: "bottleneck",
    hidden_act: "relu",
    downsample_in_first_stage: false,
    downsample_in_bottleneck: false,
  };
}

/** All convolutions in the order of computation; the stride of a block is on its 3 × 3 kernel. */
function convolutions(shape: ResNetShape): Convolution[] {
  let side = Math.ceil(shape.size / 2);
  const all: Convolution[] = [
    {
      path: "resnet.embedder.embedder",
      in: shape.channels,
      out: shape.embedding,
      kernel: 7,
      side,
    },
  ];
  side = Math.ceil(side / 2);
  let width = shape.embedding;
  shape.hiddenSizes.forEach((out, stage) => {
    for (let layer = 0; layer < shape.depths[stage]!; layer++) {
      const path = `resnet.encoder.stages.${stage}.layers.${layer}`;
      const before = side;
      if (stage > 0 && layer === 0) side = Math.ceil(side / 2);
      const narrow = out / REDUCTION;
      if (layer === 0) all.push({ path: `${path}.shortcut`, in: width, out, kernel: 1, side });
      all.push(
        { path: `${path}.layer.0`, in: width, out: narrow, kernel: 1, side: before },
        { path: `${path}.layer.1`, in: narrow, out: narrow, kernel: 3, side },
        { path: `${path}.layer.2`, in: narrow, out, kernel: 1, side },
      );
      width = out;
    }
  });
  return all;
}

export function resnetWeights(shape: ResNetShape, classes: number): WeightShape[] {
  const last = shape.hiddenSizes.at(-1)!;
  return [
    ...convolutions(shape).flatMap(({ path, in: inputs, out, kernel }) => [
      { name: `${path}.convolution.weight`, shape: [out, inputs, kernel, kernel] },
      ...["weight", "bias", "running_mean", "running_var"].map((name) => ({
        name: `${path}.normalization.${name}`,
        shape: [out],
      })),
    ]),
    { name: "classifier.1.weight", shape: [classes, last] },
    { name: "classifier.1.bias", shape: [classes] },
  ];
}

/**
 * Operations of one sample with LoRA on every convolution and a trained head. On the way back a convolution
 * needs the cotangent of its input, and dY·B, dB, dA and u·A of its adapter; the stem has no cotangent of
 * its input.
 */
export function countResnet(
  shape: ResNetShape,
  { classes, rank }: { classes: number; rank: number },
): { forward: number; backward: number } {
  const head = 2 * shape.hiddenSizes.at(-1)! * classes;
  const total = { forward: head, backward: 2 * head };
  convolutions(shape).forEach(({ in: inputs, out, kernel, side }, index) => {
    const patch = kernel ** 2 * inputs;
    const pixels = 2 * side ** 2;
    total.forward += pixels * (patch * out + patch * rank + rank * out);
    total.backward += pixels * (2 * rank * out + patch * rank);
    if (index > 0) total.backward += pixels * patch * (out + rank);
  });
  return total;
}

export function resnetAdapterSize(shape: ResNetShape, rank: number): number {
  return convolutions(shape).reduce(
    (sum, { in: inputs, out, kernel }) => sum + rank * (kernel ** 2 * inputs + out),
    0,
  );
}
