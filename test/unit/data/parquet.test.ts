import { readFile } from "node:fs/promises";
import { type ColumnMetaData, parquetMetadata } from "hyparquet";
import { parquetHeader } from "hyparquet/src/column.js";
import { describe, expect, test } from "vitest";

import { type TextDatasetOptions, textDataset } from "../../../lib/data/text.js";
import type { LokoErrorCode } from "../../../lib/errors.js";
import { errorOf } from "../io/helpers.js";
import { dataFile, examplesOf, fixture } from "./helpers.js";

const columnsOf = (bytes: Uint8Array): ColumnMetaData[] =>
  parquetMetadata(bytes).row_groups.flatMap(({ columns }) => columns.map((c) => c.meta_data!));

/** The file with the codec of the first column changed from Snappy to LZO, which nobody implements. */
async function withLzo(): Promise<Uint8Array> {
  const original = await readFile(fixture("snappy.parquet"));
  for (let at = original.length - 9; at > 0; at--) {
    if (original[at] !== 2) continue;
    const changed = Buffer.from(original);
    changed[at] = 6;
    try {
      const [first, second] = columnsOf(changed);
      if (first!.codec === "LZO" && second!.codec === "SNAPPY") return changed;
    } catch {
      // Another byte with the value 2.
    }
  }
  throw new Error("no codec found");
}

describe("textDataset with Parquet", () => {
  test.each([
    ["null-text", "ERR_DATA_COLUMN", 'row 2, column "text": expected text, got null.'],
    [
      "null-label",
      "ERR_LABEL_UNKNOWN",
      'row 2, column "label": expected an integer label, got null',
    ],
    ["not-utf8", "ERR_DATA_FORMAT", 'row 2, column "text": holds bytes that are not UTF-8.'],
    [
      "nested",
      "ERR_DATA_COLUMN",
      'column "text" is nested or of a type (a group) that holds neither',
    ],
    ["no-rows", "ERR_DATA_FORMAT", "the file has no rows."],
    ["score", "ERR_LABEL_UNKNOWN", 'row 1, column "label": expected an integer label, got 0.5'],
    [
      "bool",
      "ERR_DATA_COLUMN",
      'has no column "txt"; the nearest is "text".',
      { textColumn: "txt" },
    ],
    [
      "bool",
      "ERR_DATA_COLUMN",
      'row 1, column "label": expected text, got true.',
      { textColumn: "label" },
    ],
    ["names", "ERR_LABEL_UNKNOWN", 'row 1, column "label": expected an integer label, got "pos"'],
    [
      "bool",
      "ERR_LABEL_RANGE",
      "in [0, 1), or -1 for none, got true, which stands for 1.",
      { numLabels: 1 },
    ],
  ] as [string, LokoErrorCode, string, TextDatasetOptions?][])(
    "refuses %s with %s: %s",
    async (name, code, part, options) => {
      const path = fixture(`${name}.parquet`);
      const { message } = await errorOf(code, () => examplesOf(path, options));
      expect(message.startsWith(`${path}: `)).toBe(true);
      expect(message).toContain(part);
    },
  );

  test.each([
    ["an empty file", "", "the file is empty"],
    ["a short one", "PA", 'not a Parquet file: expected "PAR1" at its start, got "PA'],
    ["text", "text,label\na,1\n", 'not a Parquet file: expected "PAR1" at its start, got "text"'],
    ["the magic alone", "PAR1", 'cut short: expected "PAR1" at its end'],
    ["two magics that overlap", "PAR1PAR1", 'cut short: expected "PAR1" at its end'],
    ["metadata longer than the file", "PAR1\x01\0\0\0PAR1", "metadata of 1 bytes in a file of 12"],
    ["no metadata", "PAR1\0\0\0\0PAR1", "damaged Parquet file: its parts contradict each other"],
  ])("refuses %s", async (_, content, part) => {
    const path = await dataFile("a.parquet", Buffer.from(content, "latin1"));
    const { message } = await errorOf("ERR_DATA_FORMAT", () => examplesOf(path));
    expect(message.startsWith(`${path}: `)).toBe(true);
    expect(message).toContain(part);
  });

  test("refuses a file cut short anywhere", async () => {
    const bytes = await readFile(fixture("snappy.parquet"));
    for (let length = 4; length < bytes.length; length += 97) {
      const path = await dataFile("a.parquet", bytes.subarray(0, length));
      const { message } = await errorOf("ERR_DATA_FORMAT", () => examplesOf(path));
      expect(message).toContain("the Parquet file is cut short");
    }
  });

  test("refuses a codec by name, in a column that is read", async () => {
    const path = await dataFile("a.parquet", await withLzo());
    const { message } = await errorOf("ERR_UNSUPPORTED", () => examplesOf(path));
    expect(message).toContain('column "sentence1" is compressed with LZO; expected none or one of');
    expect(await examplesOf(path, { textColumn: "sentence2" })).toHaveLength(41);
  });

  test("refuses a run of 2^31 values, which would end the process", async () => {
    const bytes = await readFile(fixture("plain.parquet"));
    const column = columnsOf(bytes).find(({ path_in_schema }) => path_in_schema[0] === "label")!;
    const reader = {
      view: new DataView(new Uint8Array(bytes).buffer),
      offset: Number(column.data_page_offset),
    };
    parquetHeader(reader);
    // The definition levels: their length, and one run of 16 values that are there.
    expect(bytes.toString("hex", reader.offset, reader.offset + 6)).toBe("020000002001");
    bytes.write("06000000feffffff0f01", reader.offset, "hex");
    const path = await dataFile("a.parquet", bytes);
    const { message } = await errorOf("ERR_DATA_FORMAT", () => examplesOf(path));
    expect(message).toContain("parquet run of 2147483647 values where 16 are left");
  });

  test("reads one row group after the other: those before a damaged one come out", async () => {
    const bytes = await readFile(fixture("snappy.parquet"));
    const last = columnsOf(bytes).findLast((column) => column.path_in_schema[0] === "sentence1")!;
    const start = Number(last.dictionary_page_offset ?? last.data_page_offset);
    bytes.fill(0xff, start, start + Number(last.total_compressed_size));
    const path = await dataFile("a.parquet", bytes);
    const rows: number[] = [];
    const read = async () => {
      for await (const { row } of textDataset(path)) rows.push(row);
    };
    const { message } = await errorOf("ERR_DATA_FORMAT", read);
    expect(message).toContain("damaged Parquet file: ");
    expect(rows.at(-1)).toBe(32);
  });
});
