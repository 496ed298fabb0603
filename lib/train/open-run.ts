// All that a training does before its first step.

import { join } from "node:path";
import type { Model } from "../model.js";
import type { Optimizer } from "../optim/optimizer.js";
import { BestModel } from "./best-model.js";
import { type FoundCheckpoint, findCheckpoint, OPTIMIZER_FILE } from "./checkpoint.js";
import { History } from "./history.js";
import { RunFolder } from "./run-folder.js";
import { factsOf, identityOf } from "./run-record.js";
import type { TrainOptions } from "./trainer.js";
import { openTrainingData, type TrainingData } from "./trainer-data.js";
import type { ResolvedOptions } from "./trainer-options.js";
import { Reports } from "./trainer-reports.js";
import { requireSameRun } from "./trainer-state.js";

/** What a training is asked for. */
export interface RunRequest extends TrainOptions {
  readonly model: Model;
  readonly optimizer: Optimizer;
  readonly options: ResolvedOptions;
  readonly dataset: unknown;
}

/** What a training is made of before its first step. */
export interface RunParts {
  readonly model: Model;
  readonly optimizer: Optimizer;
  readonly options: ResolvedOptions;
  readonly signal: AbortSignal | undefined;
  readonly data: TrainingData;
  readonly evalData: TrainingData | undefined;
  readonly totalSteps: number;
  /** Held until the training closes it; undefined without an `outputDir`. */
  readonly folder: RunFolder | undefined;
  /** What it goes on from. */
  readonly found: FoundCheckpoint | undefined;
  readonly history: History;
  readonly best: BestModel;
  readonly reports: Reports;
}

/** Options by which held-out data are read: in their order, in batches of their own size. */
export function evaluationData(options: ResolvedOptions): ResolvedOptions {
  return { ...options, shuffle: false, batchSize: options.evalBatchSize, isBatchSizeGiven: false };
}

/**
 * Checks everything that can be checked before the first step, and loads a checkpoint last of all: what is
 * refused has changed nothing.
 */
export async function openRun(request: RunRequest): Promise<RunParts> {
  const { options, dataset, signal } = request;
  const { outputDir, evalDataset, maxSteps } = options;
  const needsSize = maxSteps === undefined;
  const data = await openTrainingData("dataset", dataset, options, needsSize, signal);
  const evalData =
    evalDataset === undefined
      ? undefined
      : await openTrainingData("evalDataset", evalDataset, evaluationData(options), false);
  const folder = outputDir === undefined ? undefined : await RunFolder.open(outputDir);
  try {
    return await openInFolder(request, { data, evalData, folder });
  } catch (error) {
    await folder?.close();
    throw error;
  }
}

async function openInFolder(
  { model, optimizer, options, signal, resumeFromCheckpoint = false }: RunRequest,
  opened: Pick<RunParts, "data" | "evalData" | "folder">,
): Promise<RunParts> {
  const { data, folder } = opened;
  const found =
    resumeFromCheckpoint === false
      ? undefined
      : await findCheckpoint(resumeFromCheckpoint, options.outputDir);
  if (found !== undefined) {
    requireSameRun(found.path, found.state.loko.run, identityOf(options, data));
  }
  if (options.saveStrategy !== "no") await folder?.claim(found, options.overwriteOutputDir);
  const best = await BestModel.open(options, found);
  const history =
    found === undefined
      ? new History()
      : History.from({ ...found.state.loko, log: found.state.log_history });
  const totalSteps = totalStepsOf(options, data);
  const reports = await Reports.open({
    options,
    facts: factsOf({ model, optimizer, options, data, totalSteps, found }),
    log: history.log,
    startStep: found?.state.global_step ?? 0,
    maxSteps: totalSteps,
  });
  try {
    signal?.throwIfAborted();
    if (found !== undefined) await optimizer.loadState(join(found.path, OPTIMIZER_FILE));
    await folder?.deleteFormer();
  } catch (error) {
    await reports.close();
    throw error;
  }
  return {
    model,
    optimizer,
    options,
    signal,
    ...opened,
    totalSteps,
    found,
    history,
    best,
    reports,
  };
}

function totalStepsOf(options: ResolvedOptions, data: TrainingData): number {
  const { maxSteps, epochs, gradientAccumulationSteps } = options;
  if (maxSteps !== undefined) return maxSteps;
  return epochs * Math.ceil(data.batchesPerEpoch! / gradientAccumulationSteps);
}
