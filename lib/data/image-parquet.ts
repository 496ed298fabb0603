import { describe, LokoError } from "../errors.js";
import type { ImageExample, ImageSourceFacts } from "./image-source.js";
import { labelReader } from "./labels.js";
import { type ParquetInfo, readParquet, readParquetInfo } from "./parquet.js";
import { formatError, listNames } from "./records.js";

/** Options of images in Parquet files. */
export interface ImageParquetOptions {
  readonly imageColumn?: string;
  readonly labelColumn?: string | false;
  /** Where the file does not name its classes. */
  readonly numLabels?: number;
}

const IMAGE_COLUMNS = ["image", "img"];
const LABEL_COLUMNS = ["label", "labels", "fine_label"];

/** Encoded images held in memory to draw from; of ImageNet's size 110 MB. */
const SHUFFLE_BUFFER = 1000;

/**
 * Images in Parquet files as Hugging Face datasets have them: a column of structs { bytes, path }, or of the
 * bytes alone, with an encoded image in each row. Names of the classes are those that the datasets library
 * leaves in the file.
 *
 * @param paths - files of the same columns, read one after the other.
 * @throws LokoError ERR_FILE_NOT_FOUND, ERR_FILE_READ; ERR_DATA_FORMAT, ERR_DATA_COLUMN, ERR_UNSUPPORTED
 * for a file that cannot be read; ERR_LABEL_UNKNOWN, ERR_LABEL_RANGE while iterated over.
 */
export async function openImageParquet(
  paths: readonly string[],
  options: ImageParquetOptions,
): Promise<ImageSourceFacts> {
  let size = 0;
  let classes: readonly string[] | undefined;
  for (const path of paths) {
    const info = await readParquetInfo(path);
    const { label } = findImageColumns(path, info.columns, options);
    if (info.rows === 0) throw formatError(path, "the file has no rows");
    size += info.rows;
    classes ??= label === undefined ? undefined : readClassNames(info, label);
  }
  return {
    classes,
    size,
    shuffleBuffer: SHUFFLE_BUFFER,
    open: () => readAll(paths, options, classes),
  };
}

/** The names of a `ClassLabel` that the datasets library notes as JSON. */
function readClassNames({ notes }: ParquetInfo, label: string): readonly string[] | undefined {
  try {
    const note = JSON.parse(notes.get("huggingface") ?? "null");
    const names: unknown = note?.info?.features?.[label]?.names;
    const isList = Array.isArray(names) && names.length > 0;
    return isList && names.every((name) => typeof name === "string") ? names : undefined;
  } catch {
    return undefined; // a note of somebody else
  }
}

interface ImageColumns {
  readonly image: string;
  readonly label: string | undefined;
}

function findImageColumns(
  path: string,
  columns: readonly string[],
  { imageColumn, labelColumn }: ImageParquetOptions,
): ImageColumns {
  const find = (what: string, named: string | undefined, known: readonly string[]) => {
    const name = named ?? known.find((candidate) => columns.includes(candidate));
    if (name !== undefined && columns.includes(name)) return name;
    throw new LokoError(
      "ERR_DATA_COLUMN",
      `${path}: has no column ${named === undefined ? listNames(known) : describe(named)} of ${what}. ` +
        `The columns are ${listNames(columns)}; name it: ${what === "images" ? "imageColumn" : "labelColumn"}.`,
    );
  };
  const image = find("images", imageColumn, IMAGE_COLUMNS);
  if (labelColumn === false) return { image, label: undefined };
  return { image, label: find("labels", labelColumn, LABEL_COLUMNS) };
}

async function* readAll(
  paths: readonly string[],
  options: ImageParquetOptions,
  classes: readonly string[] | undefined,
): AsyncGenerator<ImageExample, void, undefined> {
  const label2id = new Map(classes?.map((name, index) => [name, index]));
  const readLabel = labelReader({ label2id, numLabels: classes?.length ?? options.numLabels });
  let row = 0;
  for (const path of paths) {
    let columns: ImageColumns | undefined;
    const choose = (names: readonly string[]) => {
      columns = findImageColumns(path, names, options);
      return [columns.image, columns.label].filter((name) => name !== undefined);
    };
    for await (const { values, position } of readParquet(path, choose, { binaryChild: "bytes" })) {
      const { image, label } = columns!;
      const name = `${path}: row ${position}`;
      const [bytes, labelValue] = values;
      const example: ImageExample = { image: ownBytes(bytes, name, image), row: ++row, name };
      if (label !== undefined) {
        const read = readLabel(labelValue, () => `${name}, column ${describe(label)}`);
        if (read !== undefined) example.label = read;
      }
      yield example;
    }
  }
}

/** A copy, since a view would hold the page with all its images while the example is in a buffer. */
function ownBytes(value: unknown, name: string, column: string): Uint8Array {
  if (value instanceof Uint8Array) return new Uint8Array(value);
  const got = value === null || value === undefined ? "nothing" : describe(value);
  throw new LokoError(
    "ERR_DATA_COLUMN",
    `${name}, column ${describe(column)}: expected the bytes of an image, got ${got}. Images that the ` +
      "file only points to are not read.",
  );
}
