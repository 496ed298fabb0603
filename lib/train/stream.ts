import { abortable } from "../abort.js";
import { describe, LokoError } from "../errors.js";
import type { ModelInputs } from "../models/inputs.js";
import type { Targets } from "../optim/optimizer.js";

/** One element of a stream: a batch (for LoKO best of one sample) and what should have been predicted. */
export interface OnlineSample {
  /** What the model predicts from. */
  readonly inputs: ModelInputs;
  /** What it should have predicted: class indices [B], or float targets [B * m]. */
  readonly labels: Targets;
}

/** Anything that `for await` takes. */
export type SampleStream = Iterable<OnlineSample> | AsyncIterable<OnlineSample>;

export function inputError(owner: string, expected: string, got: unknown): LokoError {
  return new LokoError("ERR_INPUT_TYPE", `${owner}: expected ${expected}, got ${describe(got)}.`);
}

/**
 * The items of a stream, checked. When the caller ends early the stream is closed, and waited for, as
 * `for await` does; only an abort does not wait.
 *
 * @param owner - who reads, for messages.
 * @throws LokoError ERR_INPUT_TYPE. Rejects with `signal.reason` when aborted, also while the stream is
 * waited for.
 */
export async function* readSamples(
  owner: string,
  stream: SampleStream,
  signal: AbortSignal | undefined,
): AsyncGenerator<OnlineSample, void, undefined> {
  signal?.throwIfAborted();
  const iterator = openStream(owner, stream);
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
      const next = checkResult(owner, await abortable(advance(), signal));
      if (next.done) {
        over = true;
        return;
      }
      yield checkItem(owner, next.value, index);
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
    if (!over) {
      const closing = close(iterator);
      if (signal?.aborted) closing.catch(() => {});
      else await closing;
    }
  }
}

type StreamIterator = Iterator<OnlineSample> | AsyncIterator<OnlineSample>;

function isObject(value: unknown): value is Record<PropertyKey, unknown> {
  return typeof value === "object" && value !== null;
}

function openStream(owner: string, stream: unknown): StreamIterator {
  const expected = "an iterable of { inputs, labels } as stream";
  if (!isObject(stream)) throw inputError(owner, expected, stream);
  const open = stream[Symbol.asyncIterator] ?? stream[Symbol.iterator];
  if (typeof open !== "function") throw inputError(owner, expected, stream);
  const iterator: unknown = open.call(stream);
  if (!isObject(iterator) || typeof iterator.next !== "function") {
    throw inputError(owner, "the stream to return an iterator", iterator);
  }
  return iterator as unknown as StreamIterator;
}

function checkResult(
  owner: string,
  next: IteratorResult<OnlineSample>,
): IteratorResult<OnlineSample> {
  if (isObject(next)) return next;
  throw inputError(owner, "next() of the stream to answer { done, value }", next);
}

/** The rest is checked by whoever computes with it. */
function checkItem(owner: string, item: unknown, index: number): OnlineSample {
  const expected = `item ${index} of the stream to be { inputs, labels }`;
  if (!isObject(item)) throw inputError(owner, expected, item);
  const { inputs, labels } = item;
  if (!isObject(inputs)) throw inputError(owner, `${expected} with an object as inputs`, inputs);
  if (!isObject(labels)) {
    throw inputError(owner, `${expected} with a typed array as labels`, labels);
  }
  return { inputs, labels } as unknown as OnlineSample;
}

async function close(iterator: StreamIterator): Promise<void> {
  await iterator.return?.();
}
