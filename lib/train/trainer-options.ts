import { describe, LokoError } from "../errors.js";
import { ImageProcessor } from "../images/processor.js";
import { checkMetricsFit, METRICS, type MetricName, type Task } from "../metrics/accumulator.js";
import type { Optimizer } from "../optim/optimizer.js";
import {
  checkOptions,
  either,
  integerIn,
  nonNegativeNumber,
  numberThat,
  type OptionRule,
  oneOf,
  trueOrFalse,
} from "../options.js";
import { Tokenizer } from "../text/tokenizer.js";
import type { OnlineSample } from "./stream.js";
import type { TrainerDataset } from "./trainer-data.js";
import type { TrainerCallback } from "./trainer-events.js";

/** When something happens: never, every so many steps, or after each pass over the data. */
export type IntervalStrategy = "no" | "steps" | "epoch";

/**
 * How the learning rate goes over the steps, as `get_scheduler` of transformers names it. Its factor in step
 * t (from 0) of T, after w steps of warm-up with t/w:
 * - `"linear"`: (T − t)/(T − w).
 * - `"cosine"`: ½·(1 + cos(π·(t − w)/(T − w))).
 * - `"constant"`: 1, without warm-up.
 * - `"constant_with_warmup"`: 1.
 */
export type LearningRateSchedule = "linear" | "cosine" | "constant" | "constant_with_warmup";

/** What a {@link Trainer} writes beside checkpoints. */
export type ReportTarget = "tensorboard" | "jsonl" | "html";

/**
 * Options of {@link Trainer}: those of `transformers.TrainingArguments` in camelCase, with its defaults
 * where none is stated otherwise. A step is one update of the parameters.
 */
export interface TrainerOptions<T = OnlineSample> {
  /** Passes over the dataset, >= 1 (`num_train_epochs`). Default 3. */
  epochs?: number;
  /** Stop after this many steps, over as many passes as that takes; `epochs` must be left out. */
  maxSteps?: number;
  /**
   * Examples of one forward pass (`per_device_train_batch_size`). Default 1 for LoKO, which is made
   * for single examples, else 8. Must be left out where the dataset consists of batches.
   */
  batchSize?: number;
  /**
   * Forward passes of one step: their gradients add up to that of one batch of all their samples. Only for
   * optimizers with a learning rate. Default 1.
   */
  gradientAccumulationSteps?: number;
  /**
   * Factor of the optimizer's `lr` over the steps. Only for optimizers with a learning rate. Default
   * `"linear"`: down to 0 at the last step.
   */
  lrSchedulerType?: LearningRateSchedule;
  /**
   * Steps over which the learning rate rises from 0, or in (0, 1) their share of all steps. Not for
   * `"constant"`. Default 0.
   */
  warmupSteps?: number;
  /**
   * The gradient of a step is scaled to this Euclidean norm where it is longer; 0 turns it off. Only for
   * optimizers with a learning rate. Default 1.
   */
  maxGradNorm?: number;
  /** Whether each pass has an order of its own, drawn from `seed`. Default true. */
  shuffle?: boolean;
  /** An integer >= 0: the same seed gives the same order on every machine. Default 42. */
  seed?: number;
  /** Turns texts or images into batches; the dataset then consists of examples with labels. */
  processingClass?: Tokenizer | ImageProcessor;
  /** Turns `batchSize` items of the dataset into a batch; not beside `processingClass`. */
  dataCollator?: (examples: T[]) => OnlineSample | Promise<OnlineSample>;

  /** Held-out data; what it consists of is as in the dataset of `train`. Default: none. */
  evalDataset?: TrainerDataset<T>;
  /** Default `"epoch"` with an `evalDataset` (of transformers: `"no"`), else `"no"`. */
  evalStrategy?: IntervalStrategy;
  /** Steps between evaluations, with `evalStrategy: "steps"`. Default: `loggingSteps`. */
  evalSteps?: number;
  /** Samples evaluated at once (`per_device_eval_batch_size`). Default 8. */
  evalBatchSize?: number;
  /** What is computed of the held-out data. Default: `["accuracy"]`, of a regression its error. */
  metrics?: readonly MetricName[];

  /**
   * Folder for `checkpoint-<step>`, `log.jsonl`, `report.html` and `runs/`. Default: none, and nothing is
   * written.
   */
  outputDir?: string;
  /**
   * Whether checkpoints of an earlier run in `outputDir` may be deleted when training begins anew. Default
   * false: that is an error. A training that goes on deletes none of another in any case.
   */
  overwriteOutputDir?: boolean;
  /**
   * Default `"steps"` with an `outputDir`, else `"no"`. Unless it is `"no"`, the end of training is saved
   * too, and so is where a run got to that failed or was aborted.
   */
  saveStrategy?: IntervalStrategy;
  /** Steps between checkpoints, with `saveStrategy: "steps"`. Default 500. */
  saveSteps?: number;
  /**
   * Older checkpoints of this training are deleted beyond this many, >= 1; the newest and the best one never
   * are. Default: all are kept.
   */
  saveTotalLimit?: number;

  /**
   * What decides which checkpoint is the best: `"loss"` or one of `metrics`, with or without `"eval_"`.
   * Default `"loss"`.
   */
  metricForBestModel?: string;
  /** Default: false for `"loss"` and `"meanSquaredError"`, else true. */
  greaterIsBetter?: boolean;
  /**
   * Whether the parameters of the best checkpoint are loaded in the end, also after `stop()` and early
   * stopping, but not after an abort or an error. `evalStrategy` and `saveStrategy` must then be the same, and
   * `saveSteps` a multiple of `evalSteps`. Default false.
   */
  loadBestModelAtEnd?: boolean;
  /** Training ends after so many evaluations without a better metric. Default: never. */
  earlyStoppingPatience?: number;
  /** A metric must be better by more than this to count, >= 0. Default 0. */
  earlyStoppingThreshold?: number;

  /** Steps between log entries. Default 50 (of transformers: 500). */
  loggingSteps?: number;
  /** Folder of TensorBoard's event files. Default `<outputDir>/runs/<time>_<host>`. */
  loggingDir?: string;
  /** Default: all of them with an `outputDir`; without one `"tensorboard"` where `loggingDir` is given. */
  reportTo?: readonly ReportTarget[];
  /** Show a bar on stderr where that is a terminal. Default true. */
  progressBar?: boolean;
  /** Called with every event, in this order. */
  callbacks?: readonly TrainerCallback[];
}

/** Options after defaults, for one optimizer. */
export interface ResolvedOptions {
  readonly epochs: number;
  readonly maxSteps: number | undefined;
  readonly batchSize: number;
  readonly isBatchSizeGiven: boolean;
  readonly gradientAccumulationSteps: number;
  readonly lrSchedulerType: LearningRateSchedule;
  readonly warmupSteps: number;
  /** 0: off. */
  readonly maxGradNorm: number;
  readonly shuffle: boolean;
  readonly seed: number;
  readonly processingClass: Tokenizer | ImageProcessor | undefined;
  readonly dataCollator: ((examples: never[]) => OnlineSample | Promise<OnlineSample>) | undefined;
  readonly evalDataset: TrainerDataset<never> | undefined;
  readonly evalStrategy: IntervalStrategy;
  readonly evalSteps: number;
  readonly evalBatchSize: number;
  readonly metrics: readonly MetricName[] | undefined;
  readonly outputDir: string | undefined;
  readonly overwriteOutputDir: boolean;
  readonly saveStrategy: IntervalStrategy;
  readonly saveSteps: number;
  readonly saveTotalLimit: number;
  /** Without `eval_`. */
  readonly metricForBestModel: string;
  readonly greaterIsBetter: boolean;
  readonly loadBestModelAtEnd: boolean;
  readonly earlyStoppingPatience: number;
  readonly earlyStoppingThreshold: number;
  readonly loggingSteps: number;
  readonly loggingDir: string | undefined;
  readonly reportTo: readonly ReportTarget[];
  readonly progressBar: boolean;
  readonly callbacks: readonly TrainerCallback[];
}

const text: OptionRule = {
  expected: "a text that is not empty",
  accepts: (value) => typeof value === "string" && value !== "",
};
const array: OptionRule = { expected: "an array", accepts: Array.isArray };
const aFunction: OptionRule = {
  expected: "a function",
  accepts: (value) => typeof value === "function",
};
const anObject: OptionRule = {
  expected: "a dataset",
  accepts: (value) => typeof value === "object" && value !== null,
};
const interval = oneOf("no", "steps", "epoch");
const warmup: OptionRule = either(
  integerIn(0),
  numberThat("a share in (0, 1)", (share) => share > 0 && share < 1),
);
const processor: OptionRule = {
  expected: "a Tokenizer or an ImageProcessor",
  accepts: (value) => value instanceof Tokenizer || value instanceof ImageProcessor,
};
const callbacks: OptionRule = {
  expected: "an array of functions",
  accepts: (value) => Array.isArray(value) && value.every(aFunction.accepts),
};
const targets: OptionRule = {
  expected: 'an array of "tensorboard", "jsonl", "html"',
  accepts: (value) =>
    Array.isArray(value) &&
    value.every((name) => ["tensorboard", "jsonl", "html"].includes(name as string)),
};

/** Options that only have a meaning with a gradient. */
const OF_GRADIENTS = [
  "gradientAccumulationSteps",
  "lrSchedulerType",
  "warmupSteps",
  "maxGradNorm",
] as const;

/** @throws LokoError ERR_OPTION for bad values, unknown names, and what contradicts itself. */
export function resolveOptions<T>(given: TrainerOptions<T>, optimizer: Optimizer): ResolvedOptions {
  checkOptions("Trainer", given, {
    epochs: integerIn(1),
    maxSteps: integerIn(1),
    batchSize: integerIn(1),
    gradientAccumulationSteps: integerIn(1),
    lrSchedulerType: oneOf("linear", "cosine", "constant", "constant_with_warmup"),
    warmupSteps: warmup,
    maxGradNorm: nonNegativeNumber,
    shuffle: trueOrFalse,
    seed: integerIn(0),
    processingClass: processor,
    dataCollator: aFunction,
    evalDataset: anObject,
    evalStrategy: interval,
    evalSteps: integerIn(1),
    evalBatchSize: integerIn(1),
    metrics: array,
    outputDir: text,
    overwriteOutputDir: trueOrFalse,
    saveStrategy: interval,
    saveSteps: integerIn(1),
    saveTotalLimit: integerIn(1),
    metricForBestModel: text,
    greaterIsBetter: trueOrFalse,
    loadBestModelAtEnd: trueOrFalse,
    earlyStoppingPatience: integerIn(1),
    earlyStoppingThreshold: nonNegativeNumber,
    loggingSteps: integerIn(1),
    loggingDir: text,
    reportTo: targets,
    progressBar: trueOrFalse,
    callbacks,
  });
  const options = withDefaults(given, optimizer);
  checkMetrics(options, optimizer);
  if (!optimizer.hasLearningRate) refuseGradients(given);
  refuseContradictions(given, options);
  return options;
}

function withDefaults<T>(given: TrainerOptions<T>, optimizer: Optimizer): ResolvedOptions {
  const { hasLearningRate } = optimizer;
  const { outputDir, loggingDir, evalDataset, loggingSteps = 50 } = given;
  const metric = (given.metricForBestModel ?? "loss").replace(/^eval_/, "");
  const reports: ReportTarget[] = outputDir !== undefined ? ["tensorboard", "jsonl", "html"] : [];
  if (outputDir === undefined && loggingDir !== undefined) reports.push("tensorboard");
  return {
    epochs: given.epochs ?? 3,
    maxSteps: given.maxSteps,
    batchSize: given.batchSize ?? (hasLearningRate ? 8 : 1),
    isBatchSizeGiven: given.batchSize !== undefined,
    gradientAccumulationSteps: given.gradientAccumulationSteps ?? 1,
    lrSchedulerType: given.lrSchedulerType ?? (hasLearningRate ? "linear" : "constant"),
    warmupSteps: given.warmupSteps ?? 0,
    maxGradNorm: given.maxGradNorm ?? (hasLearningRate ? 1 : 0),
    shuffle: given.shuffle ?? true,
    seed: given.seed ?? 42,
    processingClass: given.processingClass,
    dataCollator: given.dataCollator as ResolvedOptions["dataCollator"],
    evalDataset: evalDataset as ResolvedOptions["evalDataset"],
    evalStrategy: given.evalStrategy ?? (evalDataset === undefined ? "no" : "epoch"),
    evalSteps: given.evalSteps ?? loggingSteps,
    evalBatchSize: given.evalBatchSize ?? 8,
    metrics: given.metrics,
    outputDir,
    overwriteOutputDir: given.overwriteOutputDir ?? false,
    saveStrategy: given.saveStrategy ?? (outputDir === undefined ? "no" : "steps"),
    saveSteps: given.saveSteps ?? 500,
    saveTotalLimit: given.saveTotalLimit ?? Number.POSITIVE_INFINITY,
    metricForBestModel: metric,
    greaterIsBetter: given.greaterIsBetter ?? !["loss", "meanSquaredError"].includes(metric),
    loadBestModelAtEnd: given.loadBestModelAtEnd ?? false,
    earlyStoppingPatience: given.earlyStoppingPatience ?? Number.POSITIVE_INFINITY,
    earlyStoppingThreshold: given.earlyStoppingThreshold ?? 0,
    loggingSteps,
    loggingDir,
    reportTo: given.reportTo ?? reports,
    progressBar: given.progressBar ?? true,
    callbacks: given.callbacks ?? [],
  };
}

function optionError(message: string): LokoError {
  return new LokoError("ERR_OPTION", `Trainer: ${message}`);
}

/** An evaluation after hours of training must not be the first to find that a metric does not fit. */
function checkMetrics(options: ResolvedOptions, { model }: Optimizer): void {
  const task: Task = model.problemType === "regression" ? "regression" : "classification";
  const metrics = options.metrics ?? METRICS[task].slice(0, 1);
  checkMetricsFit(metrics, task);
  if (metrics.includes("f1") && model.numLabels !== 2) {
    throw optionError(
      `the metric "f1" is of two labels, and the model has ${model.numLabels}; use "f1Macro", "f1Micro" or ` +
        '"f1Weighted".',
    );
  }
  if (["loss", ...metrics].includes(options.metricForBestModel)) return;
  throw optionError(
    `metricForBestModel must be "loss" or one of metrics, got ${describe(options.metricForBestModel)}.`,
  );
}

function refuseGradients(given: object): void {
  const values = given as Readonly<Record<string, unknown>>;
  const name = OF_GRADIENTS.find((option) => values[option] !== undefined);
  if (name !== undefined) {
    throw optionError(
      `${name} is for optimizers with a learning rate, and LoKO has none. Leave it out.`,
    );
  }
}

/** What each check looks for, and what it says. */
function refuseContradictions<T>(given: TrainerOptions<T>, options: ResolvedOptions): void {
  const { evalStrategy, saveStrategy, outputDir, lrSchedulerType } = options;
  const has = (name: keyof TrainerOptions<T>) => given[name] !== undefined;
  const refuse = (isBad: boolean, message: string) => {
    if (isBad) throw optionError(message);
  };
  refuse(has("epochs") && has("maxSteps"), "give epochs or maxSteps, not both.");
  refuse(
    has("processingClass") && has("dataCollator"),
    "give processingClass or dataCollator, not both.",
  );
  refuse(
    options.warmupSteps > 0 && lrSchedulerType === "constant",
    'lrSchedulerType "constant" has no warm-up: use "constant_with_warmup", or leave warmupSteps out.',
  );
  refuse(
    evalStrategy !== "no" && options.evalDataset === undefined,
    `evalStrategy ${describe(evalStrategy)} needs an evalDataset.`,
  );
  refuse(
    has("evalSteps") && evalStrategy !== "steps",
    `evalSteps needs evalStrategy "steps", got ${describe(evalStrategy)}.`,
  );
  refuse(
    has("saveSteps") && saveStrategy !== "steps",
    `saveSteps needs saveStrategy "steps", got ${describe(saveStrategy)}.`,
  );
  refuse(
    saveStrategy !== "no" && outputDir === undefined,
    `saveStrategy ${describe(saveStrategy)} needs an outputDir.`,
  );
  refuse(
    outputDir === undefined && options.reportTo.some((target) => target !== "tensorboard"),
    'reportTo "jsonl" and "html" need an outputDir.',
  );
  refuse(
    outputDir === undefined && options.loggingDir === undefined && options.reportTo.length > 0,
    'reportTo "tensorboard" needs an outputDir or a loggingDir.',
  );
  const needsEvaluation = (["loadBestModelAtEnd", "earlyStoppingPatience"] as const).find(
    (name) => given[name] !== undefined && given[name] !== false,
  );
  refuse(
    evalStrategy === "no" && needsEvaluation !== undefined,
    `${needsEvaluation} needs evaluations: give an evalDataset.`,
  );
  refuse(
    has("earlyStoppingThreshold") && !has("earlyStoppingPatience"),
    "earlyStoppingThreshold needs earlyStoppingPatience.",
  );
  if (options.loadBestModelAtEnd) refuseUnsavedBest(options);
}

function refuseUnsavedBest({ evalStrategy, saveStrategy, evalSteps, saveSteps }: ResolvedOptions) {
  if (evalStrategy !== saveStrategy) {
    throw optionError(
      "loadBestModelAtEnd needs evalStrategy and saveStrategy to be the same, got " +
        `${describe(evalStrategy)} and ${describe(saveStrategy)}.`,
    );
  }
  if (evalStrategy === "steps" && saveSteps % evalSteps !== 0) {
    throw optionError(
      `loadBestModelAtEnd needs saveSteps to be a multiple of evalSteps, got ${saveSteps} and ${evalSteps}.`,
    );
  }
}
