import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { describe, LokoError } from "../errors.js";
import { toFileError } from "../io/files.js";
import { checkOptions, integerIn, type OptionRule, oneOf } from "../options.js";
import { cifarOf, formatOfCifar, openCifar } from "./cifar.js";
import { Dataset } from "./dataset.js";
import { isIdxName, openIdxImages } from "./idx-images.js";
import { openImageFolder } from "./image-folder.js";
import type { ImageExample, ImageSourceFacts } from "./image-source.js";
import { formatError } from "./records.js";

export type { ImageExample } from "./image-source.js";

/**
 * How images are stored.
 *
 * - `"folder"`: image files, one subfolder for each class.
 * - `"idx"`: MNIST and its relatives, plain or compressed with gzip.
 * - `"cifar10"`, `"cifar100"`: the binary version of CIFAR.
 * - `"parquet"`: encoded images in Parquet, as Hugging Face has them.
 * - `"auto"`: by the name of a file, or by what is in a folder.
 *
 * @useDeclaredType
 */
export type ImageFormat = (typeof FORMATS)[number] | "auto";

/** Options of {@link imageDataset}. */
export interface ImageDatasetOptions {
  /** Default `"auto"`. */
  format?: ImageFormat;
  /** Which part of a folder with the files of MNIST, CIFAR or Parquet. Default `"train"`. */
  split?: "train" | "test";
  /**
   * The classes in the order of their indices, for example the wnids of ImageNet-100. A label outside of them
   * is an error. Where the data brings names of its own (CIFAR, Parquet) and any of them is in the list, its
   * labels go by name; else by number. Default: the subfolders in sorted order, or the names of the data.
   */
  classes?: readonly string[];
  /** What becomes of subfolders that are not among `classes`. Default `"throw"`. */
  unlistedClasses?: "throw" | "skip";
  /** Number of classes where there are no names: a label that is not below it is an error. */
  numLabels?: number;
  /** Which labels of CIFAR-100: 100 classes, or their 20 groups. Default `"fine"`. */
  granularity?: "fine" | "coarse";
  /** IDX: the file of labels. Default: as MNIST names it, beside that of the images. */
  labelsPath?: string;
  /** Parquet: column of the images. Default `image` or `img`. */
  imageColumn?: string;
  /** Parquet: column of the label. Default `label`, `labels` or `fine_label`. */
  labelColumn?: string;
  /** false: labels are not read, and a folder needs no subfolders. Default true. */
  labels?: boolean;
}

const FORMATS = ["folder", "idx", "cifar10", "cifar100", "parquet"] as const;
type Format = (typeof FORMATS)[number];

/** Images that are not decoded yet, with their labels and what is known of all of them. */
export class ImageDataset extends Dataset<ImageExample> {
  /** Names of the classes by their index, or undefined where the data has only numbers. */
  readonly classes: readonly string[] | undefined;
  /** Number of examples. */
  readonly size: number;

  /** @internal */
  constructor({ classes, size, shuffleBuffer, open }: ImageSourceFacts) {
    super(open, shuffleBuffer);
    this.classes = classes === undefined ? undefined : Object.freeze([...classes]);
    this.size = size;
  }
}

const name: OptionRule = {
  expected: "a text that is not empty",
  accepts: (value) => typeof value === "string" && value !== "",
};

const classList: OptionRule = {
  expected: "an array of different names",
  accepts: (value) =>
    Array.isArray(value) &&
    value.length > 0 &&
    value.every(name.accepts) &&
    new Set(value).size === value.length,
};

/**
 * Opens labelled images: a folder of image files, MNIST's or CIFAR's files, or Parquet. Files are listed and
 * headers checked here; images are read as they are iterated over, and decoded by `encodeImages` or
 * `ImageProcessor.batch`. `shuffle` of image files draws from all of them.
 *
 * @param path - a file or a folder.
 * @throws LokoError at once: ERR_INPUT_TYPE, ERR_OPTION, ERR_FILE_NOT_FOUND, ERR_FILE_READ; ERR_DATA_FORMAT
 * for a folder or a class without images, a file that is cut short or of another kind; ERR_IDX_FORMAT;
 * ERR_LABEL_UNKNOWN for a subfolder outside of `classes`; ERR_DATA_COLUMN. While iterated over: those of
 * reading, ERR_LABEL_RANGE, ERR_LABEL_UNKNOWN.
 *
 * @example
 * ```ts
 * const dataset = await imageDataset("imagenet-100/train");
 * console.log(dataset.size, dataset.classes);
 * for await (const { image, label } of dataset.shuffle({ seed: 1 })) console.log(label, image);
 * ```
 */
export async function imageDataset(
  path: string,
  options: ImageDatasetOptions = {},
): Promise<ImageDataset> {
  if (typeof path !== "string") {
    throw new LokoError(
      "ERR_INPUT_TYPE",
      `imageDataset: expected the path of a file or a folder, got ${describe(path)}.`,
    );
  }
  checkOptions("imageDataset", options, {
    format: oneOf("auto", ...FORMATS),
    split: oneOf("train", "test"),
    classes: classList,
    unlistedClasses: oneOf("throw", "skip"),
    numLabels: integerIn(1),
    granularity: oneOf("fine", "coarse"),
    labelsPath: name,
    imageColumn: name,
    labelColumn: name,
    labels: { expected: "true or false", accepts: (value) => typeof value === "boolean" },
  });
  const isFolder = await isDirectory(path);
  const { format = "auto" } = options;
  const known = format === "auto" ? await formatOf(path, isFolder) : format;
  const source = await open(path, isFolder, known, options);
  return new ImageDataset(known === "folder" ? source : withClasses(source, options.classes));
}

/** The labels of a source as indices into a list of the caller. */
function withClasses(
  source: ImageSourceFacts,
  classes: readonly string[] | undefined,
): ImageSourceFacts {
  if (classes === undefined) return source;
  const own = source.classes;
  const goesByName = own?.some((name) => classes.includes(name)) ?? false;
  const toIndex = (label: number, where: string) => {
    if (!goesByName && label < classes.length) return label;
    const index = goesByName ? classes.indexOf(own![label]!) : -1;
    if (index >= 0) return index;
    throw new LokoError(
      goesByName ? "ERR_LABEL_UNKNOWN" : "ERR_LABEL_RANGE",
      `${where}: the label ${label}${goesByName ? ` (${describe(own![label])})` : ""} is not among ` +
        `the ${classes.length} classes.`,
    );
  };
  async function* open(): AsyncGenerator<ImageExample, void, undefined> {
    for await (const example of source.open()) {
      const { label, name } = example;
      yield label === undefined ? example : { ...example, label: toIndex(label, name) };
    }
  }
  return { ...source, classes, open };
}

async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (error) {
    throw toFileError(path, error);
  }
}

async function formatOf(path: string, isFolder: boolean): Promise<Format> {
  if (!isFolder) return formatOfFile(path);
  const names = await listFiles(path);
  if (names.some(isIdxName)) return "idx";
  return cifarOf(names) ?? (names.some(isParquet) ? "parquet" : "folder");
}

async function listFiles(dir: string): Promise<string[]> {
  try {
    return (await readdir(dir)).sort();
  } catch (error) {
    throw toFileError(dir, error);
  }
}

function isParquet(name: string): boolean {
  return /\.parquet$/i.test(name);
}

async function formatOfFile(path: string): Promise<Format> {
  if (isParquet(path)) return "parquet";
  if (isIdxName(path)) return "idx";
  if (/\.bin$/i.test(path)) return formatOfCifar(path);
  throw new LokoError(
    "ERR_OPTION",
    `imageDataset: cannot tell the format of ${path} from its name; expected a folder, .parquet, ` +
      `…-images-idx3-ubyte(.gz) or .bin, or pass format, one of ${FORMATS.join(", ")}.`,
  );
}

/** Options that mean something for one format alone. */
const ONLY: readonly (readonly [option: keyof ImageDatasetOptions, ...formats: Format[]])[] = [
  ["unlistedClasses", "folder"],
  ["granularity", "cifar100"],
  ["labelsPath", "idx"],
  ["imageColumn", "parquet"],
  ["labelColumn", "parquet"],
  ["numLabels", "idx", "parquet"],
];

async function open(
  path: string,
  isFolder: boolean,
  format: Format,
  options: ImageDatasetOptions,
): Promise<ImageSourceFacts> {
  for (const [option, ...formats] of ONLY) {
    if (options[option] === undefined || formats.includes(format)) continue;
    throw new LokoError(
      "ERR_OPTION",
      `imageDataset: ${option} is for the format ${formats.join(", ")}, and ${path} is ${format}.`,
    );
  }
  const { split = "train", labels = true, granularity = "fine", labelColumn } = options;
  switch (format) {
    case "folder":
      if (!isFolder) throw formatError(path, "expected a folder of images, got a file");
      return openImageFolder(path, { ...options, labels });
    case "idx":
      return openIdxImages(isFolder ? await requireIdx(path, split) : path, {
        ...options,
        labels,
        numLabels: options.classes?.length ?? options.numLabels,
      });
    case "cifar10":
    case "cifar100":
      return openCifar(path, isFolder, { ...options, format, split, granularity, labels });
    case "parquet": {
      const files = isFolder ? await filesOfSplit(path, split) : [path];
      const { openImageParquet } = await import("./image-parquet.js");
      return openImageParquet(files, { ...options, labelColumn: labels ? labelColumn : false });
    }
  }
}

async function requireIdx(dir: string, split: "train" | "test"): Promise<string> {
  const prefix = split === "train" ? "train" : "t10k";
  const name = (await listFiles(dir)).find((file) => isIdxName(file) && file.startsWith(prefix));
  if (name !== undefined) return join(dir, name);
  throw new LokoError("ERR_FILE_NOT_FOUND", `${dir}: no file ${prefix}-images-idx3-ubyte(.gz).`);
}

/** `train-00000-of-00002.parquet` and so on; all files where none is named after a split. */
async function filesOfSplit(dir: string, split: "train" | "test"): Promise<string[]> {
  const files = (await listFiles(dir)).filter(isParquet);
  const isNamed = files.some((file) => /^(?:train|test|validation)\b/.test(file));
  const chosen = isNamed ? files.filter((file) => new RegExp(`^${split}\\b`).test(file)) : files;
  if (chosen.length > 0) return chosen.map((file) => join(dir, file));
  throw new LokoError(
    "ERR_FILE_NOT_FOUND",
    `${dir}: ${files.length === 0 ? "no .parquet file" : `no file ${split}-….parquet`} in it.`,
  );
}
