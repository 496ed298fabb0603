import { abortSignal } from "../abort.js";
import { LokoError } from "../errors.js";
import type { Evaluation } from "../metrics/accumulator.js";
import { Model } from "../model.js";
import { Optimizer } from "../optim/optimizer.js";
import { checkOptions, type OptionRule } from "../options.js";
import { evaluate } from "./evaluate.js";
import { evaluationData, openRun } from "./open-run.js";
import { inputError, type OnlineSample } from "./stream.js";
import { openTrainingData, type TrainerDataset } from "./trainer-data.js";
import type { TrainerControl, TrainerEvent, TrainOutput } from "./trainer-events.js";
import { type ResolvedOptions, resolveOptions, type TrainerOptions } from "./trainer-options.js";
import { newControl, TrainingRun } from "./training-run.js";

/** Options of {@link Trainer.train} and {@link Trainer.run}. */
export interface TrainOptions {
  /**
   * A `checkpoint-<step>` folder to go on from, or `true` for the newest good one of `outputDir`: damaged
   * ones are passed over with a process warning (`LOKO_CHECKPOINT_DAMAGED`). The model must have the same
   * adapter, and data and options must be the same; what follows equals, bit by bit, a training that was
   * never interrupted, and begins with the evaluation that the interruption has left out. `outputDir` must
   * hold no newer checkpoint than this one, and none of another training. Default: begin anew.
   */
  resumeFromCheckpoint?: string | boolean;
  /**
   * Ends the training: it rejects with `signal.reason` once the running step is finished, and saves a
   * checkpoint before where checkpoints are saved.
   */
  signal?: AbortSignal;
}

const resume: OptionRule = {
  expected: "the path of a checkpoint, or true",
  accepts: (value) => typeof value === "boolean" || (typeof value === "string" && value !== ""),
};

/**
 * Trains a model over several passes of a dataset, with evaluations, checkpoints and logs, as
 * `transformers.Trainer` does; each sample is predicted before the model learns from it. docs/training.md
 * is the guide.
 *
 * @example
 * ```ts
 * const trainer = new Trainer(model, new AdamW(model, { lr: 2e-4 }), {
 *   processingClass: tokenizer,
 *   epochs: 3,
 *   batchSize: 16,
 *   evalDataset: textDataset("dev.tsv"),
 *   outputDir: "run",
 * });
 * const { trainingLoss } = await trainer.train(textDataset("train.tsv"));
 * await model.saveAdapter("adapter");
 * ```
 */
export class Trainer<T = OnlineSample> {
  /** The model that is trained. */
  readonly model: Model;
  /** What trains it. */
  readonly optimizer: Optimizer;
  readonly #options: ResolvedOptions;
  /** Of the training that runs, from its very beginning. */
  #control: TrainerControl | undefined;

  /**
   * @throws LokoError `ERR_OPTION` for an unknown option, a bad value, options that contradict each other
   * or that LoKO does not have, and for an optimizer of another model; `ERR_INPUT_TYPE`.
   */
  constructor(model: Model, optimizer: Optimizer, options: TrainerOptions<T> = {}) {
    if (!(model instanceof Model)) throw inputError("Trainer", "a Model as model", model);
    if (!(optimizer instanceof Optimizer)) {
      throw inputError("Trainer", "an Optimizer as optimizer", optimizer);
    }
    if (optimizer.model !== model) {
      throw new LokoError("ERR_OPTION", "Trainer: the optimizer belongs to another model.");
    }
    this.model = model;
    this.optimizer = optimizer;
    this.#options = resolveOptions(options, optimizer);
  }

  /**
   * Trains to the end.
   *
   * @throws LokoError
   * - data: `ERR_INPUT_TYPE`, `ERR_DATA_FORMAT` for an empty dataset, and as `Optimizer.step`; what the
   *   dataset throws is passed on. What was learned until then is in a checkpoint, where those are saved.
   * - files: `ERR_OUTPUT_EXISTS` for checkpoints of another training, and for newer ones than the one to go
   *   on from; `ERR_OUTPUT_BUSY`, `ERR_FILE_WRITE`
   * - resuming: `ERR_FILE_NOT_FOUND`, `ERR_CHECKPOINT_FORMAT` for a damaged checkpoint,
   *   `ERR_CHECKPOINT_MISMATCH` for one of another model, optimizer, dataset or other options
   * - `ERR_DIVERGED` in the end, when all is saved, for a model whose outputs are not finite any more
   * - `ERR_OPTION`, `ERR_DISPOSED`, `ERR_MODEL_BUSY` (also when it is training already)
   *
   * Rejects with `signal.reason` when aborted.
   */
  async train(dataset: TrainerDataset<T>, options: TrainOptions = {}): Promise<TrainOutput> {
    let output: TrainOutput | undefined;
    for await (const event of this.run(dataset, options)) {
      if (event.type === "trainEnd") output = event.output;
    }
    if (output!.diverged) throw divergedError(this.optimizer);
    return output!;
  }

  /**
   * As {@link Trainer.train}, as a stream of events: the training goes on when the next one is asked for.
   * A loop that ends early ends the training, with a checkpoint where those are saved. One that has diverged
   * ends as any other, and its output says so.
   *
   * @throws LokoError as {@link Trainer.train}.
   *
   * @example
   * ```ts
   * for await (const event of trainer.run(dataset, { signal })) {
   *   if (event.type === "log") console.log(event.logs);
   * }
   * ```
   */
  async *run(
    dataset: TrainerDataset<T>,
    options: TrainOptions = {},
  ): AsyncGenerator<TrainerEvent, void, undefined> {
    checkOptions("Trainer.train", options, { resumeFromCheckpoint: resume, signal: abortSignal });
    if (this.#control !== undefined) {
      throw new LokoError(
        "ERR_MODEL_BUSY",
        "Trainer: it is training already; await that one first.",
      );
    }
    options.signal?.throwIfAborted();
    const control = newControl();
    this.#control = control;
    try {
      const { model, optimizer } = this;
      const request = { model, optimizer, options: this.#options, dataset, ...options };
      yield* new TrainingRun(await openRun(request), control).events();
    } finally {
      this.#control = undefined;
    }
  }

  /**
   * Ends a running training after its step as if that were the last one; it resolves, and is saved. One that
   * still reads its data or its checkpoint ends before its first step.
   */
  stop(): void {
    if (this.#control !== undefined) this.#control.shouldTrainingStop = true;
  }

  /**
   * Loss and metrics of held-out data.
   *
   * @param dataset - default: the `evalDataset` of the options.
   * @throws LokoError as `evaluate`; `ERR_OPTION` without a dataset. Rejects with `signal.reason` when
   * aborted.
   */
  async evaluate(
    dataset?: TrainerDataset<T>,
    options: { signal?: AbortSignal } = {},
  ): Promise<Evaluation> {
    checkOptions("Trainer.evaluate", options, { signal: abortSignal });
    const held = dataset ?? this.#options.evalDataset;
    if (held === undefined) {
      throw new LokoError(
        "ERR_OPTION",
        "Trainer.evaluate needs a dataset, or the option evalDataset.",
      );
    }
    const { signal } = options;
    const data = await openTrainingData("evalDataset", held, evaluationData(this.#options), false);
    return evaluate(this.model, data.open({ epoch: 0, skip: 0, signal }), {
      ...(this.#options.metrics && { metrics: this.#options.metrics }),
      ...(signal && { signal }),
    });
  }
}

function divergedError({ hasLearningRate }: Optimizer): LokoError {
  const advice = hasLearningRate
    ? "Use a smaller learning rate."
    : "Report it, with the data if you can.";
  return new LokoError(
    "ERR_DIVERGED",
    `Trainer: the outputs of the model are not finite any more: the training has diverged. ${advice}`,
  );
}
