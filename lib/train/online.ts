import { describe, LokoError } from "../errors.js";
import type { Model } from "../model.js";
import type { ImageInputs } from "../models/inputs.js";
import type { Optimizer, StepResult, Targets } from "../optim/optimizer.js";

/** One element of a stream: a batch (for LoKO of one sample) and what should have been predicted. */
export interface OnlineSample {
  readonly inputs: ImageInputs;
  readonly labels: Targets;
}

/** Options of {@link trainOnline}. */
export interface TrainOnlineOptions {
  /** Ends the training: the generator rejects with `signal.reason`. A step that runs is finished. */
  signal?: AbortSignal;
}

/** One step of {@link trainOnline}: the {@link StepResult}, and where the stream stands. */
export interface StepEvent extends StepResult {
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
 * @param stream - a sync or async iterable. It is closed when the loop ends early.
 * @throws LokoError as `Optimizer.step`; `ERR_OPTION` when the optimizer belongs to another model.
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
  stream: Iterable<OnlineSample> | AsyncIterable<OnlineSample>,
  { signal }: TrainOnlineOptions = {},
): AsyncGenerator<StepEvent, void, undefined> {
  if (optimizer.model !== model) {
    throw new LokoError("ERR_OPTION", "trainOnline: the optimizer belongs to another model.");
  }
  const iterator = iterate(stream);
  let samples = 0;
  let correct = 0;
  let finished = false;
  try {
    for (let index = 0; ; index++) {
      const next = await abortable(Promise.resolve(iterator.next()), signal);
      if (next.done) {
        finished = true;
        return;
      }
      const { inputs, labels } = next.value;
      const result = await optimizer.step(inputs, labels);
      signal?.throwIfAborted();
      samples += result.predictions.length;
      correct += result.correct;
      yield { ...result, index, samples, onlineAccuracy: correct / samples };
    }
  } finally {
    // Not awaited: a stream that never answers must not hold back an abort.
    if (!finished) void Promise.resolve(iterator.return?.()).catch(() => {});
  }
}

function iterate(
  stream: Iterable<OnlineSample> | AsyncIterable<OnlineSample>,
): Iterator<OnlineSample> | AsyncIterator<OnlineSample> {
  if (typeof stream === "object" && stream !== null) {
    if (Symbol.asyncIterator in stream) return stream[Symbol.asyncIterator]();
    if (Symbol.iterator in stream) return stream[Symbol.iterator]();
  }
  throw new LokoError(
    "ERR_INPUT_TYPE",
    `trainOnline needs an iterable of { inputs, labels }, got ${describe(stream)}.`,
  );
}

/** Settles as `promise`, or rejects with the signal's reason as soon as it is aborted. */
async function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  let onAbort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
