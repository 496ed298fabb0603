// One training of a Trainer: its loop, and what happens between steps.

import { join } from "node:path";
import { LokoError } from "../errors.js";
import type { Evaluation } from "../metrics/accumulator.js";
import type { Model } from "../model.js";
import type { Optimizer } from "../optim/optimizer.js";
import { packageVersion } from "../version.js";
import { BestModel } from "./best-model.js";
import {
  clearLeftOvers,
  type FoundCheckpoint,
  findCheckpoint,
  loadCheckpointParameters,
  OPTIMIZER_FILE,
  prepareOutput,
  requireWritable,
  rotateCheckpoints,
  writeCheckpoint,
} from "./checkpoint.js";
import { evaluate } from "./evaluate.js";
import { finiteOnly, History } from "./history.js";
import { argumentsOf, factsOf } from "./run-record.js";
import { learningRateFactor, type Schedule, warmupStepsOf } from "./schedule.js";
import { type OnlineSample, readSamples } from "./stream.js";
import type { TrainOptions } from "./trainer.js";
import { openTrainingData, type TrainingData } from "./trainer-data.js";
import type {
  BatchResult,
  TrainerControl,
  TrainerEvent,
  TrainerProgress,
  TrainOutput,
} from "./trainer-events.js";
import type { ResolvedOptions } from "./trainer-options.js";
import { Reports } from "./trainer-reports.js";
import {
  FORMAT_VERSION,
  type RunIdentity,
  requireSameRun,
  type TrainerState,
} from "./trainer-state.js";

/** Options by which held-out data are read: in their order, in batches of their own size. */
export function evaluationData(options: ResolvedOptions): ResolvedOptions {
  return { ...options, shuffle: false, batchSize: options.evalBatchSize, isBatchSizeGiven: false };
}

/** What a run is made of before its first step. */
interface Parts {
  readonly model: Model;
  readonly optimizer: Optimizer;
  readonly options: ResolvedOptions;
  readonly data: TrainingData;
  readonly evalData: TrainingData | undefined;
  readonly totalSteps: number;
  readonly found: FoundCheckpoint | undefined;
  readonly signal: AbortSignal | undefined;
}

type Stream = AsyncGenerator<TrainerEvent, void, undefined>;

/** An event without what {@link TrainingRun} adds to each. */
type EventBody = TrainerEvent extends infer E
  ? E extends TrainerEvent
    ? Omit<E, keyof TrainerProgress>
    : never
  : never;

export class TrainingRun {
  readonly #parts: Parts;
  readonly #schedule: Schedule;
  readonly #identity: RunIdentity;
  readonly #reports: Reports;
  readonly #history: History;
  readonly #best: BestModel;
  readonly #control: TrainerControl = {
    shouldTrainingStop: false,
    shouldEpochStop: false,
    shouldLog: false,
    shouldEvaluate: false,
    shouldSave: false,
  };
  #step = 0;
  #position = { epoch: 0, batch: 0 };
  #savedStep = -1;
  readonly #started = performance.now();
  readonly #firstStep: number;
  readonly #firstSample: number;

  private constructor(parts: Parts, history: History, reports: Reports) {
    const { options, totalSteps, found } = parts;
    this.#parts = parts;
    this.#history = history;
    this.#reports = reports;
    this.#identity = identityOf(options, parts.data);
    this.#schedule = {
      type: options.lrSchedulerType,
      warmupSteps: warmupStepsOf(options.warmupSteps, totalSteps),
      totalSteps,
    };
    this.#best = BestModel.from(options, found?.state);
    if (found !== undefined) {
      this.#step = this.#savedStep = found.state.global_step;
      this.#position = { ...found.state.loko.position };
    }
    this.#firstStep = this.#step;
    this.#firstSample = history.samples;
  }

  /**
   * Checks everything that can be checked before the first step, and loads a checkpoint last of all: what
   * is refused has changed nothing.
   */
  static async open(
    model: Model,
    optimizer: Optimizer,
    options: ResolvedOptions,
    dataset: unknown,
    { resumeFromCheckpoint = false, signal }: TrainOptions,
  ): Promise<TrainingRun> {
    const { outputDir, evalDataset, maxSteps } = options;
    const data = await openTrainingData(
      "dataset",
      dataset,
      options,
      maxSteps === undefined,
      signal,
    );
    const evalData =
      evalDataset === undefined
        ? undefined
        : await openTrainingData("evalDataset", evalDataset, evaluationData(options), false);
    if (outputDir !== undefined) await requireWritable(outputDir);
    if (outputDir !== undefined) await clearLeftOvers(outputDir);
    const found =
      resumeFromCheckpoint === false
        ? undefined
        : await findCheckpoint(resumeFromCheckpoint, outputDir);
    if (found !== undefined) {
      requireSameRun(found.path, found.state.loko.run, identityOf(options, data));
    } else if (outputDir !== undefined && options.saveStrategy !== "no") {
      await prepareOutput(outputDir, options.overwriteOutputDir);
    }
    const totalSteps = totalStepsOf(options, data);
    const parts = { model, optimizer, options, data, evalData, totalSteps, found, signal };
    const history =
      found === undefined
        ? new History()
        : History.from({ ...found.state.loko, log: found.state.log_history });
    const reports = await Reports.open({
      options,
      facts: factsOf(parts),
      log: history.log,
      startStep: found?.state.global_step ?? 0,
      maxSteps: totalSteps,
    });
    try {
      signal?.throwIfAborted();
      if (found !== undefined) await optimizer.loadState(join(found.path, OPTIMIZER_FILE));
    } catch (error) {
      await reports.close();
      throw error;
    }
    return new TrainingRun(parts, history, reports);
  }

  stop(): void {
    this.#control.shouldTrainingStop = true;
  }

  /** The whole training. */
  async *events(): Stream {
    let isComplete = false;
    try {
      const { found } = this.#parts;
      yield* this.#tell({ type: "trainBegin", ...(found && { resumedFrom: found.path }) });
      while (!this.#isOver()) yield* this.#epoch();
      isComplete = true;
      yield* this.#finish();
    } finally {
      // Failed, aborted, or left by whoever reads the events.
      if (!isComplete) await this.#rescue();
      await this.#reports.close();
    }
  }

  async *#epoch(): Stream {
    const { data, signal } = this.#parts;
    const { epoch, batch: skip } = this.#position;
    yield* this.#tell({ type: "epochBegin" });
    let isExhausted = true;
    for await (const group of this.#groups(data.open({ epoch, skip, signal }))) {
      yield* this.#learn(group);
      if (!this.#isOver() && !this.#control.shouldEpochStop) continue;
      isExhausted = this.#position.batch === data.batchesPerEpoch;
      break;
    }
    if (this.#position.batch === 0) {
      throw new LokoError(
        "ERR_DATA_FORMAT",
        `Trainer: the dataset gave no batch in pass ${epoch + 1}. Is it an iterator that was read before?`,
      );
    }
    if (isExhausted || this.#control.shouldEpochStop)
      this.#position = { epoch: epoch + 1, batch: 0 };
    this.#control.shouldEpochStop = false;
    yield* this.#tell({ type: "epochEnd" });
    yield* this.#act("epoch");
  }

  /** The batches of each step. */
  async *#groups(stream: Parameters<typeof readSamples>[1]): AsyncGenerator<OnlineSample[]> {
    const { gradientAccumulationSteps: size } = this.#parts.options;
    let group: OnlineSample[] = [];
    for await (const sample of readSamples("Trainer", stream, this.#parts.signal)) {
      if (group.push(sample) < size) continue;
      yield group;
      group = [];
    }
    if (group.length > 0) yield group;
  }

  async *#learn(group: readonly OnlineSample[]): Stream {
    const { optimizer, options } = this.#parts;
    const learningRate = optimizer.hasLearningRate
      ? optimizer.learningRate * learningRateFactor(this.#schedule, this.#step)
      : undefined;
    const samples = group.reduce((sum, { inputs }) => sum + (inputs.shape?.[0] ?? 0), 0);
    const results: BatchResult[] = [];
    for (const [i, { inputs, labels }] of group.entries()) {
      const control = optimizer.hasLearningRate
        ? {
            learningRate,
            maxGradNorm: options.maxGradNorm > 0 ? options.maxGradNorm : undefined,
            weight: group.length === 1 ? 1 : (inputs.shape?.[0] ?? 0) / samples,
            begin: i === 0,
            apply: i === group.length - 1,
          }
        : undefined;
      results.push({ ...(await optimizer.stepWith(inputs, labels, control)), labels });
    }
    this.#step++;
    this.#position.batch += group.length;
    this.#history.add({ results, learningRate });
    yield* this.#tell({
      type: "step",
      results,
      samples: this.#history.samples,
      onlineAccuracy: this.#history.onlineAccuracy,
      ...(learningRate !== undefined && { learningRate }),
    });
    yield* this.#act("steps");
  }

  /** Logs, evaluates and saves where it is time to, or where a callback has asked for it. */
  async *#act(now: "steps" | "epoch"): Stream {
    const { options, evalData } = this.#parts;
    const control = this.#control;
    const isDue = (strategy: string, steps: number) =>
      strategy === now && (now === "epoch" || this.#step % steps === 0);
    if (isDue("steps", options.loggingSteps) || control.shouldLog) yield* this.#log();
    control.shouldLog = false;
    const evaluates = isDue(options.evalStrategy, options.evalSteps) || control.shouldEvaluate;
    control.shouldEvaluate = false;
    if (evaluates && evalData !== undefined) yield* this.#evaluate(evalData);
    const saves = isDue(options.saveStrategy, options.saveSteps) || control.shouldSave;
    control.shouldSave = false;
    if (saves && options.outputDir !== undefined) yield* this.#save(options.outputDir);
  }

  async *#log(): Stream {
    if (!this.#history.isPending) return;
    const logs = { ...this.#history.take(), epoch: this.#epochsDone(), step: this.#step };
    this.#history.log.push(logs);
    yield* this.#tell({ type: "log", logs });
  }

  async *#evaluate(data: TrainingData): Stream {
    const { model, options, signal } = this.#parts;
    const started = performance.now();
    const metrics = await evaluate(model, data.open({ epoch: 0, skip: 0, signal }), {
      ...(options.metrics && { metrics: options.metrics }),
      ...(signal && { signal }),
    });
    const seconds = (performance.now() - started) / 1000;
    const { samples, ...values } = metrics;
    const named = Object.entries(values).map(([name, value]) => [`eval_${name}`, value] as const);
    const logs = finiteOnly({
      ...Object.fromEntries(named),
      eval_runtime: seconds,
      eval_samples_per_second: samples / seconds,
      eval_steps_per_second: Math.ceil(samples / options.evalBatchSize) / seconds,
      epoch: this.#epochsDone(),
      step: this.#step,
    });
    this.#history.log.push(logs);
    if (this.#best.judge(metrics as Evaluation, this.#step))
      this.#control.shouldTrainingStop = true;
    yield* this.#tell({ type: "evaluate", metrics, logs });
  }

  async *#save(outputDir: string): Stream {
    const checkpoint = await this.#writeCheckpoint(outputDir);
    yield* this.#tell({ type: "save", checkpoint });
  }

  async #writeCheckpoint(outputDir: string): Promise<string> {
    const { model, optimizer, options } = this.#parts;
    const path = join(outputDir, `checkpoint-${this.#step}`);
    this.#best.isSaved(this.#step, path);
    const args = argumentsOf(options, optimizer);
    await writeCheckpoint(outputDir, { model, optimizer, args, state: this.#state() });
    this.#savedStep = this.#step;
    await rotateCheckpoints(outputDir, options.saveTotalLimit, [path, this.#best.checkpoint]);
    return path;
  }

  /** Keeps what was learned of a run that ends in the middle; the reason that it ends for comes first. */
  async #rescue(): Promise<void> {
    const { outputDir, saveStrategy } = this.#parts.options;
    if (outputDir === undefined || saveStrategy === "no" || this.#savedStep === this.#step) return;
    if (this.#step === this.#firstStep) return;
    try {
      await this.#writeCheckpoint(outputDir);
      await this.#reports.writeReport();
    } catch (error) {
      const message = `The checkpoint of step ${this.#step} could not be saved: ${(error as Error).message}`;
      process.emitWarning(message, { type: "LokoWarning", code: "LOKO_CHECKPOINT_LOST" });
    }
  }

  async *#finish(): Stream {
    const { model, options, totalSteps, signal } = this.#parts;
    const stopped = this.#step < totalSteps;
    yield* this.#log();
    const { outputDir } = options;
    if (
      outputDir !== undefined &&
      options.saveStrategy !== "no" &&
      this.#savedStep !== this.#step
    ) {
      yield* this.#save(outputDir);
    }
    signal?.throwIfAborted();
    const { checkpoint } = this.#best;
    if (options.loadBestModelAtEnd && checkpoint !== null) {
      await loadCheckpointParameters(checkpoint, model);
    }
    const seconds = (performance.now() - this.#started) / 1000;
    const metrics = finiteOnly({
      train_runtime: seconds,
      train_samples_per_second: (this.#history.samples - this.#firstSample) / seconds,
      train_steps_per_second: (this.#step - this.#firstStep) / seconds,
      train_loss: this.#history.meanLoss,
      epoch: this.#epochsDone(),
    });
    const logs = { ...metrics, step: this.#step };
    this.#history.log.push(logs);
    yield* this.#tell({ type: "log", logs });
    await this.#reports.writeReport();
    const output: TrainOutput = {
      globalStep: this.#step,
      trainingLoss: this.#history.meanLoss,
      metrics,
      bestModelCheckpoint: checkpoint,
      stopped,
    };
    yield* this.#tell({ type: "trainEnd", output });
  }

  async *#tell(body: EventBody): Stream {
    const event = {
      ...body,
      globalStep: this.#step,
      maxSteps: this.#parts.totalSteps,
      epoch: this.#epochsDone(),
    } as TrainerEvent;
    await this.#reports.handle(event);
    for (const callback of this.#parts.options.callbacks) await callback(event, this.#control);
    yield event;
  }

  #isOver(): boolean {
    const { options, totalSteps } = this.#parts;
    const isPastLastEpoch =
      options.maxSteps === undefined && this.#position.epoch >= options.epochs;
    return this.#control.shouldTrainingStop || this.#step >= totalSteps || isPastLastEpoch;
  }

  #epochsDone(): number {
    const { epoch, batch } = this.#position;
    const { batchesPerEpoch } = this.#parts.data;
    return batchesPerEpoch === undefined ? epoch : epoch + batch / batchesPerEpoch;
  }

  #state(): TrainerState {
    const { options, totalSteps } = this.#parts;
    const { window, total, log } = this.#history.state;
    const { seed } = options;
    return {
      ...this.#best.state,
      epoch: this.#epochsDone(),
      global_step: this.#step,
      max_steps: totalSteps,
      num_train_epochs: options.epochs,
      logging_steps: options.loggingSteps,
      eval_steps: options.evalSteps,
      save_steps: options.saveSteps,
      train_batch_size: options.batchSize,
      is_local_process_zero: true,
      is_world_process_zero: true,
      log_history: log,
      loko: {
        format: FORMAT_VERSION,
        version: packageVersion(),
        position: this.#position,
        run: this.#identity,
        random: { generator: "philox4x32-10", seed, stream: this.#position.epoch },
        window,
        total,
      },
    };
  }
}

function totalStepsOf(options: ResolvedOptions, data: TrainingData): number {
  const { maxSteps, epochs, gradientAccumulationSteps } = options;
  if (maxSteps !== undefined) return maxSteps;
  return epochs * Math.ceil(data.batchesPerEpoch! / gradientAccumulationSteps);
}

function identityOf(options: ResolvedOptions, data: TrainingData): RunIdentity {
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
