import { abortSignal } from "../abort.js";
import { LokoError } from "../errors.js";
import type { Evaluation } from "../metrics/accumulator.js";
import { Model } from "../model.js";
import { Optimizer } from "../optim/optimizer.js";
import { checkOptions, type OptionRule } from "../options.js";
import { evaluate } from "./evaluate.js";
import { inputError, type OnlineSample } from "./stream.js";
import { openTrainingData, type TrainerDataset } from "./trainer-data.js";
import type { TrainerEvent, TrainOutput } from "./trainer-events.js";
import { type ResolvedOptions, resolveOptions, type TrainerOptions } from "./trainer-options.js";
import { evaluationData, TrainingRun } from "./training-run.js";

/** Options of {@link Trainer.train} and {@link Trainer.run}. */
export interface TrainOptions {
  /**
   * A `checkpoint-<step>` folder to go on from, or `true` for the newest good one of `outputDir`: damaged
   * ones are passed over with a process warning (`LOKO_CHECKPOINT_DAMAGED`). The model must have the same
   * adapter, and data and options must be the same; what follows equals, bit by bit, a training that was
   * never interrupted. Default: begin anew.
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
  #run: TrainingRun | undefined;
  #isStarting = false;

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
   * - files: `ERR_OUTPUT_EXISTS` for checkpoints of an earlier training, `ERR_FILE_WRITE`
   * - resuming: `ERR_FILE_NOT_FOUND`, `ERR_CHECKPOINT_FORMAT` for a damaged checkpoint,
   *   `ERR_CHECKPOINT_MISMATCH` for one of another model, optimizer, dataset or other options
   * - `ERR_OPTION`, `ERR_DISPOSED`, `ERR_MODEL_BUSY` (also when it is training already)
   *
   * Rejects with `signal.reason` when aborted.
   */
  async train(dataset: TrainerDataset<T>, options: TrainOptions = {}): Promise<TrainOutput> {
    let output: TrainOutput | undefined;
    for await (const event of this.run(dataset, options)) {
      if (event.type === "trainEnd") output = event.output;
    }
    return output!;
  }

  /**
   * As {@link Trainer.train}, as a stream of events: the training goes on when the next one is asked for.
   * A loop that ends early ends the training, with a checkpoint where those are saved.
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
    if (this.#isStarting || this.#run !== undefined) {
      throw new LokoError(
        "ERR_MODEL_BUSY",
        "Trainer: it is training already; await that one first.",
      );
    }
    options.signal?.throwIfAborted();
    this.#isStarting = true;
    try {
      const { model, optimizer } = this;
      const run = await TrainingRun.open(model, optimizer, this.#options, dataset, options);
      this.#run = run;
      yield* run.events();
    } finally {
      this.#run = undefined;
      this.#isStarting = false;
    }
  }

  /** Ends a running training after its step as if that were the last one; it resolves, and is saved. */
  stop(): void {
    this.#run?.stop();
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
