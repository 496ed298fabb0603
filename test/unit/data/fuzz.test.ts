// Mutated and made-up files: each must give examples or a LokoError, never another exception.
// LOKO_FUZZ_ITERATIONS and LOKO_FUZZ_SEED run it longer and elsewhere; a failure prints the case.

import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { gunzipSync, gzipSync } from "node:zlib";
import fc from "fast-check";
import { expect, test } from "vitest";

import type { DataFormat } from "../../../lib/data/text.js";
import { LokoError } from "../../../lib/errors.js";
import { mutateBytes, Random, FUZZ_RUNS as RUNS } from "../io/mutate.js";
import { dataFile, examplesOf, fixture } from "./helpers.js";

/** The codes that bytes alone can cause. */
const CODES = [
  "ERR_DATA_FORMAT",
  "ERR_DATA_COLUMN",
  "ERR_LABEL_UNKNOWN",
  "ERR_LABEL_RANGE",
  "ERR_UNSUPPORTED",
];

/** @returns whether there were examples. */
async function readAny(path: string, bytes: Uint8Array, format: DataFormat): Promise<boolean> {
  await writeFile(path, bytes);
  try {
    const examples = await examplesOf(path, { format, numLabels: 3 });
    expect(examples.length).toBeGreaterThan(0);
    for (const { text, label = 0 } of examples) {
      expect(typeof text).toBe("string");
      expect([0, 1, 2]).toContain(label);
    }
    return true;
  } catch (error) {
    if (!(error instanceof LokoError)) throw error;
    expect(CODES).toContain(error.code);
    return false;
  }
}

test.each([
  ["rows.csv", "csv"],
  ["rows.jsonl", "jsonl"],
  ["rows.tsv.gz", "tsv"],
  ["snappy.parquet", "parquet"],
  ["zstd-v2.parquet", "parquet"],
  ["gzip-int32.parquet", "parquet"],
  ["brotli-uint8.parquet", "parquet"],
  ["lz4-double.parquet", "parquet"],
  ["plain.parquet", "parquet"],
  ["delta.parquet", "parquet"],
] as const)("%s with changed bytes gives examples or a coded error", async (name, format) => {
  // Not a Buffer, whose slice() would be changed in place.
  const file = new Uint8Array(readFileSync(fixture(name)));
  // Changes to compressed bytes end in gzip's checksum; the text is changed as well.
  const originals = name.endsWith(".gz") ? [file, new Uint8Array(gunzipSync(file))] : [file];
  const path = await dataFile("mutated", "");
  const cases = fc.tuple(
    fc.constantFrom(...originals),
    fc.integer(),
    fc.integer({ min: 1, max: 3 }),
  );
  let good = 0;
  await fc.assert(
    fc.asyncProperty(cases, async ([original, seed, changes]) => {
      const random = new Random(seed);
      let bytes: Uint8Array = original;
      for (let i = 0; i < changes; i++) bytes = mutateBytes(bytes, random);
      if (await readAny(path, bytes, format)) good++;
    }),
    RUNS,
  );
  // Neither all nor none: otherwise the changes would not reach what they are for.
  expect(good).toBeGreaterThan(0);
  expect(good).toBeLessThan(RUNS.numRuns);
});

test("text put together from what the formats are made of gives examples or a coded error", async () => {
  const parts = [
    '"',
    ",",
    "\t",
    "\n",
    "\r\n",
    "\r",
    "a",
    "1",
    "-1",
    "\\",
    "{",
    "}",
    "[",
    ":",
    "\0",
  ];
  const piece = fc.oneof(
    fc.constantFrom(...parts, '"text"', '"label"', '{"text":"a","label":1}').map(Buffer.from),
    fc.constant(Buffer.from("\ufeff")),
    fc.uint8Array({ maxLength: 3 }),
  );
  const header = fc.constantFrom("", "text,label\n", "text\tlabel\n", '{"text":"a","label":1}\n');
  const content = fc
    .tuple(header, fc.array(piece, { maxLength: 30 }))
    .map(([first, rest]) => Buffer.concat([Buffer.from(first), ...rest]));
  const format = fc.constantFrom("csv", "tsv", "cola", "jsonl", "parquet" as const);
  const path = await dataFile("made", "");
  await fc.assert(
    fc.asyncProperty(content, format, fc.boolean(), async (bytes, kind, zip) => {
      await readAny(path, zip ? gzipSync(bytes) : bytes, kind);
    }),
    RUNS,
  );
});

/** Any text that a file can hold. */
const anyText = fc
  .string({ unit: "binary", maxLength: 12 })
  .map((text) => text.replaceAll("\0", ""));
const anyRows = fc.array(fc.tuple(anyText, fc.nat(2)), { minLength: 1, maxLength: 8 });

test("any texts come back from CSV and JSON lines", async () => {
  const path = await dataFile("rows", "");
  const quote = (text: string) => `"${text.replaceAll('"', '""')}"`;
  await fc.assert(
    fc.asyncProperty(anyRows, fc.constantFrom("\n", "\r\n"), async (rows, newline) => {
      const expected = rows.map(([text, label], index) => ({ text, label, row: index + 1 }));
      const csv = rows.map(([text, label]) => `${label},${quote(text)}`);
      await writeFile(path, ["label,text", ...csv].join(newline));
      expect(await examplesOf(path, { format: "csv" })).toEqual(expected);
      const lines = rows.map(([text, label]) => JSON.stringify({ text, label }));
      await writeFile(path, lines.join(newline));
      expect(await examplesOf(path, { format: "jsonl" })).toEqual(expected);
    }),
    { ...RUNS, numRuns: Math.ceil(RUNS.numRuns / 3) },
  );
});
