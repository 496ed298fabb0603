import { describe, LokoError } from "../errors.js";
import { checkOptions, integerIn, type OptionRule, trueOrFalse } from "../options.js";
import { Random } from "./random.js";

/** More items than fit in memory. */
export const MAX_BUFFER = 2 ** 32;

/** Anything that `for await` takes. */
export type Items<T> = Iterable<T> | AsyncIterable<T>;

/** Options of {@link Dataset.shuffle}. */
export interface ShuffleOptions {
  /** An integer in [0, 2^53). The same seed and epoch give the same order on every machine. */
  seed: number;
  /** Gives each pass over the data an order of its own: an integer in [0, 2^53). Default 0. */
  epoch?: number;
  /**
   * How many items are held in memory to draw from. A dataset that fits is permuted uniformly; in a
   * larger one no item comes more than this many places early. Default 10,000; for image files all of
   * them, since a folder lists one class after the other, and for images in Parquet 1,000.
   */
  bufferSize?: number;
}

/**
 * A sequence of items that is read as it is iterated over, and anew each time: nothing is kept, so a
 * dataset may be larger than memory. Leaving the loop early closes what was opened.
 *
 * @example
 * ```ts
 * const dataset = textDataset("train.tsv");
 * for (let epoch = 0; epoch < 3; epoch++) {
 *   for await (const examples of batches(dataset.shuffle({ seed: 1, epoch }), 32)) { … }
 * }
 * ```
 */
export class Dataset<T> implements AsyncIterable<T> {
  readonly #open: () => Items<T>;
  readonly #shuffleBuffer: number;

  /** @param shuffleBuffer - the default of {@link ShuffleOptions.bufferSize}. */
  protected constructor(open: () => Items<T>, shuffleBuffer = 10_000) {
    this.#open = open;
    this.#shuffleBuffer = shuffleBuffer;
  }

  /**
   * A dataset of your own items.
   *
   * @param source - an array or another iterable; or a function that returns one, called for each
   * iteration. A generator object can be iterated over once: pass the generator function.
   * @throws LokoError ERR_INPUT_TYPE when it is neither.
   */
  static from<T>(source: Items<T> | (() => Items<T>)): Dataset<T> {
    if (typeof source === "function") return new Dataset(source);
    checkItems("Dataset.from", source);
    return new Dataset(() => source);
  }

  /**
   * Reads the items from the first one on.
   *
   * @throws LokoError ERR_INPUT_TYPE when the function of {@link Dataset.from} gives no iterable; what
   * reading the items throws.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    const items = this.#open();
    checkItems("Dataset", items);
    yield* items;
  }

  /**
   * The same items in another order, as Hugging Face's streaming datasets shuffle: a buffer is filled,
   * each further item takes the place of a random one that is given out, and what is left at the end
   * comes in random order. Every iteration repeats the order; pass another `epoch` for another one.
   *
   * @throws LokoError ERR_OPTION.
   */
  shuffle(options: ShuffleOptions): Dataset<T> {
    checkOptions("shuffle", options, {
      seed: integerIn(0),
      epoch: integerIn(0),
      bufferSize: integerIn(1, MAX_BUFFER),
    });
    const { seed, epoch = 0, bufferSize = this.#shuffleBuffer } = options;
    if (seed === undefined) throw new LokoError("ERR_OPTION", "shuffle: seed must be given.");
    return new Dataset(() => shuffled(this, new Random(seed, epoch), bufferSize));
  }

  /**
   * The first `count` items.
   *
   * @throws LokoError ERR_OPTION when `count` is not an integer >= 0.
   */
  take(count: number): Dataset<T> {
    checkArgument("take", "count", count, integerIn(0));
    return new Dataset(() => taken(this, count));
  }

  /**
   * All but the first `count` items; nothing where there are no more than that.
   *
   * @throws LokoError ERR_OPTION when `count` is not an integer >= 0.
   */
  skip(count: number): Dataset<T> {
    checkArgument("skip", "count", count, integerIn(0));
    return new Dataset(() => skipped(this, count));
  }

  /**
   * The items as `change` returns them; a promise is waited for.
   *
   * @throws LokoError ERR_INPUT_TYPE when `change` is no function.
   */
  map<U>(change: (item: T) => U | Promise<U>): Dataset<Awaited<U>> {
    if (typeof change !== "function") {
      throw new LokoError("ERR_INPUT_TYPE", `map: expected a function, got ${describe(change)}.`);
    }
    return new Dataset(() => mapped(this, change));
  }
}

/**
 * Groups items into arrays of `size`; the last one has what is left over.
 *
 * @param size - items of a batch, an integer >= 1.
 * @throws LokoError ERR_INPUT_TYPE when `items` is not iterable; ERR_OPTION.
 */
export function batches<T>(
  items: Items<T>,
  size: number,
  options: {
    /** Leaves out a last batch that is not full. Default false. */
    dropLast?: boolean;
  } = {},
): Dataset<T[]> {
  checkItems("batches", items);
  checkArgument("batches", "size", size, integerIn(1));
  checkOptions("batches", options, { dropLast: trueOrFalse });
  const { dropLast = false } = options;
  return Dataset.from(() => grouped(items, size, dropLast));
}

function checkItems(owner: string, items: unknown): void {
  const { [Symbol.asyncIterator]: openAsync, [Symbol.iterator]: open } = Object(items);
  if (typeof items !== "object" || typeof (openAsync ?? open) !== "function") {
    throw new LokoError(
      "ERR_INPUT_TYPE",
      `${owner}: expected an array or another iterable object, got ${describe(items)}.`,
    );
  }
}

function checkArgument(owner: string, name: string, value: unknown, rule: OptionRule): void {
  if (!rule.accepts(value)) {
    throw new LokoError(
      "ERR_OPTION",
      `${owner}: ${name} must be ${rule.expected}, got ${describe(value)}.`,
    );
  }
}

async function* shuffled<T>(items: Items<T>, random: Random, bufferSize: number) {
  const buffer: T[] = [];
  for await (const item of items) {
    if (buffer.length < bufferSize) {
      buffer.push(item);
      continue;
    }
    const chosen = random.below(bufferSize);
    const out = buffer[chosen]!;
    buffer[chosen] = item;
    yield out;
  }
  random.shuffle(buffer);
  yield* buffer;
}

async function* taken<T>(items: Items<T>, count: number) {
  if (count === 0) return;
  let left = count;
  for await (const item of items) {
    yield item;
    if (--left === 0) return;
  }
}

async function* skipped<T>(items: Items<T>, count: number) {
  let left = count;
  for await (const item of items) {
    if (left > 0) left--;
    else yield item;
  }
}

async function* mapped<T, U>(items: Items<T>, change: (item: T) => U | Promise<U>) {
  for await (const item of items) yield await change(item);
}

async function* grouped<T>(items: Items<T>, size: number, dropLast: boolean) {
  let batch: T[] = [];
  for await (const item of items) {
    batch.push(item);
    if (batch.length < size) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0 && !dropLast) yield batch;
}
