// What is written down about a run: trainer_state.json, and for people training_args.json and the table of
// the report.

import type { Model } from "../model.js";
import type { Optimizer } from "../optim/optimizer.js";
import { count } from "../report/format.js";
import { packageVersion } from "../version.js";
import type { BestModel } from "./best-model.js";
import type { FoundCheckpoint } from "./checkpoint.js";
import type { History } from "./history.js";
import type { TrainingData } from "./trainer-data.js";
import type { TrainerControl } from "./trainer-events.js";
import type { ResolvedOptions } from "./trainer-options.js";
import {
  type DataPosition,
  FORMAT_VERSION,
  type RunIdentity,
  type TrainerState,
} from "./trainer-state.js";

export function identityOf(options: ResolvedOptions, data: TrainingData): RunIdentity {
  return {
    dataset_size: data.size ?? null,
    batch_size: options.batchSize,
    gradient_accumulation_steps: options.gradientAccumulationSteps,
    shuffle: options.shuffle,
    seed: options.seed,
    lr_scheduler_type: options.lrSchedulerType,
    warmup_steps: options.warmupSteps,
    max_grad_norm: options.maxGradNorm,
  };
}

/** The contents of `trainer_state.json`. */
export function stateOf(run: {
  readonly options: ResolvedOptions;
  readonly data: TrainingData;
  readonly totalSteps: number;
  readonly step: number;
  readonly epochsDone: number;
  readonly position: DataPosition;
  readonly endsPass: boolean;
  readonly history: History;
  readonly best: BestModel;
  readonly control: TrainerControl;
}): TrainerState {
  const { options, position, control } = run;
  const { stateful_callbacks, ...best } = run.best.state;
  const { window, total, last, log } = run.history.state;
  return {
    ...best,
    epoch: run.epochsDone,
    global_step: run.step,
    max_steps: run.totalSteps,
    num_train_epochs: options.epochs,
    logging_steps: options.loggingSteps,
    eval_steps: options.evalSteps,
    save_steps: options.saveSteps,
    train_batch_size: options.batchSize,
    is_local_process_zero: true,
    is_world_process_zero: true,
    log_history: log,
    stateful_callbacks: { ...stateful_callbacks, TrainerControl: controlState(control) },
    loko: {
      format: FORMAT_VERSION,
      version: packageVersion(),
      position,
      ends_pass: run.endsPass,
      run: identityOf(options, run.data),
      random: { generator: "philox4x32-10", seed: options.seed, stream: position.epoch },
      window,
      total,
      last,
    },
  };
}

/** Only what is due is kept: who goes on does not want to be stopped again. */
function controlState({ shouldSave, shouldEvaluate, shouldLog }: TrainerControl) {
  return {
    args: {
      should_training_stop: false,
      should_epoch_stop: false,
      should_save: shouldSave,
      should_evaluate: shouldEvaluate,
      should_log: shouldLog,
    },
    attributes: {},
  };
}

/** The options that are numbers and names, and the optimizer. */
export function argumentsOf(
  options: ResolvedOptions,
  optimizer: Optimizer,
): Readonly<Record<string, unknown>> {
  const plain = Object.entries(options).filter(
    ([name, value]) =>
      name !== "isBatchSizeGiven" &&
      (typeof value === "string" ||
        typeof value === "boolean" ||
        Number.isFinite(value) ||
        (Array.isArray(value) && value.every((entry) => typeof entry === "string"))),
  );
  return { ...Object.fromEntries(plain), optimizer: optimizer.describe() };
}

export function factsOf(run: {
  readonly model: Model;
  readonly optimizer: Optimizer;
  readonly options: ResolvedOptions;
  readonly data: TrainingData;
  readonly totalSteps: number;
  readonly found: FoundCheckpoint | undefined;
}): (readonly [string, string])[] {
  const { model, optimizer, options, data, totalSteps, found } = run;
  const { trainable, all } = model.parameterCounts();
  const { class: name, kind: _, ...settings } = optimizer.describe();
  const { batchSize, gradientAccumulationSteps: passes } = options;
  const facts: (readonly [string, string] | undefined)[] = [
    ["model", `${model.directory} (${model.modelType}, ${model.numLabels} labels)`],
    ["parameters", `${count(trainable)} trainable of ${count(all)}`],
    [
      "optimizer",
      `${name} ${Object.keys(settings).length > 0 ? JSON.stringify(settings) : ""}`.trim(),
    ],
    optimizer.hasLearningRate ? ["schedule", scheduleOf(options)] : undefined,
    data.size === undefined
      ? undefined
      : ["dataset", `${count(data.size)} ${data.itemsAreBatches ? "batches" : "examples"}`],
    ["steps", count(totalSteps)],
    data.itemsAreBatches ? undefined : ["batch size", String(batchSize)],
    passes > 1 ? ["batches of a step", String(passes)] : undefined,
    ["seed", String(options.seed)],
    found && ["resumed from", found.path],
    ["loko", packageVersion()],
  ];
  return facts.filter((fact) => fact !== undefined);
}

function scheduleOf({ lrSchedulerType, warmupSteps, maxGradNorm }: ResolvedOptions): string {
  const clipping = maxGradNorm > 0 ? `gradients clipped to ${maxGradNorm}` : "no clipping";
  return `${lrSchedulerType}, warm-up ${warmupSteps}, ${clipping}`;
}
