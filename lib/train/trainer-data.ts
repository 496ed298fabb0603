import { abortable } from "../abort.js";
import { batches, Dataset, type Items } from "../data/dataset.js";
import type { ImageExample } from "../data/image-source.js";
import type { TextExample } from "../data/text.js";
import { describe, LokoError } from "../errors.js";
import { Tokenizer } from "../text/tokenizer.js";
import { encodeExamples } from "./encode.js";
import { encodeImages } from "./encode-images.js";
import type { OnlineSample, SampleStream } from "./stream.js";
import type { ResolvedOptions } from "./trainer-options.js";

/** Which pass over the data is asked for. */
export interface DataPass {
  /** From 0. */
  readonly epoch: number;
  /** The option of the `Trainer`. */
  readonly seed: number;
  /** The option of the `Trainer`: examples of one batch. */
  readonly batchSize: number;
  /** The option of the `Trainer`; false for an evaluation. */
  readonly shuffle: boolean;
  /** Batches to leave out at the beginning: those that were learned from before the checkpoint. */
  readonly skip: number;
  /** Of the call that trains or evaluates, for a source that waits. */
  readonly signal?: AbortSignal | undefined;
}

/** Data of your own making; the same pass must always give the same batches. */
export interface EpochSource {
  /** Number of examples, where it is known. */
  readonly size?: number | undefined;
  /** The batches of one pass, from the first one that is not skipped. */
  open(pass: DataPass): SampleStream;
}

/**
 * What a `Trainer` learns from: examples, where it has a `processingClass` or a `dataCollator`; else batches
 * `{ inputs, labels }`, each of them as it is. It is passed over several times: a generator must come as
 * `Dataset.from(function)`. Or an {@link EpochSource}.
 */
export type TrainerDataset<T = OnlineSample> = Items<T> | EpochSource;

/** A dataset as the Trainer reads it. */
export interface TrainingData {
  /** Batches of one pass, where the number of examples is known. */
  readonly batchesPerEpoch: number | undefined;
  /** Examples of one pass (batches, where it consists of those). */
  readonly size: number | undefined;
  /** Whether it consists of batches, on which `batchSize` has no influence. */
  readonly itemsAreBatches: boolean;
  open(pass: Pick<DataPass, "epoch" | "skip" | "signal">): SampleStream;
}

type Options = Pick<
  ResolvedOptions,
  "batchSize" | "isBatchSizeGiven" | "shuffle" | "seed" | "processingClass" | "dataCollator"
>;

/**
 * @param needsSize - read the whole dataset where its size is not known.
 * @param signal - ends the reading.
 * @throws LokoError ERR_INPUT_TYPE for what is no dataset, or can be read once only; ERR_OPTION for a
 * `batchSize` of a dataset that consists of batches; ERR_DATA_FORMAT when it is empty.
 */
export async function openTrainingData(
  name: string,
  dataset: unknown,
  options: Options,
  needsSize: boolean,
  signal?: AbortSignal,
): Promise<TrainingData> {
  const { batchSize, shuffle, seed } = options;
  const source = isEpochSource(dataset) ? dataset : itemSource(name, dataset, options);
  let { size } = source;
  if (size === undefined && needsSize && source.count !== undefined) {
    size = await abortable(source.count(signal), signal);
  }
  if (size === undefined && needsSize) {
    throw new LokoError(
      "ERR_OPTION",
      `Trainer: ${name} does not say its size; give it one, or give maxSteps instead of epochs.`,
    );
  }
  if (size === 0) throw new LokoError("ERR_DATA_FORMAT", `Trainer: ${name} is empty.`);
  const { itemsAreBatches = false } = source;
  const examples = itemsAreBatches ? 1 : batchSize;
  return {
    size,
    itemsAreBatches,
    batchesPerEpoch: size === undefined ? undefined : Math.ceil(size / examples),
    open: (pass) => source.open({ ...pass, batchSize, shuffle, seed }),
  };
}

interface ItemSource extends EpochSource {
  readonly itemsAreBatches?: boolean;
  count?(signal?: AbortSignal): Promise<number>;
}

function isEpochSource(dataset: unknown): dataset is EpochSource & ItemSource {
  return typeof (dataset as EpochSource | null)?.open === "function";
}

function itemSource(name: string, given: unknown, options: Options): ItemSource {
  const items = checkItems(name, given);
  const { processingClass, dataCollator } = options;
  const itemsAreBatches = processingClass === undefined && dataCollator === undefined;
  if (itemsAreBatches && options.isBatchSizeGiven && options.batchSize !== 1) {
    throw new LokoError(
      "ERR_OPTION",
      `Trainer: without a processingClass or a dataCollator ${name} consists of batches, and batchSize ` +
        `has no meaning, got ${options.batchSize}. Leave it out.`,
    );
  }
  const dataset = items instanceof Dataset ? items : Dataset.from(items as Items<unknown>);
  // An array is in memory already: a buffer of all of it costs nothing and permutes uniformly.
  const bufferSize = Array.isArray(items) ? { bufferSize: Math.max(1, items.length) } : {};
  return {
    size: sizeOf(items),
    itemsAreBatches,
    count: (signal) => countItems(dataset, signal),
    open({ epoch, seed, shuffle, skip, batchSize, signal }) {
      const ordered = shuffle ? dataset.shuffle({ seed, epoch, ...bufferSize }) : dataset;
      const rest = ordered.skip(skip * (itemsAreBatches ? 1 : batchSize));
      if (itemsAreBatches) return rest as Dataset<OnlineSample>;
      if (dataCollator !== undefined) {
        return batches(rest, batchSize).map(dataCollator as (examples: unknown[]) => OnlineSample);
      }
      return processingClass instanceof Tokenizer
        ? encodeExamples(processingClass, rest as Dataset<TextExample>, { batchSize })
        : encodeImages(processingClass!, rest as Dataset<ImageExample>, {
            batchSize,
            ...(signal === undefined ? {} : { signal }),
          });
    },
  };
}

/** @returns the dataset, which can be iterated over more than once. */
function checkItems(name: string, given: unknown): Items<unknown> {
  const items = given as Partial<AsyncIterable<unknown> & Iterable<unknown>> | null;
  const open =
    typeof items === "object" && items !== null
      ? (items[Symbol.asyncIterator] ?? items[Symbol.iterator])
      : undefined;
  if (typeof open !== "function") {
    throw new LokoError(
      "ERR_INPUT_TYPE",
      `Trainer: ${name} must be an array, a Dataset or another iterable, or have a method open; got ` +
        `${describe(given)}.`,
    );
  }
  // A generator object, and every other iterator, answers with itself.
  if (typeof (items as { next?: unknown }).next === "function") {
    throw new LokoError(
      "ERR_INPUT_TYPE",
      `Trainer: ${name} is an iterator, which can be read once only. Pass Dataset.from(generatorFunction).`,
    );
  }
  return items as Items<unknown>;
}

function sizeOf(items: Items<unknown>): number | undefined {
  if (Array.isArray(items)) return items.length;
  const { size } = items as { size?: unknown };
  return Number.isSafeInteger(size) ? (size as number) : undefined;
}

async function countItems(items: Dataset<unknown>, signal?: AbortSignal): Promise<number> {
  let size = 0;
  for await (const _ of items) {
    signal?.throwIfAborted();
    size++;
  }
  return size;
}
