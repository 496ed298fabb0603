// What is written down about a run for people: training_args.json and the table of the report.

import type { Model } from "../model.js";
import type { Optimizer } from "../optim/optimizer.js";
import { count } from "../report/format.js";
import { packageVersion } from "../version.js";
import type { FoundCheckpoint } from "./checkpoint.js";
import type { TrainingData } from "./trainer-data.js";
import type { ResolvedOptions } from "./trainer-options.js";

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
