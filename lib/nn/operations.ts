import type { LinearModule } from "../lora/modules.js";
import type { Activation, Extent, GraphSpec } from "../native/addon.js";

/**
 * A value inside a graph: `rows` x `cols` numbers for each sample. Tokens of a transformer are rows,
 * features are columns. The tokens of a text have no number of their own: each batch decides.
 */
export interface Value {
  readonly id: number;
  readonly rows: number | "tokens";
  readonly cols: number;
  /** Where rows are pixels: pixel (y, x) is row y·width + x, its channels are the columns (NHWC). */
  readonly grid?: Grid;
}

export interface Grid {
  readonly height: number;
  readonly width: number;
}

/** A weight that a graph reads, by its name in a checkpoint of the task model. */
export interface WeightRequirement {
  readonly name: string;
  readonly shape: readonly number[];
}

export interface LinearOptions {
  /** Path of the module; its weight is `<module>.weight` of shape [out, in], its bias `<module>.bias`. */
  readonly module: string;
  /** Number of output features. */
  readonly out: number;
  /** Default true. */
  readonly bias?: boolean;
  /** The shape in the checkpoint where it is not [out, in], as for a convolution that acts on patches. */
  readonly weightShape?: readonly number[];
  /**
   * Name of a vector [out] that multiplies the output, bias and LoRA included, before a residual is added
   * (the layer scale of DINOv2). Needs a single part; such a part and its bias cannot be trained in full.
   */
  readonly outputScale?: string;
}

/** A number stands for both directions. */
export type ExtentOption = number | Extent;

/** A `BatchNorm2d` in eval mode: `<module>.weight`, `.bias`, `.running_mean` and `.running_var`. */
export interface BatchNormOptions {
  readonly module: string;
  readonly eps: number;
}

export interface Conv2dOptions {
  /** Path of the module; its weight is `<module>.weight` of shape [out, in / groups, kh, kw]. */
  readonly module: string;
  /** Number of output channels. */
  readonly out: number;
  readonly kernel: ExtentOption;
  /** Default 1. */
  readonly stride?: ExtentOption;
  /** Zeros around the image, on each side. Default 0. */
  readonly padding?: ExtentOption;
  /** Default 1. */
  readonly dilation?: ExtentOption;
  /** Default 1. */
  readonly groups?: number;
  /** Whether there is `<module>.bias`. Default false, as where a batch norm follows. */
  readonly bias?: boolean;
  /** Follows the convolution and is folded into its frozen weights when they are packed. */
  readonly norm?: BatchNormOptions;
  readonly activation?: Activation;
  /** Added before the activation. */
  readonly residual?: Value;
}

export interface MaxPoolOptions {
  readonly kernel: ExtentOption;
  /** Default: the kernel. */
  readonly stride?: ExtentOption;
  /** At most half the kernel; never the maximum. Default 0. */
  readonly padding?: ExtentOption;
  /** Whether a window that begins inside the image or its left padding may end outside. Default false. */
  readonly ceilMode?: boolean;
}

export interface AvgPoolOptions extends MaxPoolOptions {
  /** Whether padding counts as zeros that are averaged. Default true, as in PyTorch. */
  readonly countIncludePad?: boolean;
}

/**
 * A convolution of the checkpoint. PEFT's LoRA for it: A is a convolution with the same kernel, stride and
 * padding but without groups and dilation, [r, inChannels, kh, kw]; B is 1x1 with the same groups,
 * [outChannels, r / groups, 1, 1] (`_ConvNd` in peft/tuners/lora/layer.py, peft 0.21). Hence PEFT needs r
 * to be a multiple of groups, cannot adapt a dilated kernel larger than 1x1, and merges nothing with groups.
 */
export interface ConvModule {
  readonly path: string;
  readonly inChannels: number;
  readonly outChannels: number;
  readonly kernel: Extent;
  readonly stride: Extent;
  readonly padding: Extent;
  readonly dilation: Extent;
  readonly groups: number;
}

/** What one sample is. */
export type GraphInput =
  | {
      readonly kind: "image";
      readonly channels: number;
      readonly height: number;
      readonly width: number;
    }
  | {
      readonly kind: "text";
      readonly vocabulary: number;
      readonly positionCount: number;
      readonly typeCount: number;
      /** Most tokens of one sample. */
      readonly maxTokens: number;
    };

export interface EmbedTokensOptions {
  /** Paths of the three embedding modules. */
  readonly words: string;
  readonly positions: string;
  readonly types: string;
  readonly vocabulary: number;
  readonly positionCount: number;
  readonly typeCount: number;
  readonly width: number;
  /** Most tokens of one sample. */
  readonly maxTokens: number;
}

/** A complete architecture: what native code lowers, and what LoRA and the weight loader must know. */
export interface ModelGraph {
  readonly spec: GraphSpec;
  /** Every linear module, in the order of computation. */
  readonly linears: readonly LinearModule[];
  /** Every convolution, in the order of computation. */
  readonly convolutions: readonly ConvModule[];
  /** Paths of all modules that have parameters of their own. */
  readonly modules: readonly string[];
  readonly weights: readonly WeightRequirement[];
  readonly input: GraphInput;
  /** Number of outputs m. */
  readonly outputs: number;
}
