import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { chmod, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";

import { type TextDatasetOptions, textDataset } from "../../../lib/data/text.js";
import type { LokoErrorCode } from "../../../lib/errors.js";
import { errorOf, temporaryFolder } from "../io/helpers.js";
import { dataFile, examplesOf, fixture } from "./helpers.js";

type Case = [
  title: string,
  code: LokoErrorCode,
  name: string,
  content: string | Uint8Array,
  part: string,
  options?: TextDatasetOptions,
];

const latin1 = (text: string) => Buffer.from(text, "latin1");
const label2id = { negative: 0, positive: 1 };

// biome-ignore format: one case, one line.
const FILES: readonly Case[] = [
  ["an empty file", "ERR_DATA_FORMAT", "a.tsv", "", ": the file is empty."],
  ["an empty file", "ERR_DATA_FORMAT", "a.csv", "\ufeff", ": the file is empty."],
  ["an empty file", "ERR_DATA_FORMAT", "a.jsonl", "\n \n", ": the file is empty."],
  ["an empty gzip file", "ERR_DATA_FORMAT", "a.csv.gz", gzipSync(""), ": the file is empty."],
  ["only a header", "ERR_DATA_FORMAT", "a.csv", "text,label\n\n", ": the file has no rows."],
  ["Latin-1", "ERR_DATA_FORMAT", "a.tsv", latin1("text\tlabel\nb\t1\ncaf\xe9\t1\n"), ": line 3: is not valid UTF-8."],
  ["Latin-1", "ERR_DATA_FORMAT", "a.jsonl", latin1('\n{"text":"caf\xe9"}'), ": line 2: is not valid UTF-8."],
  ["half a character at the end", "ERR_DATA_FORMAT", "a.tsv", latin1("text\tlabel\ncaf\xc3"), ": line 2: is not valid UTF-8."],
  ["an overlong sequence", "ERR_DATA_FORMAT", "a.tsv", latin1("text\n\xc0\x80\n"), ": line 2: is not valid UTF-8."],
  ["UTF-16 with a byte order mark", "ERR_DATA_FORMAT", "a.tsv", Buffer.from("\ufefftext", "utf16le"), ": line 1: "],
  ["UTF-16 without one", "ERR_DATA_FORMAT", "a.tsv", Buffer.from("text\tlabel\n", "utf16le"), ": line 1: holds a NUL byte."],
  ["a NUL", "ERR_DATA_FORMAT", "a.csv", "text,label\na,1\nb\0,1\n", ": line 3: holds a NUL byte."],
  ["a Parquet file by another name", "ERR_DATA_FORMAT", "a.tsv", "PAR1\x15\0\x15", ": line 1: holds a NUL byte."],
  ["gzip data cut short", "ERR_DATA_FORMAT", "a.tsv.gz", gzipSync("text\tlabel\na\t1\n").subarray(0, -9), ": damaged gzip data: "],
  ["too few fields", "ERR_DATA_FORMAT", "a.tsv", "text\tlabel\na\t1\n\nb\n", ': line 4: expected 2 fields ("text", "label"), got 1.'],
  ["too many fields", "ERR_DATA_FORMAT", "a.csv", 'label,text\n1,"a\nb"\n1,a,b\n', ": line 4: expected 2 fields"],
  ["CoLA with a header of another kind", "ERR_DATA_FORMAT", "a.tsv", "a\tb\n", ': line 1: expected 4 fields ("source"', { format: "cola" }],
  ["a quote that is not closed", "ERR_DATA_FORMAT", "a.csv", 'text,label\na,1\n\n"b,1\nc,1\n', ": line 4: the record that begins here has a quote that is not closed"],
  ["text after a closing quote", "ERR_DATA_FORMAT", "a.csv", 'text,label\n"a" b,1\n', ": line 2: the record that begins here goes on after a closing quote"],
  ["a quote inside a field", "ERR_DATA_FORMAT", "a.csv", 'text,label\na "b" c,1\n', ": line 2: the record that begins here has a quote inside"],
  ["malformed JSON", "ERR_DATA_FORMAT", "a.jsonl", '{"text":"a","label":1}\n{"text":"a",}\n', ": line 2: expected a JSON object: "],
  ["JSON over several lines", "ERR_DATA_FORMAT", "a.jsonl", '{\n"text":"a"}\n', ": line 1: expected a JSON object: "],
  ["a JSON array", "ERR_DATA_FORMAT", "a.jsonl", '["a",1]', ": line 1: expected a JSON object, got an array of 2."],
  ["a JSON null", "ERR_DATA_FORMAT", "a.jsonl", "null", ": line 1: expected a JSON object, got null."],
  ["a lone surrogate", "ERR_DATA_FORMAT", "a.jsonl", '{"text":"\\ud800","label":1}', ': line 1, column "text": holds a lone surrogate.'],
  ["a null text", "ERR_DATA_COLUMN", "a.jsonl", '{"text":"a","label":1}\n\n{"text":null,"label":1}', ': line 3, column "text": expected text, got null.'],
  ["a number as text", "ERR_DATA_COLUMN", "a.jsonl", '{"text":5,"label":1}', ': line 1, column "text": expected text, got 5.'],
  ["a text that one line lacks", "ERR_DATA_COLUMN", "a.jsonl", '{"text":"a","label":1}\n{"tex":"b","label":1}', ': line 2, column "text": expected text, got nothing.'],
  ["a text of no own key", "ERR_DATA_COLUMN", "a.jsonl", '{"toString":"a"}\n{"a":1}', ': line 2, column "toString": expected text, got nothing.', { textColumn: "toString", labelColumn: false }],
  ["a second text that is none", "ERR_DATA_COLUMN", "a.jsonl", '{"text":"a","text_pair":[],"label":1}', 'column "text_pair": expected text, got an array of 0.'],
  ["no text column", "ERR_DATA_COLUMN", "a.tsv", "title\tlabel\na\t1\n", 'found no column for the text (such as "sentence", "text", "sentence1"). The columns are "title", "label"; name it: textColumn.'],
  ["no label column", "ERR_DATA_COLUMN", "a.tsv", "text\ty\na\t1\n", 'found no column for the label ("label", "labels", "Quality"). The columns are "text", "y"; name it: labelColumn, or pass labelColumn: false'],
  ["a named column that is not there", "ERR_DATA_COLUMN", "a.csv", "sentence,text,label\na,b,1\n", ': has no column "sentense"; the nearest is "sentence". The columns are "sentence", "text", "label".', { textColumn: "sentense" }],
  ["a second text that is not there", "ERR_DATA_COLUMN", "a.csv", "text,label\na,1\n", 'has no column "pair"', { pairColumn: "pair" }],
  ["a label column that is not there", "ERR_DATA_COLUMN", "a.jsonl", '{"text":"a","label":1}', 'has no column "Label"; the nearest is "label".', { labelColumn: "Label" }],
  ["a column twice", "ERR_DATA_COLUMN", "a.csv", "text,text,label\na,b,1\n", 'has more than one column "text".'],
  ["a label that is no integer", "ERR_LABEL_UNKNOWN", "a.csv", "text,label\na,1\nb,one\n", ': line 3, column "label": expected an integer label, got "one". Pass label2id to read names.'],
  ["a label with a fraction", "ERR_LABEL_UNKNOWN", "a.csv", "text,label\na,0.5\n", 'expected an integer label, got "0.5"'],
  ["an empty label", "ERR_LABEL_UNKNOWN", "a.csv", "text,label\na,\n", 'expected an integer label, got "".'],
  ["a null label", "ERR_LABEL_UNKNOWN", "a.jsonl", '{"text":"a","label":null}', "expected an integer label, got null."],
  ["a label that one line lacks", "ERR_LABEL_UNKNOWN", "a.jsonl", '{"text":"a","label":1}\n{"text":"a"}', ': line 2, column "label": expected an integer label, got nothing.'],
  ["a name not in label2id", "ERR_LABEL_UNKNOWN", "a.tsv", "text\tlabel\na\tpositve\n", 'expected an integer or a name of label2id, got "positve"; the known names are "negative", "positive".', { label2id }],
  ["a name of no own member of label2id", "ERR_LABEL_UNKNOWN", "a.tsv", "text\tlabel\na\ttoString\n", 'got "toString"', { label2id }],
  ["a label above the classes", "ERR_LABEL_RANGE", "a.tsv", "text\tlabel\na\t2\n", ': line 2, column "label": expected a label in [0, 2), or -1 for none, got "2", which stands for 2.', { numLabels: 2 }],
  ["a label below zero", "ERR_LABEL_RANGE", "a.jsonl", '{"text":"a","label":-2}', "expected a label >= 0, or -1 for none, got -2."],
  ["a name that stands for no class", "ERR_LABEL_RANGE", "a.tsv", "text\tlabel\na\tpositive\n", 'got "positive", which stands for 1.', { label2id, numLabels: 1 }],
  ["no number for regression", "ERR_LABEL_UNKNOWN", "a.tsv", "text\tlabel\na\thigh\n", 'expected a finite number to predict, got "high".', { regression: true }],
  ["an empty field for regression", "ERR_LABEL_UNKNOWN", "a.tsv", "text\tlabel\na\t \n", 'got " ".', { regression: true }],
  ["a number above float32 for regression", "ERR_LABEL_UNKNOWN", "a.jsonl", '{"text":"a","label":1e39}', "got 1e+39.", { regression: true }],
];

describe("textDataset", () => {
  test.each(FILES)("refuses %s with %s in %s", async (_, code, name, content, part, options) => {
    const path = await dataFile(name, content);
    const { message } = await errorOf(code, () => examplesOf(path, options));
    expect(message.startsWith(path)).toBe(true);
    expect(message).toContain(part);
  });

  test("lists the nearest names where label2id is long, and some of many columns", async () => {
    const names = Object.fromEntries(Array.from({ length: 150 }, (_, i) => [`class ${i}`, i]));
    const path = await dataFile("a.csv", "text,label\na,class 7b\n");
    const unknown = await errorOf("ERR_LABEL_UNKNOWN", () => examplesOf(path, { label2id: names }));
    expect(unknown.message).toContain('the nearest names are "class 7"');
    const header = Array.from({ length: 150 }, (_, i) => `c${i}`).join();
    const wide = await dataFile("b.csv", `${header}\n`);
    const { message } = await errorOf("ERR_DATA_COLUMN", () => examplesOf(wide));
    expect(message).toContain('"c19" and 130 more');
  });

  test.each(["a.tsv", "a.csv", "a.jsonl"])(
    "refuses a line of 100 MB in %s and keeps little of it",
    async (name) => {
      const path = await dataFile(name, Buffer.alloc(100e6, '{"text":"'));
      const { message } = await errorOf("ERR_DATA_FORMAT", () =>
        examplesOf(path, { format: name === "a.csv" ? "tsv" : "auto" }),
      );
      expect(message).toMatch(/line 1: .*longer than 16777216 (characters|bytes)/);
    },
  );

  test("refuses what is no file to read", async () => {
    const folder = await temporaryFolder();
    const missing = await errorOf("ERR_FILE_NOT_FOUND", () => examplesOf(join(folder, "no.csv")));
    expect(missing.message).toContain("no.csv: no such file");
    await mkdir(join(folder, "folder.csv"));
    await errorOf("ERR_FILE_READ", () => examplesOf(join(folder, "folder.csv")));
    await errorOf("ERR_FILE_READ", () =>
      examplesOf(join(folder, "folder.csv"), { format: "parquet" }),
    );
  });

  test.runIf(process.platform === "linux")("gives an error while reading its code", async () => {
    // Nothing is mapped at address 0, so that reading fails after opening went well.
    for (const format of ["tsv", "csv", "jsonl", "parquet"] as const) {
      const error = await errorOf("ERR_FILE_READ", () => examplesOf("/proc/self/mem", { format }));
      expect(error.message).toContain("/proc/self/mem: cannot be read: EIO");
    }
  });

  // The superuser reads everything.
  test.skipIf(process.getuid?.() === 0)("refuses a file without permission", async () => {
    const path = await dataFile("a.tsv", "text\na\n");
    await chmod(path, 0);
    await errorOf("ERR_FILE_READ", () => examplesOf(path));
  });

  // biome-ignore format: one case, one line.
  test.each([
    ["expected the path of a file, got 5", "ERR_INPUT_TYPE", () => textDataset(5 as never)],
    ["cannot tell the format of a.txt from its name", "ERR_OPTION", () => textDataset("a.txt")],
    ["pass format, one of csv, tsv", "ERR_OPTION", () => textDataset("csv/data")],
    ["format must be one of", "ERR_OPTION", () => textDataset("a.csv", { format: "xml" as never })],
    ['"textColumn"', "ERR_OPTION", () => textDataset("a.csv", { textcolumn: "a" } as never)],
    ["textColumn must be", "ERR_OPTION", () => textDataset("a.csv", { textColumn: 1 as never })],
    ["or false, got true", "ERR_OPTION", () => textDataset("a.csv", { labelColumn: true as never })],
    ["numLabels must be", "ERR_OPTION", () => textDataset("a.csv", { numLabels: 0 })],
    ["label2id must be", "ERR_OPTION", () => textDataset("a.csv", { label2id: { a: -1 } })],
    ["got null", "ERR_OPTION", () => textDataset("a.csv", { label2id: null as never })],
    ["options must be an object", "ERR_OPTION", () => textDataset("a.csv", null as never)],
  ] as const)("refuses at once: %s", async (part, code, run) => {
    expect((await errorOf(code, run)).message).toContain(part);
  });
});

describe.runIf(process.platform === "linux")("an open file", () => {
  // At once and not a moment later: the caller may want to delete the file.
  const openFiles = () =>
    readdirSync("/proc/self/fd")
      .map((link) => {
        try {
          return readlinkSync(`/proc/self/fd/${link}`);
        } catch {
          return "";
        }
      })
      .filter((path) => path.includes("loko-test-"));

  test.each([
    ["a.csv", "text,label\na,1\n"],
    ["a.tsv", "text\tlabel\na\t1\n"],
    ["a.jsonl", '{"text":"a","label":1}\n'],
  ])("is closed when the loop ends early, and after an error: %s", async (name, line) => {
    const rest = name === "a.jsonl" ? line : line.slice(line.indexOf("\n") + 1);
    const path = await dataFile(name, line + rest.repeat(200_000));
    for await (const _ of textDataset(path)) {
      expect(openFiles()).toEqual([path]);
      break;
    }
    expect(openFiles()).toEqual([]);
    await errorOf("ERR_LABEL_RANGE", () => examplesOf(path, { numLabels: 1 }));
    await errorOf("ERR_DATA_COLUMN", () => examplesOf(path, { textColumn: "no" }));
    expect(openFiles()).toEqual([]);
    await examplesOf(await dataFile(name, line + rest));
    expect(openFiles()).toEqual([]);
    const zipped = await dataFile(name, gzipSync(line + rest.repeat(200_000)));
    for await (const _ of textDataset(zipped)) break;
    await examplesOf(zipped);
    expect(openFiles()).toEqual([]);
  });

  test("is closed for Parquet as well", async () => {
    const path = await dataFile("a.parquet", readFileSync(fixture("snappy.parquet")));
    for await (const _ of textDataset(path)) {
      expect(openFiles()).toEqual([path]);
      break;
    }
    await errorOf("ERR_DATA_COLUMN", () => examplesOf(path, { textColumn: "no" }));
    expect(openFiles()).toEqual([]);
  });
});
