import { availableParallelism } from "node:os";
import { abortable, abortSignal } from "../abort.js";
import { ahead } from "../data/ahead.js";
import { batches, Dataset, type Items } from "../data/dataset.js";
import type { ImageExample } from "../data/image-source.js";
import { LokoError, type LokoErrorCode } from "../errors.js";
import { type ImagePool, openImagePool } from "../images/pool.js";
import type { ProcessedImage } from "../images/process.js";
import { ImageProcessor, stackImages } from "../images/processor.js";
import { checkOptions, integerIn, oneOf } from "../options.js";
import { exampleLabel } from "./example-label.js";
import { inputError, type OnlineSample } from "./stream.js";

/** Options of {@link encodeImages}. */
export interface EncodeImagesOptions {
  /** Examples of one batch; the last may have fewer. Default 1, as LoKO needs. */
  batchSize?: number;
  /**
   * Threads that decode, resize and normalise. 0: decoding on other threads, the rest on the caller's.
   * Default: one less than there are processors, at least 1 and at most 4.
   */
  workers?: number;
  /** Images that are prepared ahead of their use. Default: two batches and four for each worker. */
  prefetch?: number;
  /**
   * What happens at an image that cannot be read or decoded: `"throw"` ends the iteration; `"skip"` leaves
   * it out and emits a process warning (`LOKO_IMAGE_SKIPPED`) with its path. Default `"throw"`.
   */
  onError?: "throw" | "skip";
  /** Ends the iteration: it rejects with `signal.reason`. */
  signal?: AbortSignal;
}

/**
 * Turns labelled images into batches for `trainOnline` and `evaluate`. Images are decoded and preprocessed
 * on other threads while the model learns from earlier ones; the order of the batches is that of the
 * examples, whatever the number of threads. The result can be iterated as often as the examples can.
 *
 * @throws LokoError ERR_INPUT_TYPE, ERR_OPTION at once; while iterating ERR_DATA_COLUMN for an example
 * without a label, ERR_LABEL_UNKNOWN, ERR_LABEL_RANGE for one that is no class index, what reading the
 * examples throws, and the errors of `decodeImage`. Rejects with `signal.reason` when aborted.
 *
 * @example
 * ```ts
 * const dataset = await imageDataset("pets/train");
 * const stream = encodeImages(processor, dataset.shuffle({ seed: 0 }));
 * for await (const event of trainOnline(model, optimizer, stream)) …
 * ```
 */
export function encodeImages(
  processor: ImageProcessor,
  examples: Items<ImageExample>,
  options: EncodeImagesOptions = {},
): AsyncIterable<OnlineSample> {
  checkArguments(processor, options);
  const { batchSize = 1 } = options;
  return {
    async *[Symbol.asyncIterator]() {
      const prepared = prepareAhead(processor, examples, options);
      let read = 0;
      for await (const batch of batches(prepared, batchSize)) {
        const labels = batch.map(({ example: { label, name } }) => {
          const where = name ?? `Example ${read}`;
          read++;
          return exampleLabel(label, "index", where);
        });
        yield {
          inputs: stackImages(batch.map(({ image }) => image)),
          labels: Int32Array.from(labels),
        };
      }
    },
  };
}

/** An example, ready for the model. */
export interface PreparedImage {
  readonly example: ImageExample;
  readonly image: ProcessedImage;
}

/**
 * The examples whose images could be prepared, in their order; threads live as long as the iteration.
 *
 * @param options.prefetch - 0: each when it is asked for, and no example is read before.
 */
export async function* prepareAhead(
  processor: ImageProcessor,
  examples: Items<ImageExample>,
  options: EncodeImagesOptions,
): AsyncGenerator<PreparedImage, void, undefined> {
  const { batchSize = 1, workers = defaultWorkers(), onError = "throw", signal } = options;
  const { prefetch = 2 * batchSize + 4 * workers } = options;
  signal?.throwIfAborted();
  const pool = openImagePool(processor.work, workers);
  const prepare = (example: ImageExample) => prepareOne(pool, example, onError);
  try {
    const results =
      prefetch === 0
        ? Dataset.from(examples).map(prepare)
        : ahead(examples, prepare, prefetch, (result) => abortable(result, signal));
    for await (const result of results) {
      if (result instanceof LokoError) warnLeftOut(result);
      else yield result;
    }
  } finally {
    await pool.close();
  }
}

/** @returns the error of an image that is left out. */
async function prepareOne(
  pool: ImagePool,
  example: ImageExample,
  onError: "throw" | "skip",
): Promise<PreparedImage | LokoError> {
  try {
    return { example, image: await pool.run(example.image, example.name) };
  } catch (error) {
    if (onError === "skip" && isOfImage(error)) return error;
    throw error;
  }
}

/** Here and not where it fails, so that the warnings are in the order of the images. */
function warnLeftOut({ message }: LokoError): void {
  process.emitWarning(`Left out: ${message}`, {
    type: "LokoWarning",
    code: "LOKO_IMAGE_SKIPPED",
  });
}

/** Codes after which another image may do better. */
const OF_IMAGE: readonly LokoErrorCode[] = [
  "ERR_IMAGE_FORMAT",
  "ERR_FILE_NOT_FOUND",
  "ERR_FILE_READ",
];

function isOfImage(error: unknown): error is LokoError {
  return error instanceof LokoError && OF_IMAGE.includes(error.code);
}

function defaultWorkers(): number {
  return Math.min(4, Math.max(1, availableParallelism() - 1));
}

function checkArguments(processor: unknown, options: EncodeImagesOptions): void {
  if (!(processor instanceof ImageProcessor)) {
    throw inputError("encodeImages", "an ImageProcessor as processor", processor);
  }
  checkOptions("encodeImages", options, {
    batchSize: integerIn(1),
    workers: integerIn(0, 64),
    prefetch: integerIn(1, 2 ** 20),
    onError: oneOf("throw", "skip"),
    signal: abortSignal,
  });
}
