// The modules that LoRA can adapt, and the shapes of their factors in PEFT's files.

import { describe, LokoError } from "../errors.js";
import type { ConvModule, ModelGraph } from "../nn/graph.js";

/** A linear module of a model: y = W·x + b with W of shape [outFeatures, inFeatures]. */
export interface LinearModule {
  /** The path in the task model, as `vit.encoder.layer.0.attention.attention.query`. */
  readonly path: string;
  readonly inFeatures: number;
  readonly outFeatures: number;
}

/** A module that can be named in `targetModules`. */
export interface TargetModule extends LinearModule {
  /** Of a convolution, whose features are channels; absent in linear modules. */
  readonly convolution?: ConvModule;
}

/** A module with a LoRA update: y = W·x + b + scale·B·A·x, where W, A and B may be convolutions. */
export interface LoraSite extends TargetModule {
  readonly r: number;
  readonly alpha: number;
  /** alpha / r, or alpha / sqrt(r) with `useRslora`. */
  readonly scale: number;
}

/** The linear modules and convolutions of a model, in the order of computation. */
export function targetModulesOf({ linears, convolutions, modules }: ModelGraph): TargetModule[] {
  const found = new Map<string, TargetModule>(linears.map((linear) => [linear.path, linear]));
  for (const convolution of convolutions) {
    const { path, inChannels, outChannels } = convolution;
    found.set(path, { path, inFeatures: inChannels, outFeatures: outChannels, convolution });
  }
  return modules.flatMap((path) => found.get(path) ?? []);
}

/**
 * [r, in] and [out, r]; for convolutions A has the kernel of the base and no groups, B is 1x1 with the
 * groups: [r, in, kh, kw] and [out, r / groups, 1, 1] (`_ConvNd.update_layer` of huggingface/peft 0.21).
 */
export function factorShapes(module: TargetModule, r: number): { a: number[]; b: number[] } {
  const { inFeatures, outFeatures, convolution } = module;
  if (convolution === undefined) return { a: [r, inFeatures], b: [outFeatures, r] };
  const { kernel, groups } = convolution;
  return { a: [r, inFeatures, ...kernel], b: [outFeatures, r / groups, 1, 1] };
}

/**
 * Refuses convolutions for which PEFT has no factors: its A ignores the dilation of the base, so that the
 * two see other pixels, and the groups of B must divide the rank.
 *
 * @throws LokoError ERR_UNSUPPORTED
 */
export function requireExpressible({ path, convolution }: TargetModule, r: number): void {
  if (convolution === undefined) return;
  const { groups, dilation, kernel } = convolution;
  const isDilated = kernel.some((size, axis) => size > 1 && dilation[axis]! > 1);
  const problem = isDilated
    ? `dilation ${dilation.join("x")}, which PEFT's factors do not have`
    : `${groups} groups, which do not divide the rank ${r}, as PEFT's factors need it`;
  if (!isDilated && r % groups === 0) return;
  throw new LokoError(
    "ERR_UNSUPPORTED",
    `targetModules: the convolution ${describe(path)} has ${problem}. Leave it out with excludeModules` +
      `${isDilated ? "" : ", or give it another rank with rankPattern"}.`,
  );
}
