import { describe, expect, test } from "vitest";
import type { TextExample } from "../../../lib/data/text.js";
import type { TextOrPair, Tokenizer } from "../../../lib/text/tokenizer.js";
import { encodeExamples } from "../../../lib/train/encode.js";
import { expectError } from "../model/checkpoints.js";

/** Shows what it was asked for: one token per character, padded to the longest text. */
const tokenizer = {
  batch(texts: readonly TextOrPair[], { maxLength = 99 } = {}) {
    const rows = texts.map((text) => [...[text].flat().join("|").slice(0, maxLength)]);
    const width = Math.max(...rows.map((row) => row.length));
    const ids = rows.flatMap((row) => [...row, ...Array(width - row.length).fill("\0")]);
    return {
      inputIds: Int32Array.from(ids, (letter: string) => letter.charCodeAt(0)),
      shape: [rows.length, width],
    };
  },
} as unknown as Tokenizer;

const EXAMPLES: readonly TextExample[] = [
  { text: "abcd", label: 1, row: 1 },
  { text: "ab", pair: "c", label: 0, row: 2 },
  { text: "e", label: 1, row: 3 },
];

async function collect(...args: [readonly TextExample[], object?]) {
  const batches = [];
  for await (const { inputs, labels } of encodeExamples(tokenizer, ...args)) {
    const { inputIds, shape } = inputs as { inputIds: Int32Array; shape: number[] };
    batches.push({ text: String.fromCharCode(...inputIds), shape, labels });
  }
  return batches;
}

describe("encodeExamples", () => {
  test("makes batches of one by default, as LoKO needs", async () => {
    const batches = await collect(EXAMPLES);
    expect(batches).toEqual([
      { text: "abcd", shape: [1, 4], labels: Int32Array.of(1) },
      { text: "ab|c", shape: [1, 4], labels: Int32Array.of(0) },
      { text: "e", shape: [1, 1], labels: Int32Array.of(1) },
    ]);
  });

  test("pads each batch to its own longest text, and cuts at maxLength", async () => {
    const batches = await collect(EXAMPLES, { batchSize: 2, maxLength: 3 });
    expect(batches).toEqual([
      { text: "abcab|", shape: [2, 3], labels: Int32Array.of(1, 0) },
      { text: "e", shape: [1, 1], labels: Int32Array.of(1) },
    ]);
  });

  test("makes float targets for regression", async () => {
    const [batch] = await collect([{ text: "a", label: 0.5, row: 1 }], { regression: true });
    expect(batch!.labels).toEqual(Float32Array.of(0.5));
  });

  // A typed array would make a class of each of them: "LABEL_1" and NaN 0, 1.7 and 2 ** 32 + 1 the class 1.
  test.each<[string, unknown, Parameters<typeof expectError>[1], string]>([
    [
      "a name",
      "LABEL_1",
      "ERR_LABEL_UNKNOWN",
      'Row 7: expected a class index as label, got "LABEL_1"; a',
    ],
    ["null", null, "ERR_DATA_COLUMN", "Row 7 has no label"],
    ["a list", [2], "ERR_LABEL_UNKNOWN", "got an array"],
    ["a BigInt", 1n, "ERR_LABEL_UNKNOWN", "got 1n"],
    ["NaN", Number.NaN, "ERR_LABEL_RANGE", "got NaN"],
    ["a fraction", 1.7, "ERR_LABEL_RANGE", "got 1.7"],
    ["one below 0", -1, "ERR_LABEL_RANGE", "got -1"],
    ["more than an index can be", 2 ** 32 + 1, "ERR_LABEL_RANGE", "got 4294967297"],
  ])("refuses %s as a label", async (_name, label, code, words) => {
    const examples = [{ text: "a", label: label as number, row: 7 }];
    await expectError(() => collect(examples), code, words);
  });

  test("says which example has no label where rows have no numbers", async () => {
    const examples = [{ text: "a", label: 1 }, { text: "b" }] as unknown as TextExample[];
    await expectError(() => collect(examples), "ERR_DATA_COLUMN", "Example 1 has no label");
  });

  test("refuses a target that is not finite", async () => {
    for (const label of [Number.NaN, 1e39]) {
      const examples = [{ text: "a", label, row: 2 }];
      await expectError(
        () => collect(examples, { regression: true }),
        "ERR_INPUT_NOT_FINITE",
        "Row 2",
      );
    }
  });

  test("can be iterated over again", async () => {
    const batches = encodeExamples(tokenizer, EXAMPLES);
    const count = async () => {
      let n = 0;
      for await (const _ of batches) n++;
      return n;
    };
    expect([await count(), await count()]).toEqual([3, 3]);
  });

  test("refuses an example without a label, by its row, and bad options", async () => {
    const bad = [...EXAMPLES, { text: "x", row: 4 }];
    await expectError(() => collect(bad), "ERR_DATA_COLUMN", "Row 4");
    await expectError(() => collect(EXAMPLES, { batchsize: 2 }), "ERR_OPTION", '"batchSize"');
    await expectError(() => collect(EXAMPLES, { batchSize: 0 }), "ERR_OPTION", ">= 1");
  });
});
