import { basename, dirname, join } from "node:path";
import { LokoError } from "../errors.js";
import { exists } from "../io/files.js";
import type { IdxArray } from "./idx.js";
import { readIdx } from "./idx.js";
import type { ImageExample, ImageSourceFacts } from "./image-source.js";
import { labelReader } from "./labels.js";
import { formatError } from "./records.js";

/** Options of a pair of IDX files. */
export interface IdxImageOptions {
  readonly labelsPath?: string;
  readonly numLabels?: number;
  /** false: the file of labels is not read. */
  readonly labels: boolean;
}

/** `train-images-idx3-ubyte.gz`, also with dots, as some tools unpack it. */
const IMAGES_NAME = /^(.*)images([-.])idx3([-.]ubyte(?:\.gz)?)$/;

/** Whether a file has a name as those of MNIST. */
export function isIdxName(name: string): boolean {
  return IMAGES_NAME.test(basename(name));
}

/**
 * Images and labels in IDX files, the format of MNIST: uint8 [N, H, W], or [N, H, W, C] with one channel
 * or three, and uint8 [N]. Both files are read once and held in memory.
 *
 * @throws LokoError ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_IDX_FORMAT; ERR_DATA_FORMAT when the arrays
 * are of another type or number; ERR_LABEL_RANGE.
 */
export async function openIdxImages(
  path: string,
  options: IdxImageOptions,
): Promise<ImageSourceFacts> {
  const images = await readIdx(path);
  const { count, height, width, channels, data } = imagesOf(path, images);
  const labels = options.labels ? await readLabels(path, options) : undefined;
  if (labels !== undefined && labels.length !== count) {
    throw formatError(path, `holds ${count} images, and the file of labels ${labels.length}`);
  }
  const size = height * width * channels;
  async function* open(): AsyncGenerator<ImageExample, void, undefined> {
    for (let index = 0; index < count; index++) {
      const pixels = data.subarray(index * size, (index + 1) * size);
      const row = index + 1;
      const example: ImageExample = {
        image: { data: pixels, height, width, channels },
        row,
        name: `${path}: image ${row}`,
      };
      const label = labels?.[index];
      if (label !== undefined) example.label = label;
      yield example;
    }
  }
  return { classes: undefined, size: count, open };
}

interface IdxImages {
  readonly count: number;
  readonly height: number;
  readonly width: number;
  readonly channels: 1 | 3;
  readonly data: Uint8Array;
}

function imagesOf(path: string, array: IdxArray): IdxImages {
  const [count, height, width, channels = 1] = array.shape;
  const isImage = array.shape.length === 3 || array.shape.length === 4;
  if (array.dtype === "uint8" && isImage && (channels === 1 || channels === 3)) {
    if (count === 0 || height === 0 || width === 0) throw formatError(path, "holds no images");
    return { count: count!, height: height!, width: width!, channels, data: array.data };
  }
  throw formatError(
    path,
    `expected images, uint8[N, H, W] or uint8[N, H, W, C] with C 1 or 3, got ${array.dtype}` +
      `[${array.shape.join(", ")}]`,
  );
}

async function readLabels(
  path: string,
  { labelsPath, numLabels }: IdxImageOptions,
): Promise<readonly (number | undefined)[]> {
  const file = labelsPath ?? (await findLabels(path));
  const { dtype, shape, data } = await readIdx(file);
  if (dtype !== "uint8" || shape.length !== 1) {
    throw formatError(file, `expected labels, uint8[N], got ${dtype}[${shape.join(", ")}]`);
  }
  const readLabel = labelReader({ numLabels });
  return Array.from(data, (label, index) => readLabel(label, () => `${file}: label ${index + 1}`));
}

/** The file beside that of the images that has its name with `labels` and `idx1`. */
async function findLabels(path: string): Promise<string> {
  const [, prefix, dot, rest] = IMAGES_NAME.exec(basename(path)) ?? [];
  if (prefix !== undefined) {
    const name = `${prefix}labels${dot}idx1${rest}`;
    const plain = name.replace(/\.gz$/, "");
    for (const candidate of [name, plain, `${plain}.gz`]) {
      const file = join(dirname(path), candidate);
      if (await exists(file)) return file;
    }
  }
  throw new LokoError(
    "ERR_FILE_NOT_FOUND",
    `${path}: found no file of labels beside it (train-images-idx3-ubyte has ` +
      "train-labels-idx1-ubyte); pass labelsPath, or labels: false to read images alone.",
  );
}
