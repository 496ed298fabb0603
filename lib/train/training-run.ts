// One training of a Trainer: its loop, and what happens between steps.

import { LokoError } from "../errors.js";
import type { Evaluation } from "../metrics/accumulator.js";
import { checkpointPath, loadCheckpointParameters } from "./checkpoint.js";
import { evaluate } from "./evaluate.js";
import { finiteOnly } from "./history.js";
import type { RunParts } from "./open-run.js";
import type { RunFolder } from "./run-folder.js";
import { argumentsOf, stateOf } from "./run-record.js";
import { learningRateFactor, type Schedule, warmupStepsOf } from "./schedule.js";
import { type OnlineSample, readSamples } from "./stream.js";
import type {
  BatchResult,
  LogEntry,
  TrainerControl,
  TrainerEvent,
  TrainerProgress,
  TrainOutput,
} from "./trainer-events.js";
import type { DataPosition } from "./trainer-state.js";

type Stream = AsyncGenerator<TrainerEvent, void, undefined>;

/** An event without what {@link TrainingRun} adds to each. */
type EventBody = TrainerEvent extends infer E
  ? E extends TrainerEvent
    ? Omit<E, keyof TrainerProgress>
    : never
  : never;

/** Flags of a training that begins. */
export function newControl(): TrainerControl {
  return {
    shouldTrainingStop: false,
    shouldEpochStop: false,
    shouldLog: false,
    shouldEvaluate: false,
    shouldSave: false,
  };
}

export class TrainingRun {
  readonly #parts: RunParts;
  /** What is due is told to callbacks by it, and written down by it in a checkpoint. */
  readonly #control: TrainerControl;
  readonly #schedule: Schedule;
  #step = 0;
  #position: DataPosition = { epoch: 0, batch: 0 };
  /** Whether the end of the pass is still to come after the last step of all. */
  #endsPass = false;
  /** Of a checkpoint; before the first step there is nothing to save. */
  #savedStep = 0;
  readonly #started = performance.now();
  readonly #firstStep: number;
  readonly #firstSample: number;

  /** @param control - stops the training already where it says so. */
  constructor(parts: RunParts, control: TrainerControl) {
    const { options, totalSteps, found, history } = parts;
    this.#parts = parts;
    this.#control = control;
    this.#schedule = {
      type: options.lrSchedulerType,
      warmupSteps: warmupStepsOf(options.warmupSteps, totalSteps),
      totalSteps,
    };
    if (found !== undefined) {
      this.#step = this.#savedStep = found.state.global_step;
      this.#position = found.state.loko.position;
      this.#endsPass = found.state.loko.ends_pass === true;
      const due = found.state.stateful_callbacks.TrainerControl?.args;
      control.shouldLog = due?.should_log === true;
      control.shouldEvaluate = due?.should_evaluate === true && options.evalStrategy !== "no";
      control.shouldSave = due?.should_save === true && options.saveStrategy !== "no";
    }
    this.#firstStep = this.#step;
    this.#firstSample = history.samples;
  }

  /** The whole training. */
  async *events(): Stream {
    const { found, reports, folder } = this.#parts;
    try {
      yield* this.#tell({ type: "trainBegin", ...(found && { resumedFrom: found.path }) });
      if (found !== undefined && !this.#control.shouldTrainingStop) yield* this.#makeUp();
      while (!this.#isOver()) yield* this.#epoch();
      yield* this.#finish();
    } finally {
      // Failed, aborted, or left by whoever reads the events; after an end there is nothing left to save.
      await this.#rescue();
      await reports.close().finally(() => folder?.close());
    }
  }

  /** What was due when the training was interrupted that this one goes on from. */
  async *#makeUp(): Stream {
    yield* this.#act();
    if (!this.#endsPass || this.#step < this.#parts.totalSteps) return;
    yield* this.#endPass(this.#position.batch === this.#parts.data.batchesPerEpoch);
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
    yield* this.#endPass(isExhausted);
  }

  async *#endPass(isExhausted: boolean): Stream {
    const isPassOver = isExhausted || this.#control.shouldEpochStop;
    if (isPassOver) this.#position = { epoch: this.#position.epoch + 1, batch: 0 };
    this.#endsPass = false;
    this.#control.shouldEpochStop = false;
    // A pass that goes on when the training is resumed has its evaluation and its checkpoint still to come.
    if (isPassOver || this.#step >= this.#parts.totalSteps) this.#setDue("epoch");
    yield* this.#tell({ type: "epochEnd" });
    yield* this.#act();
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
    const { optimizer, options, history } = this.#parts;
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
    const { epoch, batch } = this.#position;
    this.#position = { epoch, batch: batch + group.length };
    this.#endsPass = this.#step >= this.#parts.totalSteps;
    history.add({ results, learningRate });
    this.#setDue("steps");
    yield* this.#tell({
      type: "step",
      results,
      samples: history.samples,
      onlineAccuracy: history.onlineAccuracy,
      ...(learningRate !== undefined && { learningRate }),
    });
    yield* this.#act();
  }

  /** What the end of a step, or of a pass, calls for. */
  #setDue(now: "steps" | "epoch"): void {
    const { options } = this.#parts;
    const control = this.#control;
    const isDue = (strategy: string, steps: number) =>
      strategy === now && (now === "epoch" || this.#step % steps === 0);
    control.shouldLog ||= isDue("steps", options.loggingSteps);
    control.shouldEvaluate ||= isDue(options.evalStrategy, options.evalSteps);
    control.shouldSave ||= isDue(options.saveStrategy, options.saveSteps);
  }

  /** Logs, evaluates and saves where that is due; each is so until it is done. */
  async *#act(): Stream {
    if (this.#control.shouldLog) yield* this.#log();
    if (this.#control.shouldEvaluate) yield* this.#evaluate();
    if (this.#control.shouldSave) yield* this.#save();
  }

  async *#log(): Stream {
    const { history } = this.#parts;
    this.#control.shouldLog = false;
    if (history.isPending) yield* this.#tell({ type: "log", logs: this.#record(history.take()) });
  }

  async *#evaluate(): Stream {
    const { model, options, signal, evalData, best } = this.#parts;
    const control = this.#control;
    if (evalData === undefined) {
      control.shouldEvaluate = false;
      return;
    }
    const started = performance.now();
    const metrics: Evaluation = await evaluate(
      model,
      evalData.open({ epoch: 0, skip: 0, signal }),
      { ...(options.metrics && { metrics: options.metrics }), ...(signal && { signal }) },
    );
    const seconds = (performance.now() - started) / 1000;
    const { samples, ...values } = metrics;
    const named = Object.entries(values).map(([name, value]) => [`eval_${name}`, value] as const);
    const logs = this.#record({
      ...Object.fromEntries(named),
      eval_runtime: seconds,
      eval_samples_per_second: samples / seconds,
      eval_steps_per_second: Math.ceil(samples / options.evalBatchSize) / seconds,
    });
    if (best.judge(metrics, this.#step)) control.shouldTrainingStop = true;
    control.shouldEvaluate = false;
    yield* this.#tell({ type: "evaluate", metrics, logs });
  }

  /** @returns a copy of the entry: what callbacks do to theirs must not get into a checkpoint. */
  #record(values: Readonly<Record<string, number>>): LogEntry {
    const logs = finiteOnly({ ...values, epoch: this.#epochsDone(), step: this.#step });
    this.#parts.history.log.push(logs);
    return { ...logs };
  }

  async *#save(): Stream {
    const { folder } = this.#parts;
    this.#control.shouldSave = false;
    if (folder === undefined) return;
    yield* this.#tell({ type: "save", checkpoint: await this.#writeCheckpoint(folder) });
  }

  async #writeCheckpoint(folder: RunFolder): Promise<string> {
    const { model, optimizer, options, best } = this.#parts;
    best.isSaved(this.#step, checkpointPath(folder.path, this.#step));
    const state = stateOf({
      ...this.#parts,
      step: this.#step,
      epochsDone: this.#epochsDone(),
      position: this.#position,
      endsPass: this.#endsPass,
      control: this.#control,
    });
    const args = argumentsOf(options, optimizer);
    const parts = { model, optimizer, state, args };
    const path = await folder.save(parts, options.saveTotalLimit, best.checkpoint);
    this.#savedStep = this.#step;
    return path;
  }

  /** Whether checkpoints are wanted and none has the last step. */
  get #isUnsaved(): boolean {
    return this.#parts.options.saveStrategy !== "no" && this.#savedStep !== this.#step;
  }

  /** Keeps what was learned of a run that ends in the middle; the reason that it ends for comes first. */
  async #rescue(): Promise<void> {
    const { folder, reports } = this.#parts;
    if (folder === undefined || !this.#isUnsaved) return;
    try {
      await this.#writeCheckpoint(folder);
      await reports.writeReport();
    } catch (error) {
      const message = `The checkpoint of step ${this.#step} could not be saved: ${(error as Error).message}`;
      process.emitWarning(message, { type: "LokoWarning", code: "LOKO_CHECKPOINT_LOST" });
    }
  }

  async *#finish(): Stream {
    const { model, options, totalSteps, signal, best, history, reports } = this.#parts;
    const stopped = this.#step < totalSteps;
    yield* this.#log();
    if (this.#isUnsaved) yield* this.#save();
    signal?.throwIfAborted();
    const { checkpoint } = best;
    const loadsBest = options.loadBestModelAtEnd && checkpoint !== null;
    if (loadsBest) await loadCheckpointParameters(checkpoint, model);
    const metrics = this.#summary();
    yield* this.#tell({ type: "log", logs: this.#record(metrics) });
    await reports.writeReport();
    if (this.#step > 0 && history.skipped === this.#step) warnNothingLearned(this.#step);
    const output: TrainOutput = {
      globalStep: this.#step,
      steps: this.#step - this.#firstStep,
      skippedSteps: history.skipped,
      trainingLoss: history.meanLoss,
      metrics,
      bestModelCheckpoint: checkpoint,
      stopped,
      diverged: !history.hasFiniteOutputs && !loadsBest,
    };
    yield* this.#tell({ type: "trainEnd", output });
  }

  #summary(): LogEntry {
    const { history } = this.#parts;
    const seconds = (performance.now() - this.#started) / 1000;
    return finiteOnly({
      train_runtime: seconds,
      train_samples_per_second: (history.samples - this.#firstSample) / seconds,
      train_steps_per_second: (this.#step - this.#firstStep) / seconds,
      train_loss: history.meanLoss,
      epoch: this.#epochsDone(),
    });
  }

  async *#tell(body: EventBody): Stream {
    const event = {
      ...body,
      globalStep: this.#step,
      maxSteps: this.#parts.totalSteps,
      epoch: this.#epochsDone(),
    } as TrainerEvent;
    await this.#parts.reports.handle(event);
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
}

function warnNothingLearned(steps: number): void {
  const message =
    `Nothing was learned: all ${steps} steps were skipped, since their numbers were not finite. ` +
    "The results of the steps say what went wrong (skipped); options of the optimizer far from their defaults can do it.";
  process.emitWarning(message, { type: "LokoWarning", code: "LOKO_NOTHING_LEARNED" });
}
