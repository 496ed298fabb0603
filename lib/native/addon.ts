/**
 * The one typed description of the native addon. Nothing else in `lib/` may touch the `.node` file's
 * exports. Arguments are validated in TypeScript before they come here; the addon checks again only
 * what could harm the process. Every method that works runs on the session's own thread and returns a
 * promise; errors carry a string `code` (see `fromNative` in ../errors.ts).
 *
 * @internal
 */
export interface NativeAddon {
  /** Of the package that the addon was built from; the loader takes no other than its own. */
  readonly version: string;
  /** Builds a session; no file is touched before {@link NativeSession.load}. */
  createSession(options: NativeSessionOptions): NativeSession;
  /** Facts for `deviceInfo()`; never throws. */
  deviceInfo(): NativeDeviceInfo;
  /** Facts for `cublasLtInfo()`; opens the library, 0.5 GB, where there is one; never throws. */
  cublasLtInfo(): NativeCublasLt;
  /** JavaScript-to-native calls since the addon was loaded in this environment, this one included. */
  crossings(): number;
}

export interface NativeSessionOptions {
  /** `"cpu"`, `"cuda"`, or `"ref"`: the float64 reference used by tests. */
  device: string;
  /** Other than `"float32"` only on `"cuda"`. */
  precision: "float32" | "tf32" | "bfloat16";
  /** 0: chosen from the affinity mask and the cgroup quota. */
  threads: number;
  /** Seeds new heads and LoRA factors. */
  seed: number;
  graph: GraphSpec;
  weights: readonly NativeWeight[];
}

/** Where a weight comes from: a file region, `values`, or (with neither) N(0, std) values drawn by seed. */
export interface NativeWeight {
  name: string;
  shape: readonly number[];
  file?: string;
  byteOffset?: number;
  dtype?: "F32" | "F16" | "BF16" | "F64";
  values?: Float32Array;
  std?: number;
}

/** Values are numbered by the order in which nodes create them, from 0. */
export interface GraphSpec {
  nodes: readonly GraphNode[];
  /** The value holding the logits, one row per sample. */
  output: number;
}

export type Activation = "none" | "gelu" | "gelu_tanh" | "relu" | "quick_gelu" | "tanh";

export interface LinearPartSpec {
  module: string;
  weight: string;
  bias?: string;
  out: number;
  /** Name of a vector [out] that multiplies the output before the residual; only where the part stands alone. */
  outputScale?: string;
}

/** [height, width]. */
export type Extent = readonly [height: number, width: number];

/** A batch normalisation in eval mode, by the names of its four vectors. */
export interface BatchNormSpec {
  weight: string;
  bias: string;
  mean: string;
  variance: string;
  eps: number;
}

export type GraphNode =
  | { op: "image"; channels: number; height: number; width: number }
  | { op: "patchify"; input: number; patch: number }
  | { op: "assembleTokens"; input: number; cls: string; pos: string }
  | {
      /** The input of a text model: the sum of three tables' rows. */
      op: "embedTokens";
      words: string;
      positions: string;
      types: string;
      vocabulary: number;
      positionCount: number;
      typeCount: number;
      width: number;
      maxTokens: number;
    }
  | {
      /** Creates one value per part. */
      op: "linear";
      input: number;
      parts: readonly LinearPartSpec[];
      activation?: Activation;
      residual?: number;
    }
  | { op: "layerNorm"; input: number; weight: string; bias: string; eps: number }
  | { op: "attention"; q: number; k: number; v: number; heads: number; scale: number }
  | { op: "selectFirst"; input: number }
  | {
      /** y = act(norm(conv(x) + bias) + residual) on a value with a grid. */
      op: "conv2d";
      input: number;
      module: string;
      weight: string;
      bias?: string;
      out: number;
      kernel: Extent;
      stride: Extent;
      padding: Extent;
      dilation: Extent;
      groups: number;
      norm?: BatchNormSpec;
      activation?: Activation;
      residual?: number;
    }
  | ({ op: "batchNorm"; input: number; activation?: "none" | "relu" } & BatchNormSpec)
  | {
      op: "maxPool";
      input: number;
      kernel: Extent;
      stride: Extent;
      padding: Extent;
      ceilMode: boolean;
    }
  | {
      op: "avgPool";
      input: number;
      kernel: Extent;
      stride: Extent;
      padding: Extent;
      ceilMode: boolean;
      countIncludePad: boolean;
    }
  | { op: "meanRows"; input: number; skip: number }
  | { op: "concat"; inputs: readonly number[] }
  | { op: "flatten"; input: number };

export interface NativeAdapter {
  lora: readonly { module: string; rank: number; scale: number; a: number; b: number }[];
  /** `bias` is -1 where the module has none. */
  trained: readonly { module: string; weight: number; bias: number }[];
  /** Biases beside frozen weights, by their names in the graph. */
  biases: readonly { parameter: string; offset: number }[];
  parameters: number;
  init: "kaiming" | "gaussian" | "random";
}

/** A batch of B samples. */
export interface NativeBatch {
  /**
   * Pixels [B, C, H, W], or for a text of T tokens four blocks [B, T]: token ids, position ids, type ids,
   * and what is added to the scores of attention, 0 for a token and -Infinity for padding.
   */
  values: Float32Array;
  batch: number;
  /** T; 0 for images. */
  tokens: number;
}

export interface NativeSession {
  load(): Promise<void>;
  setAdapter(adapter: NativeAdapter): Promise<void>;
  /** W += scale·B·A in float32, trained modules and biases replace theirs; no adapter is left. */
  mergeAdapter(): Promise<{ largestChange: number; weight: string }>;
  /** Fills `target` with the present values of a weight, rounded to `dtype`, little-endian. */
  readWeight(
    request: { name: string; dtype: "F32" | "F16" | "BF16" | "F64"; elements: number },
    target: Uint8Array,
  ): Promise<void>;
  // Inputs are copied before a call returns. Outputs are written into an array that the caller
  // allocates and must not look at before the promise resolves: V8 turns a failed allocation into a
  // RangeError here, and into the end of the process in native code.

  /** Fills `logits` [B * m]. */
  forward(input: NativeBatch, logits: Float32Array): Promise<void>;
  /** Fills `jacobian` [B * m * n]. */
  jacobian(input: NativeBatch, of: "logits" | "softmax", jacobian: Float32Array): Promise<void>;
  readParameters(values: Float32Array): Promise<void>;
  writeParameters(values: Float32Array): Promise<void>;
  /**
   * A handle that only `step` of the same session takes; its state is allocated by the first step.
   * Throws ERR_OPTION for options that have no meaning together.
   */
  createOptimizer(options: NativeOptimizerOptions): NativeOptimizer;
  /**
   * One training step: one crossing. `targets` are class indices [B] or float targets [B * m]; `logits`
   * [B * m] receives the prediction from before anything was learned.
   */
  step(
    optimizer: NativeOptimizer,
    input: NativeBatch,
    targets: Int32Array | Float32Array,
    logits: Float32Array,
    control?: NativeStepControl,
  ): Promise<NativeStepResult>;
  /** What the state of an optimizer consists of, in the order of its numbers; θ comes first. */
  describeOptimizerState(optimizer: NativeOptimizer): Promise<readonly NativeStateEntry[]>;
  /** Fills `target`, as long as all entries together. */
  readOptimizerState(optimizer: NativeOptimizer, target: Float64Array): Promise<void>;
  /** Replaces θ and the state; ERR_OPTION, and nothing is changed, for numbers that are none. */
  writeOptimizerState(optimizer: NativeOptimizer, values: Float64Array): Promise<void>;
  /** Idempotent. A step that runs is finished first; its promise still settles. */
  dispose(): void;
  /** For diagnostics: which kernels and threads the backend uses. */
  description(): string;
}

/** How a step differs from a plain one: StepControl in native/filter/optimizer.h. Not for LoKO. */
export interface NativeStepControl {
  learningRate?: number | undefined;
  maxGradNorm?: number | undefined;
  /** Share of the batch in the loss of the step. Default 1. */
  weight?: number | undefined;
  /** True: gradients that wait from a step that was never finished are dropped. Default true. */
  begin?: boolean | undefined;
  /** False: the gradient waits for that of the next batch. Default true. */
  apply?: boolean | undefined;
}

export interface NativeStateEntry {
  name: string;
  /** `[]` for one number. */
  shape: readonly number[];
  size: number;
}

declare const optimizerBrand: unique symbol;
export interface NativeOptimizer {
  readonly [optimizerBrand]: true;
}

export type NativeOptimizerOptions =
  | ({ kind: "loko" } & NativeLokoOptions)
  | ({ kind: "sgd" | "adagrad" | "rmsprop" | "adam" | "adamw" } & NativeGradientOptions);

/**
 * As LokoOptions in native/filter/loko_options.h, which owns the defaults; an absent field takes its
 * default there. Meanings for users are on `LoKOOptions` in lib/optim.
 */
export interface NativeLokoOptions {
  /** Where the other fields start: LokoOptions::paper(). */
  preset?: "paper";
  observation?: "softmax" | "categorical" | "logits" | "regression";
  observationRank?: "exact" | "auto" | number;
  /** Only with `observationRank` "auto". */
  rankEpsilon?: number;
  noise?: "ema" | "model" | "residual" | "fixed";
  beta?: number;
  r0?: number;
  gamma?: number;
  q?: number;
  qRatio?: number;
  /** Infinity: no cap. */
  pMax?: number;
  pMinRatio?: number;
  /** Infinity: off. */
  trustRegion?: number;
  p0?: "auto" | number | { a: number; b: number; head: number };
  tau?: number;
  covariance?: "fdekf" | "vdekf" | "lofi";
  covarianceRank?: number;
  update?: "linear" | "iterated";
  gain?: "fixed" | "adaptive";
  minLoss?: number;
}

/** As GradientOptions in native/filter/gradient_optimizer.h, with the defaults of torch.optim. */
export interface NativeGradientOptions {
  lr?: number;
  weightDecay?: number;
  beta1?: number;
  beta2?: number;
  eps?: number;
  amsgrad?: boolean;
  momentum?: number;
  dampening?: number;
  nesterov?: boolean;
  lrDecay?: number;
  initialAccumulator?: number;
  alpha?: number;
  centered?: boolean;
}

export interface NativeStepResult {
  /** Index of the largest logit of each sample, before anything was learned. */
  predictions: Int32Array;
  loss: number;
  /** Samples of the batch predicted correctly; 0 for float targets. */
  correct: number;
  /** Cotangent rows propagated. */
  rows: number;
  /** Null, or why nothing was changed. */
  skipped: string | null;
  /** Only of a step with `maxGradNorm`: the norm of the gradient before it was clipped. */
  gradientNorm?: number;
  /** Only LoKO fills these. */
  kalman?: {
    p0: number;
    traceR: number;
    /** Normalised innovation squared per degree of freedom. */
    nis: number;
    /** Factor applied by the trust region, 1 where it did not act. */
    trustScale: number;
    gain: number;
    stretch: number;
    /** What had to be added to the diagonal of S; 0 almost always. */
    jitter: number;
    /** (largest / smallest Cholesky pivot)^2, a lower bound of the condition of S. */
    pivotRatio: number;
    /** Entries of p that the floor caught in this step. */
    floored: number;
    pMean: number;
    pMin: number;
    pMax: number;
  };
}

export interface NativeDeviceInfo {
  cpu: {
    /** Null when LOKO_CPU_ISA names one that does not exist here; `problem` then says so. */
    isa: string | null;
    problem?: string;
    available: readonly string[];
    threads: number;
  };
  cuda: {
    available: boolean;
    /** Empty where available. */
    cause: "" | "notCompiled" | "noDriver" | "driverTooOld" | "noDevice";
    reason: string;
    /** As 13000 for 13.0; 0: none. */
    driver: number;
    runtime: number;
    /** CMake's names, separated by commas: 80-real,90. */
    architectures: string;
    devices: readonly {
      name: string;
      /** 90 for 9.0. */
      computeCapability: number;
      memoryBytes: number;
      multiprocessors: number;
    }[];
  };
}

export interface NativeCublasLt {
  /** Empty: none is used. */
  path: string;
  /** As 130101 for 13.1.1; 0: none. */
  version: number;
  disabled: boolean;
  /** In order; `problem` is empty for the one that is used. */
  tried: readonly { place: string; problem: string }[];
}
