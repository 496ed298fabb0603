import { describe, LokoError } from "../errors.js";
import { Model } from "../model.js";
import type { ImageInputs } from "../models/inputs.js";
import { Optimizer, type StepResult, type Targets } from "../optim/optimizer.js";
import { checkOptions } from "../options.js";

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
  stream: Iterable<OnlineSample> | AsyncIterable<OnlineSample>,
  options: TrainOnlineOptions = {},
): AsyncGenerator<StepEvent, void, undefined> {
  checkLearner(model, optimizer);
  checkOptions("trainOnline", options, {
    signal: {
      expected: "an AbortSignal",
      accepts: (value) => value instanceof AbortSignal,
    },
  });
  const { signal } = options;
  signal?.throwIfAborted();
  const iterator = openStream(stream);
  let samples = 0;
  let correct = 0;
  // Whether the stream has ended, failed or been closed; nobody closes it then.
  let over = false;
  const advance = async () => {
    try {
      return await iterator.next();
    } catch (error) {
      over = true;
      throw error;
    }
  };
  try {
    for (let index = 0; ; index++) {
      signal?.throwIfAborted();
      const next = checkResult(await abortable(advance(), signal));
      if (next.done) {
        over = true;
        return;
      }
      const { inputs, labels } = checkItem(next.value, index);
      const result = await optimizer.step(inputs, labels);
      signal?.throwIfAborted();
      samples += result.predictions.length;
      correct += result.correct;
      yield { ...result, index, samples, onlineAccuracy: correct / samples };
    }
  } catch (error) {
    if (!over) {
      over = true;
      // What goes wrong while closing must not replace the error of the run.
      const closing = close(iterator).catch(() => {});
      // A generator answers return() only after a pending next(), which may never happen.
      if (!signal?.aborted) await closing;
    }
    throw error;
  } finally {
    if (!over) await close(iterator);
  }
}

type StreamIterator = Iterator<OnlineSample> | AsyncIterator<OnlineSample>;

function checkLearner(model: unknown, optimizer: unknown): void {
  if (!(model instanceof Model)) throw inputError("a Model as model", model);
  if (!(optimizer instanceof Optimizer)) throw inputError("an Optimizer as optimizer", optimizer);
  if (optimizer.model !== model) {
    throw new LokoError("ERR_OPTION", "trainOnline: the optimizer belongs to another model.");
  }
}

function inputError(expected: string, got: unknown): LokoError {
  return new LokoError(
    "ERR_INPUT_TYPE",
    `trainOnline: expected ${expected}, got ${describe(got)}.`,
  );
}

function isObject(value: unknown): value is Record<PropertyKey, unknown> {
  return typeof value === "object" && value !== null;
}

function openStream(stream: unknown): StreamIterator {
  const expected = "an iterable of { inputs, labels } as stream";
  if (!isObject(stream)) throw inputError(expected, stream);
  const open = stream[Symbol.asyncIterator] ?? stream[Symbol.iterator];
  if (typeof open !== "function") throw inputError(expected, stream);
  const iterator: unknown = open.call(stream);
  if (!isObject(iterator) || typeof iterator.next !== "function") {
    throw inputError("the stream to return an iterator", iterator);
  }
  return iterator as unknown as StreamIterator;
}

function checkResult(next: IteratorResult<OnlineSample>): IteratorResult<OnlineSample> {
  if (isObject(next)) return next;
  throw inputError("next() of the stream to answer { done, value }", next);
}

/** The rest is checked by the step. */
function checkItem(item: unknown, index: number): OnlineSample {
  const expected = `item ${index} of the stream to be { inputs, labels }`;
  if (!isObject(item)) throw inputError(expected, item);
  const { inputs, labels } = item;
  if (!isObject(inputs)) throw inputError(`${expected} with an object as inputs`, inputs);
  if (!isObject(labels)) throw inputError(`${expected} with a typed array as labels`, labels);
  return { inputs, labels } as unknown as OnlineSample;
}

async function close(iterator: StreamIterator): Promise<void> {
  await iterator.return?.();
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
