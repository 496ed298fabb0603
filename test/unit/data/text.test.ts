import { readFileSync } from "node:fs";
import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";

import { type DataFormat, textDataset } from "../../../lib/data/text.js";
import { temporaryFolder } from "../io/helpers.js";
import { dataFile, examplesOf, fixture } from "./helpers.js";

const readJson = (name: string) => JSON.parse(readFileSync(fixture(name), "utf8"));

describe("the rows that Python wrote", () => {
  const rows: { sentence1: string; sentence2: string; label: number }[] = readJson("rows.json");
  const expected = rows.map(({ sentence1, sentence2, label }, index) => ({
    text: sentence1,
    pair: sentence2,
    label,
    row: index + 1,
  }));

  test.each([
    "rows.csv",
    "rows.jsonl",
    "rows.tsv.gz",
    "snappy.parquet",
    "zstd-v2.parquet",
    "gzip-int32.parquet",
    "brotli-uint8.parquet",
    "lz4-double.parquet",
    "plain.parquet",
    "delta.parquet",
  ])("are found in %s", async (name) => {
    expect(await examplesOf(fixture(name))).toEqual(expected);
  });

  test("are found again in each iteration, and in any order by seed", async () => {
    const dataset = textDataset(fixture("rows.csv"));
    for (let pass = 0; pass < 2; pass++) {
      const rowNumbers: number[] = [];
      for await (const { row } of dataset) rowNumbers.push(row);
      expect(rowNumbers).toEqual(expected.map(({ row }) => row));
    }
    const shuffled: number[] = [];
    for await (const { row } of dataset.shuffle({ seed: 5 })) shuffled.push(row);
    expect(shuffled).not.toEqual(expected.map(({ row }) => row));
    expect(shuffled.toSorted((a, b) => a - b)).toEqual(expected.map(({ row }) => row));
  });

  test("are the same with quoted line breaks, commas and quotes, and a byte order mark", async () => {
    const quoted = readJson("quoted.json") as object[];
    expect(await examplesOf(fixture("quoted.csv"))).toEqual(
      quoted.map((row, index) => ({ ...row, row: index + 1 })),
    );
  });
});

describe("GLUE", () => {
  const read = async (format: DataFormat, lines: string[], options = {}) =>
    examplesOf(await dataFile("file.tsv", lines.join("\n")), { format, ...options });

  test("SST-2: a header, text and label; a test set has an index instead of labels", async () => {
    expect(
      await read("sst2", ["sentence\tlabel", 'the "film" is dull , \t0', "it 's a charm \t1", ""]),
    ).toEqual([
      { text: 'the "film" is dull , ', label: 0, row: 1 },
      { text: "it 's a charm ", label: 1, row: 2 },
    ]);
    expect(
      await read("sst2", ["index\tsentence", "0\tuneasy mishmash"], { labelColumn: false }),
    ).toEqual([{ text: "uneasy mishmash", row: 1 }]);
  });

  test("CoLA: no header, the text last; a test set has one", async () => {
    expect(
      await read("cola", [
        "gj04\t1\t\tThey drank the pub dry.",
        'gj04\t0\t*\t"They" drank the pub.',
      ]),
    ).toEqual([
      { text: "They drank the pub dry.", label: 1, row: 1 },
      { text: '"They" drank the pub.', label: 0, row: 2 },
    ]);
    expect(
      await read("cola", ["index\tsentence", "0\tBill whistled."], { labelColumn: false }),
    ).toEqual([{ text: "Bill whistled.", row: 1 }]);
  });

  test("MRPC: a byte order mark, CRLF, and quotes that are not closed", async () => {
    const lines = [
      "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r",
      '1\t702876\t702977\tHe said "no .\tHe said " no " .\r',
      "0\t2108705\t2108831\tYucaipa owned it .\tYucaipa bought it .\r",
      "",
    ];
    expect(await read("mrpc", lines)).toEqual([
      { text: 'He said "no .', pair: 'He said " no " .', label: 1, row: 1 },
      { text: "Yucaipa owned it .", pair: "Yucaipa bought it .", label: 0, row: 2 },
    ]);
  });

  test("-1 marks the rows of a test set, which have no label", async () => {
    expect(await examplesOf(fixture("test-set.parquet"), { numLabels: 2 })).toEqual([
      { text: "a", row: 1 },
      { text: "b", row: 2 },
    ]);
    const jsonLines = await dataFile(
      "a.jsonl",
      '{"text":"a","label":-1}\n{"text":"b","label":"-1"}',
    );
    expect(await examplesOf(jsonLines)).toEqual([
      { text: "a", row: 1 },
      { text: "b", row: 2 },
    ]);
  });
});

describe("format", () => {
  test.each([
    ["a.tsv", "text\tlabel\na, b\t1\n"],
    ["a.b.CSV", 'label,text\r\n1,"a, b"\r\n'],
    ["a.jsonl", '{"text":"a, b","label":1}'],
    ["a.ndjson", '\ufeff\n{"label":1,"text":"a, b"}\r\n\n'],
    ["a.csv.gz", gzipSync('text,label\n"a, b",1')],
    ["a.tsv", gzipSync("text\tlabel\na, b\t1")],
  ])("is told from the name %s", async (name, content) => {
    expect(await examplesOf(await dataFile(name, content))).toEqual([
      { text: "a, b", label: 1, row: 1 },
    ]);
  });

  test("that is given counts more than the name", async () => {
    const path = join(await temporaryFolder(), "data.txt");
    await copyFile(fixture("snappy.parquet"), path);
    expect((await examplesOf(path, { format: "parquet" })).length).toBe(41);
  });

  test("keeps text as it is: blanks, tabs in JSON, U+2028, a carriage return inside a field", async () => {
    const texts = [" a ", "\t", "b\u2028c", "\ufeff", "\u0085", "d\re"];
    const lines = texts.map((text) => JSON.stringify({ text })).join("\n");
    const read = await examplesOf(await dataFile("a.jsonl", lines), { labelColumn: false });
    expect(read.map(({ text }) => text)).toEqual(texts);
    const tsv = await dataFile("a.tsv", "text\n a \nb\u2028c\nd\re\n");
    expect((await examplesOf(tsv, { labelColumn: false })).map(({ text }) => text)).toEqual([
      " a ",
      "b\u2028c",
      "d\re",
    ]);
  });

  test("reads characters that lie across the chunks of a large file", async () => {
    // 7 bytes per line: every alignment to the chunks occurs.
    const line = "\u{1f600}é\n";
    const count = 200_000;
    const path = await dataFile("a.tsv", `text\n${line.repeat(count)}`);
    let good = 0;
    for await (const { text } of textDataset(path, { labelColumn: false })) {
      if (text === "\u{1f600}é") good++;
    }
    expect(good).toBe(count);
  });
});

describe("columns", () => {
  test.each([
    ["sentence\tidx", "a\t1", { text: "a" }],
    ["text\tidx", "a\t1", { text: "a" }],
    ["sentence1\tsentence2", "a\tb", { text: "a", pair: "b" }],
    ["#1 String\t#2 String", "a\tb", { text: "a", pair: "b" }],
    ["hypothesis\tpremise", "b\ta", { text: "a", pair: "b" }],
    ["question1\tquestion2", "a\tb", { text: "a", pair: "b" }],
    ["question\tsentence", "a\tb", { text: "a", pair: "b" }],
    ["text\ttext_pair", "a\tb", { text: "a", pair: "b" }],
  ])("are found by name: %s", async (header, line, expected) => {
    const path = await dataFile("a.tsv", `${header}\n${line}\n`);
    expect(await examplesOf(path, { labelColumn: false })).toEqual([{ ...expected, row: 1 }]);
  });

  test.each(["label", "labels", "Quality"])("are found by name: %s for the label", async (name) => {
    const path = await dataFile("a.csv", `text,${name}\na,1`);
    expect(await examplesOf(path)).toEqual([{ text: "a", label: 1, row: 1 }]);
  });

  test("are those that options name, and a named text comes without a pair", async () => {
    const path = await dataFile("a.csv", "sentence1,sentence2,y,label\na,b,1,0\n");
    expect(await examplesOf(path, { textColumn: "sentence2" })).toEqual([
      { text: "b", label: 0, row: 1 },
    ]);
    expect(
      await examplesOf(path, { textColumn: "y", pairColumn: "sentence1", labelColumn: "y" }),
    ).toEqual([{ text: "1", pair: "a", label: 1, row: 1 }]);
  });

  test("may be named like members of an object", async () => {
    const path = await dataFile("a.jsonl", '{"__proto__":"a","constructor":1}');
    expect(await examplesOf(path, { textColumn: "__proto__", labelColumn: "constructor" })).toEqual(
      [{ text: "a", label: 1, row: 1 }],
    );
  });
});

describe("labels", () => {
  const labelsOf = async (lines: string[], options = {}) => {
    const path = await dataFile(
      "a.jsonl",
      lines.map((l) => `{"text":"a","label":${l}}`).join("\n"),
    );
    return (await examplesOf(path, options)).map(({ label }) => label);
  };

  test("are integers, strings of digits and booleans", async () => {
    expect(await labelsOf(["2", '"1"', "true", "false", "1.0", '"+1"', '"007"'])).toEqual([
      2, 1, 1, 0, 1, 1, 7,
    ]);
    expect((await examplesOf(fixture("bool.parquet"))).map(({ label }) => label)).toEqual([
      1, 0, 1,
    ]);
  });

  test("are names, in a Map or an object; a name of digits counts as a name", async () => {
    const label2id = { neg: 0, pos: 1, "5": 2 };
    for (const ids of [label2id, new Map(Object.entries(label2id))]) {
      expect(await labelsOf(['"pos"', '"neg"', '"5"', "1"], { label2id: ids })).toEqual([
        1, 0, 2, 1,
      ]);
    }
    expect(
      (await examplesOf(fixture("names.parquet"), { label2id })).map(({ label }) => label),
    ).toEqual([1, 0, 1]);
  });

  test("are any finite numbers for regression, -1 as well", async () => {
    expect(await labelsOf(["2.5", '"-1e-3"', "-1"], { regression: true })).toEqual([
      2.5, -0.001, -1,
    ]);
    expect(
      (await examplesOf(fixture("score.parquet"), { regression: true })).map(({ label }) => label),
    ).toEqual([0.5, -1, 3.25]);
  });
});
