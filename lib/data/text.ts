import { basename } from "node:path";

import { describe, LokoError } from "../errors.js";
import {
  checkOptions,
  either,
  integerIn,
  type OptionRule,
  oneOf,
  trueOrFalse,
} from "../options.js";
import { type ColumnOptions, findColumns, type TextColumns } from "./columns.js";
import { Dataset } from "./dataset.js";
import type { DelimitedFormat } from "./delimited.js";
import { readJsonLines } from "./json-lines.js";
import { type LabelOptions, labelReader } from "./labels.js";
import { type ChooseColumns, type DataRecord, formatError } from "./records.js";

export type { Dataset } from "./dataset.js";

/** A text, or a pair of texts, and its label. */
export interface TextExample {
  /** The text, or the first of a pair. */
  text: string;
  /** The second text of a pair. */
  pair?: string;
  /** The class index; for regression the number to predict. Absent where the data has none. */
  label?: number;
  /** Which example of the file it is, from 1; a header does not count. */
  row: number;
}

/**
 * How a file is laid out. `"auto"` goes by its name: `.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.parquet`;
 * `.gz` may follow all but the last.
 *
 * - `"tsv"`: tab-separated with a header; quotes are literal, as in GLUE. `"sst2"` and `"mrpc"` are the same.
 * - `"cola"`: tab-separated without a header: source, label, star, sentence; its test set has a header.
 * - `"csv"`: comma-separated with a header; fields in double quotes may hold line breaks.
 * - `"jsonl"`: one JSON object per line.
 * - `"parquet"`: one column for the texts, one for the labels; other columns are not read.
 *
 * @useDeclaredType
 */
export type DataFormat = (typeof FORMATS)[number] | "auto";

/** Options of {@link textDataset}. */
export interface TextDatasetOptions extends ColumnOptions, LabelOptions {
  /** Default `"auto"`. */
  format?: DataFormat;
}

const FORMATS = ["csv", "tsv", "jsonl", "parquet", "sst2", "cola", "mrpc"] as const;
type Format = (typeof FORMATS)[number];

const ENDINGS: Readonly<Record<string, Format>> = {
  csv: "csv",
  tsv: "tsv",
  jsonl: "jsonl",
  ndjson: "jsonl",
  parquet: "parquet",
};

const TSV: DelimitedFormat = { delimiter: "\t", quotes: false };
const CSV: DelimitedFormat = { delimiter: ",", quotes: true };
const COLA: DelimitedFormat = {
  ...TSV,
  columnsWithoutHeader: (first) =>
    first.includes("sentence") ? undefined : ["source", "label", "star", "sentence"],
};

type RecordReader = (path: string, choose: ChooseColumns) => AsyncGenerator<DataRecord>;

const READERS: Readonly<Record<Format, RecordReader>> = {
  csv: (path, choose) => readDelimited(path, choose, CSV),
  tsv: (path, choose) => readDelimited(path, choose, TSV),
  sst2: (path, choose) => readDelimited(path, choose, TSV),
  mrpc: (path, choose) => readDelimited(path, choose, TSV),
  cola: (path, choose) => readDelimited(path, choose, COLA),
  jsonl: readJsonLines,
  parquet: readParquet,
};

// The parsers are loaded with the first file of their kind: most programs need one of them, or none.
async function* readDelimited(path: string, choose: ChooseColumns, format: DelimitedFormat) {
  const delimited = await import("./delimited.js");
  yield* delimited.readDelimited(path, choose, format);
}

async function* readParquet(path: string, choose: ChooseColumns) {
  const parquet = await import("./parquet.js");
  yield* parquet.readParquet(path, choose);
}

const columnName: OptionRule = {
  expected: "the name of a column",
  accepts: (value) => typeof value === "string",
};

const label2idRule: OptionRule = {
  expected: "a Map or an object from names to class indices (integers >= 0)",
  accepts: (value) =>
    typeof value === "object" &&
    value !== null &&
    [...(value instanceof Map ? value.values() : Object.values(value))].every(integerIn(0).accepts),
};

/**
 * Opens the texts and labels of a file, read as they are iterated over and anew each time; the file may be
 * larger than memory (Parquet: one row group at a time is held). Text files are UTF-8, with or without
 * byte order mark, and plain or compressed with gzip.
 *
 * A label is an integer, a string of digits, a boolean (false is 0), or a name in `label2id`; -1 means that
 * there is none. With `regression` it is any finite number.
 *
 * @param path - of the file.
 * @throws LokoError at once: ERR_INPUT_TYPE, ERR_OPTION. While iterated over: ERR_FILE_NOT_FOUND,
 * ERR_FILE_READ; ERR_DATA_FORMAT for a file that is empty, damaged, ragged or not UTF-8;
 * ERR_DATA_COLUMN for a column that is not there or holds no text; ERR_LABEL_UNKNOWN,
 * ERR_LABEL_RANGE; ERR_UNSUPPORTED for a Parquet codec. The message names file, line and column.
 *
 * @example
 * ```ts
 * const dataset = textDataset("SST-2/train.tsv", { numLabels: 2 });
 * for await (const { text, label } of dataset.shuffle({ seed: 1 })) console.log(label, text);
 * ```
 */
export function textDataset(path: string, options: TextDatasetOptions = {}): Dataset<TextExample> {
  if (typeof path !== "string") {
    throw new LokoError(
      "ERR_INPUT_TYPE",
      `textDataset: expected the path of a file, got ${describe(path)}.`,
    );
  }
  checkOptions("textDataset", options, {
    format: oneOf("auto", ...FORMATS),
    textColumn: columnName,
    pairColumn: columnName,
    labelColumn: either(columnName, { expected: "false", accepts: (value) => value === false }),
    label2id: label2idRule,
    numLabels: integerIn(1),
    regression: trueOrFalse,
  });
  const { format = "auto" } = options;
  const known = { ...options, format: format === "auto" ? formatOf(path) : format };
  return Dataset.from(() => readExamples(path, known));
}

function formatOf(path: string): Format {
  const [ending = ""] = /[^.]*$/.exec(basename(path).toLowerCase().replace(/\.gz$/, "")) ?? [];
  if (Object.hasOwn(ENDINGS, ending)) return ENDINGS[ending]!;
  throw new LokoError(
    "ERR_OPTION",
    `textDataset: cannot tell the format of ${path} from its name, which ends in none of ` +
      `${Object.keys(ENDINGS).join(", ")}; pass format, one of ${FORMATS.join(", ")}.`,
  );
}

async function* readExamples(
  path: string,
  options: TextDatasetOptions & { format: Format },
): AsyncGenerator<TextExample, void, undefined> {
  const { format } = options;
  const unit = format === "parquet" ? "row" : "line";
  const readLabel = labelReader(options);
  let columns: TextColumns | undefined;
  const choose = (available: readonly string[]) => {
    columns = findColumns(path, available, options);
    // The order in which the loop below takes the values.
    return [columns.text, columns.pair, columns.label].filter((name) => name !== undefined);
  };
  let row = 0;
  for await (const { values, position } of READERS[format](path, choose)) {
    const { text, pair, label } = columns!;
    const where = (column: string) => `${path}: ${unit} ${position}, column ${describe(column)}`;
    const rest = values.values();
    const example: TextExample = { text: toText(rest.next().value, () => where(text)), row: ++row };
    if (pair !== undefined) example.pair = toText(rest.next().value, () => where(pair));
    if (label !== undefined) {
      const read = readLabel(rest.next().value, () => where(label));
      if (read !== undefined) example.label = read;
    }
    yield example;
  }
  if (row === 0) {
    throw formatError(path, columns === undefined ? "the file is empty" : "the file has no rows");
  }
}

function toText(value: unknown, where: () => string): string {
  if (typeof value === "string") {
    // Only JSON can spell half of a surrogate pair, which no tokenizer takes.
    if (/\p{Surrogate}/u.test(value)) throw formatError(where(), "holds a lone surrogate");
    return value;
  }
  if (value instanceof Uint8Array) throw formatError(where(), "holds bytes that are not UTF-8");
  const got = value === undefined ? "nothing" : describe(value);
  throw new LokoError("ERR_DATA_COLUMN", `${where()}: expected text, got ${got}.`);
}
