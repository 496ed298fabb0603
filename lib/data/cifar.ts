import { join } from "node:path";
import { exists, openFile, readInto, toFileError, withFile } from "../io/files.js";
import type { ImageExample, ImageSourceFacts } from "./image-source.js";
import { labelReader } from "./labels.js";
import { formatError } from "./records.js";

/** Options of CIFAR's binary files. */
export interface CifarOptions {
  readonly format: "cifar10" | "cifar100";
  readonly split: "train" | "test";
  /** Which of the two labels of CIFAR-100. */
  readonly granularity: "fine" | "coarse";
  readonly labels: boolean;
}

const EDGE = 32;
const PLANE = EDGE * EDGE;
const PIXELS = 3 * PLANE;
const SIZE = { height: EDGE, width: EDGE, channels: 3 } as const;

interface Layout {
  /** Bytes before the pixels. */
  readonly labelBytes: number;
  readonly files: Readonly<Record<"train" | "test", readonly string[]>>;
}

/** https://www.cs.toronto.edu/~kriz/cifar.html, "binary version". */
const LAYOUTS: Readonly<Record<CifarOptions["format"], Layout>> = {
  cifar10: {
    labelBytes: 1,
    files: {
      train: [1, 2, 3, 4, 5].map((batch) => `data_batch_${batch}.bin`),
      test: ["test_batch.bin"],
    },
  },
  cifar100: { labelBytes: 2, files: { train: ["train.bin"], test: ["test.bin"] } },
};

/** Which of the two a folder holds that has these files. */
export function cifarOf(names: readonly string[]): CifarOptions["format"] | undefined {
  const formats = Object.entries(LAYOUTS) as [CifarOptions["format"], Layout][];
  const holds = ({ files }: Layout) =>
    [...files.train, ...files.test].some((name) => names.includes(name));
  return formats.find(([, layout]) => holds(layout))?.[0];
}

/** Which of the two a file is, by its size. @throws LokoError ERR_DATA_FORMAT when it can be neither. */
export async function formatOfCifar(path: string): Promise<CifarOptions["format"]> {
  const size = await withFile(path, async (file) => file.size);
  const [ten, hundred] = [1, 2].map((labels) => size > 0 && size % (PIXELS + labels) === 0);
  if (ten && !hundred) return "cifar10";
  if (hundred && !ten) return "cifar100";
  throw formatError(
    path,
    `${size} bytes are ${ten ? "both a" : "no"} multiple of ${PIXELS + 1} (CIFAR-10) ` +
      `${ten ? "and" : "or"} ${PIXELS + 2} (CIFAR-100); ${ten ? "pass format" : "is it cut short?"}`,
  );
}

interface CifarFile {
  readonly path: string;
  readonly rows: number;
}

/**
 * Images of 32x32 in CIFAR's binary files, read as they are iterated over.
 *
 * @param path - a file, or the folder of all of them, whose split is taken.
 * @throws LokoError ERR_FILE_NOT_FOUND, ERR_FILE_READ; ERR_DATA_FORMAT for a file that is cut short.
 */
export async function openCifar(
  path: string,
  isFolder: boolean,
  options: CifarOptions,
): Promise<ImageSourceFacts> {
  const { labelBytes, files: names } = LAYOUTS[options.format];
  const paths = isFolder ? names[options.split].map((name) => join(path, name)) : [path];
  const files: CifarFile[] = [];
  for (const file of paths) {
    files.push({ path: file, rows: await countRows(file, labelBytes + PIXELS) });
  }
  const folder = isFolder ? path : join(path, "..");
  return {
    classes: await readClassNames(folder, options),
    size: files.reduce((sum, { rows }) => sum + rows, 0),
    open: () => readExamples(files, labelBytes, options),
  };
}

async function countRows(path: string, recordBytes: number): Promise<number> {
  const size = await withFile(path, async (file) => file.size);
  if (size === 0) throw formatError(path, "the file is empty");
  if (size % recordBytes === 0) return size / recordBytes;
  throw formatError(
    path,
    `${size} bytes are no multiple of a record of ${recordBytes}; the file is cut short or of another ` +
      "kind. Download it again",
  );
}

/** The names that come with the data, one a line. */
async function readClassNames(
  dir: string,
  { format, granularity }: CifarOptions,
): Promise<readonly string[] | undefined> {
  const name = format === "cifar10" ? "batches.meta.txt" : `${granularity}_label_names.txt`;
  const path = join(dir, name);
  if (!(await exists(path))) return undefined;
  const text = await withFile(path, async ({ handle, size }) => {
    const bytes = new Uint8Array(Math.min(size, 2 ** 16));
    return Buffer.from(bytes.subarray(0, await readInto(handle, bytes, 0))).toString();
  });
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
}

async function* readExamples(
  files: readonly CifarFile[],
  labelBytes: number,
  options: CifarOptions,
): AsyncGenerator<ImageExample, void, undefined> {
  const { format, granularity, labels } = options;
  const numLabels = format === "cifar10" ? 10 : granularity === "fine" ? 100 : 20;
  const readLabel = labelReader({ numLabels });
  // CIFAR-100 has the coarse label first.
  const labelAt = labelBytes === 2 && granularity === "fine" ? 1 : 0;
  let row = 0;
  for (const file of files) {
    let position = 0;
    for await (const record of readRecords(file, labelBytes + PIXELS)) {
      const name = `${file.path}: record ${++position}`;
      const image = { data: interleave(record.subarray(labelBytes)), ...SIZE };
      const example: ImageExample = { image, row: ++row, name };
      if (labels) example.label = readLabel(record[labelAt], () => name);
      yield example;
    }
  }
}

/** Records that are read at once, 3 MB. */
const CHUNK_RECORDS = 1000;

async function* readRecords(
  { path, rows }: CifarFile,
  recordBytes: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  const { handle } = await openFile(path);
  try {
    for (let row = 0; row < rows; row += CHUNK_RECORDS) {
      const chunk = new Uint8Array(Math.min(CHUNK_RECORDS, rows - row) * recordBytes);
      const got = await readInto(handle, chunk, row * recordBytes);
      if (got < chunk.length) throw formatError(path, "has become shorter while it was read");
      for (let at = 0; at < got; at += recordBytes) yield chunk.subarray(at, at + recordBytes);
    }
  } catch (error) {
    throw toFileError(path, error);
  } finally {
    await handle.close();
  }
}

/** [C, H, W] as [H, W, C], in memory of its own. */
function interleave(planes: Uint8Array): Uint8Array {
  const data = new Uint8Array(PIXELS);
  for (let pixel = 0, at = 0; pixel < PLANE; pixel++) {
    data[at++] = planes[pixel]!;
    data[at++] = planes[PLANE + pixel]!;
    data[at++] = planes[2 * PLANE + pixel]!;
  }
  return data;
}
