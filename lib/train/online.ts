import { abortSignal } from "../abort.js";
import { LokoError } from "../errors.js";
import { Model } from "../model.js";
import { Optimizer, type StepResult, type Targets } from "../optim/optimizer.js";
import { checkOptions } from "../options.js";
import { inputError, readSamples, type SampleStream } from "./stream.js";

export type { OnlineSample, SampleStream } from "./stream.js";

/** Options of {@link trainOnline}. */
export interface TrainOnlineOptions {
  /** Ends the training: the generator rejects with `signal.reason`. A step that runs is finished. */
  signal?: AbortSignal;
}

/** One step of {@link trainOnline}: the {@link StepResult}, and where the stream stands. */
export interface StepEvent extends StepResult {
  /** What the step learned from: the labels of the stream's item. */
  readonly labels: Targets;
  /** Number of the step, from 0. */
  readonly index: number;
  /** Samples seen so far, this step included. */
  readonly samples: number;
  /**
   * Share of all samples so far that were predicted correctly before the model learned from them
   * (prequential accuracy), in [0, 1].
   */
  readonly onlineAccuracy: number;
}

/**
 * Learns from a stream: each batch is predicted first and then learned from once. Yields one event per
 * step; the next step starts when the next event is asked for, so a slow consumer slows the training
 * down and nothing queues up.
 *
 * @param stream - a sync or async iterable. When the loop ends early it is closed, and waited for,
 * as `for await` does; only an abort does not wait.
 * @throws LokoError as `Optimizer.step`; `ERR_INPUT_TYPE` for a stream or an item of it that is none;
 * `ERR_OPTION` for a bad option, and when the optimizer belongs to another model.
 * Rejects with `signal.reason` when aborted, also while the stream is waited for.
 *
 * @example
 * ```ts
 * for await (const { index, onlineAccuracy } of trainOnline(model, optimizer, stream, { signal })) {
 *   if (index % 100 === 0) console.log(index, onlineAccuracy);
 * }
 * ```
 */
export async function* trainOnline(
  model: Model,
  optimizer: Optimizer,
  stream: SampleStream,
  options: TrainOnlineOptions = {},
): AsyncGenerator<StepEvent, void, undefined> {
  checkLearner(model, optimizer);
  checkOptions("trainOnline", options, { signal: abortSignal });
  const { signal } = options;
  let index = 0;
  let samples = 0;
  let correct = 0;
  for await (const { inputs, labels } of readSamples("trainOnline", stream, signal)) {
    const result = await optimizer.step(inputs, labels);
    signal?.throwIfAborted();
    samples += result.predictions.length;
    correct += result.correct;
    yield { ...result, labels, index, samples, onlineAccuracy: correct / samples };
    index++;
  }
}

function checkLearner(model: unknown, optimizer: unknown): void {
  if (!(model instanceof Model)) throw inputError("trainOnline", "a Model as model", model);
  if (!(optimizer instanceof Optimizer)) {
    throw inputError("trainOnline", "an Optimizer as optimizer", optimizer);
  }
  if (optimizer.model !== model) {
    throw new LokoError("ERR_OPTION", "trainOnline: the optimizer belongs to another model.");
  }
}
