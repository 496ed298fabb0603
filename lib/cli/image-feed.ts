import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { batches, Dataset } from "../data/dataset.js";
import {
  type ImageDataset,
  type ImageExample,
  type ImageFormat,
  imageDataset,
} from "../data/image-dataset.js";
import { describe, LokoError, nearestNames } from "../errors.js";
import { ImageProcessor, PROCESSOR_FILE, stackImages } from "../images/processor.js";
import { openCheckpoint } from "../io/checkpoint.js";
import { exists, toFileError } from "../io/files.js";
import type { Task } from "../metrics/accumulator.js";
import type { Model, ModelInput } from "../model.js";
import { architectureOf } from "../models/architecture.js";
import { encodeImages, prepareAhead } from "../train/encode-images.js";
import { type CheckedData, type Feed, type PredictSource, refuseOptions } from "./feed.js";
import {
  type DataOptions,
  IMAGE_FORMATS,
  type ModelCommandOptions,
  TEXT_OPTIONS,
} from "./options.js";
import { linesOfStdin } from "./stdin.js";

/** The feed of a model of images: its processor, and files and folders of images. */
export async function openImageFeed(
  options: ModelCommandOptions & DataOptions,
  model: Model,
  input: ModelInput & { kind: "image" },
  task: Task,
): Promise<Feed> {
  const { model: dir, classes: classFile, onError, workers } = options;
  refuseOptions(options, TEXT_OPTIONS, { dir, takes: "images" });
  if (task !== "classification") {
    throw new LokoError(
      "ERR_UNSUPPORTED",
      `${dir}: images are classified here, and not regressed.`,
    );
  }
  const processor = await ImageProcessor.fromPretrained(dir);
  requireFit(dir, processor, input);
  const classes = classFile === undefined ? undefined : await readClasses(classFile);
  requireOutputs(classFile, classes, model);
  return {
    noun: "image",
    classes,
    async open(path, options, split, like) {
      const data = await openLabelled(path, options, split, model, classes ?? like?.classes);
      await requireLabels(data, model);
      return {
        path,
        rows: data.size,
        classes: data.classes,
        encode({ batchSize, order, skip = 0 }) {
          const ordered = order === undefined ? data : data.shuffle(order);
          const encode = (images: Dataset<ImageExample>) =>
            encodeImages(processor, images, { batchSize, onError, workers });
          // Which images are damaged, and so what is in a batch, is only known once they are decoded.
          return onError === "skip"
            ? Dataset.from(encode(ordered)).skip(skip)
            : encode(ordered.skip(skip * batchSize));
        },
      } satisfies CheckedData;
    },
    async *predict(source, batchSize) {
      const examples = imagesOf(source);
      // Images one by one: a thread takes longer to begin, and a line of stdin that is waited for could not
      // be given up when nobody reads the answers any more.
      const inTurn = source.data === undefined ? { workers: 0, prefetch: 0 } : { workers };
      const ahead = { batchSize, onError, ...inTurn };
      for await (const batch of batches(prepareAhead(processor, examples, ahead), batchSize)) {
        const inputs = stackImages(batch.map(({ image }) => image));
        yield { inputs, facts: batch.map(({ example: { row, name } }) => ({ row, image: name })) };
      }
    },
  };
}

/**
 * The size of the images that the processor of a model of images makes; undefined where it depends on the
 * image, and for models of texts. It need not be what `config.json` says: DINOv2's published folders have 224
 * here and 518 there.
 */
export async function processedSize(
  dir: string,
): Promise<readonly [height: number, width: number] | undefined> {
  if (!(await exists(join(dir, PROCESSOR_FILE)))) return undefined;
  const checkpoint = await openCheckpoint(dir);
  const { graph } = architectureOf(checkpoint).define(checkpoint);
  if (graph.input.kind !== "image") return undefined;
  const { outputSize } = await ImageProcessor.fromPretrained(dir);
  return outputSize && [outputSize.height, outputSize.width];
}

/** Why a model cannot be loaded for images of this size, which the user has given nowhere but in the file. */
export function explainSize(
  error: unknown,
  dir: string,
  [height, width]: readonly [height: number, width: number],
): unknown {
  if (!(error instanceof LokoError) || error.code !== "ERR_SHAPE_MISMATCH") return error;
  return new LokoError(
    "ERR_SHAPE_MISMATCH",
    `${dir}: ${PROCESSOR_FILE} makes images of ${height}x${width}. ${error.message}`,
    { cause: error },
  );
}

function requireFit(
  dir: string,
  { channels, outputSize }: ImageProcessor,
  { shape: [modelChannels, height, width] }: ModelInput & { kind: "image" },
): void {
  const fits =
    channels === modelChannels &&
    (outputSize === undefined || (outputSize.height === height && outputSize.width === width));
  if (fits) return;
  const { height: h = "?", width: w = "?" } = outputSize ?? {};
  throw new LokoError(
    "ERR_SHAPE_MISMATCH",
    `${dir}: ${PROCESSOR_FILE} makes images of ${channels}x${h}x${w}, and the model takes ` +
      `${modelChannels}x${height}x${width}.`,
  );
}

/**
 * Names of classes in a file: one a line, or `classes` of the results.json of a training.
 *
 * @throws LokoError ERR_FILE_NOT_FOUND, ERR_FILE_READ; ERR_DATA_FORMAT when it has none, or one twice.
 */
async function readClasses(path: string): Promise<readonly string[]> {
  const text = await readFile(path, "utf8").catch((error) => {
    throw toFileError(path, error);
  });
  const names = path.endsWith(".json") ? namesOfJson(text) : text.split(/\r?\n/);
  const classes = names.map((name) => name.trim()).filter((name) => name !== "");
  if (classes.length > 0 && new Set(classes).size === classes.length) return classes;
  throw new LokoError(
    "ERR_DATA_FORMAT",
    `${path}: expected the name of a class in each line, or a results.json with "classes"; each once.`,
  );
}

function namesOfJson(text: string): string[] {
  try {
    const { classes } = JSON.parse(text) as { classes?: unknown };
    return Array.isArray(classes) ? classes.map(String) : [];
  } catch {
    return [];
  }
}

/** @param classes - names by the outputs of the model, where they are known already. */
async function openLabelled(
  path: string,
  options: DataOptions & { labelColumn?: string },
  split: "train" | "test",
  model: Model,
  classes: readonly string[] | undefined,
): Promise<ImageDataset> {
  const { unlistedClasses, granularity, imageColumn, labelColumn } = options;
  const format = formatOf(options, model);
  const open = (classes: readonly string[] | undefined) =>
    imageDataset(path, {
      format,
      split,
      classes,
      unlistedClasses,
      granularity,
      imageColumn,
      labelColumn,
    });
  const data = await open(classes);
  const named = classes === undefined ? await byName(data, open, model) : data;
  requireOutputs(path, named.classes, model);
  return named;
}

/** @throws LokoError ERR_NUM_LABELS where there are more names of classes than outputs. */
function requireOutputs(
  path: string | undefined,
  classes: readonly string[] = [],
  { numLabels, directory }: Model,
): void {
  if (classes.length <= numLabels) return;
  throw new LokoError(
    "ERR_NUM_LABELS",
    `${path}: ${classes.length} classes, and the model ${directory} has ${numLabels} labels. ` +
      `Pass numLabels: ${classes.length} and ignoreMismatchedSizes: true for a new head.`,
  );
}

function formatOf({ format }: DataOptions, { directory }: Model): ImageFormat {
  if (format === "auto" || IMAGE_FORMATS.includes(format)) return format as ImageFormat;
  throw new LokoError(
    "ERR_UNSUPPORTED",
    `${directory}: the model takes images, and ${format} is a format of texts.`,
  );
}

/** The same data with the indices of the model, where its labels have the names of the classes. */
async function byName(
  data: ImageDataset,
  open: (classes: readonly string[]) => Promise<ImageDataset>,
  { id2label, label2id, directory }: Model,
): Promise<ImageDataset> {
  const { classes = [] } = data;
  const unknown = classes.find((name) => !label2id.has(name));
  if (classes.length > 0 && unknown === undefined) return open(id2label);
  if (classes.some((name) => label2id.has(name))) {
    throw new LokoError(
      "ERR_LABEL_UNKNOWN",
      `${describe(unknown)} is a class of the data and no label of ${directory}, as others are; the ` +
        `nearest is ${describe(nearestNames(unknown!, id2label, 1)[0])}. Pass --classes to number them.`,
    );
  }
  const isNew = id2label.every((name, index) => name === `LABEL_${index}`);
  if (classes.length > 0 && !isNew) {
    const message =
      `No class of the data (${describe(classes[0])}, …) is a label of ${directory} ` +
      `(${describe(id2label[0])}, …); the classes are taken for the first ${classes.length} labels.`;
    process.emitWarning(message, { type: "LokoWarning", code: "LOKO_CLASSES" });
  }
  return data;
}

async function requireLabels(data: ImageDataset, { numLabels }: Model): Promise<void> {
  for await (const { label, name } of data) {
    if (label === undefined) {
      throw new LokoError("ERR_DATA_COLUMN", `${name} has no label. Leave such images out.`);
    }
    if (label < numLabels) continue;
    throw new LokoError(
      "ERR_LABEL_RANGE",
      `${name}: expected a label in [0, ${numLabels}), as the model has, got ${label}.`,
    );
  }
}

async function* imagesOf(source: PredictSource): AsyncGenerator<ImageExample> {
  const { image, data, format, imageColumn } = source;
  if (data !== undefined) {
    const options = { format: format as ImageFormat, imageColumn };
    yield* await imageDataset(data, { ...options, split: "test", labels: false });
  } else if (image !== undefined) {
    yield { image, row: 1, name: image };
  } else {
    let row = 0;
    for await (const path of linesOfStdin("The path of one image a line")) {
      yield { image: path, row: ++row, name: path };
    }
  }
}
