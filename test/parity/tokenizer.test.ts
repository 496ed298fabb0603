// Token ids against Python's tokenizers 0.23 and transformers 5.18 (test/fixtures/make_tokenizers.py).
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { crc32, gunzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { LokoError } from "../../lib/errors.js";
import { Section } from "../../lib/text/section.js";
import { readNormalizer, readPreTokenizer } from "../../lib/text/stages.js";
import { type BatchOptions, type TextOrPair, Tokenizer } from "../../lib/text/tokenizer.js";
import type { Truncation } from "../../lib/text/truncate.js";
import { FIXTURES } from "./fixtures.js";

const DIR = join(FIXTURES, "tokenizers");

function readGzip<T>(name: string): T {
  return JSON.parse(gunzipSync(readFileSync(join(DIR, name))).toString("utf8")) as T;
}

interface ExpectedBatch {
  /** Indices into the texts, -1 for an empty text; two for a pair. */
  rows: number[][];
  options: BatchOptions;
  ids: number[][];
  types: number[][];
  mask: string[];
}

/** Tokens of both texts (-1: no second), maxLength, and the tokens kept of both, or an error. */
type KeptLengths = [first: number, second: number, maxLength: number, kept: number[] | null];

interface Expected {
  /** Every how many-th text was encoded. */
  step: number;
  ids: number[][];
  batches: ExpectedBatch[];
  lengths: Record<Exclude<Truncation, false>, KeptLengths[]>;
}

const texts = readGzip<string[]>("texts.json.gz");
const expected = readGzip<Record<string, Expected>>("expected.json.gz");
const cases = Object.keys(expected);

test("there are more than 5,000 texts", () => {
  expect(texts.length).toBeGreaterThan(5000);
  expect(cases).toHaveLength(7);
});

test.each(cases)("%s: every text has the token ids of Python", async (name) => {
  const tokenizer = await Tokenizer.fromPretrained(join(DIR, name));
  const { step, ids } = expected[name]!;
  const chosen = texts.filter((_, i) => i % step === 0);
  expect(ids).toHaveLength(chosen.length);
  const different = chosen.flatMap((text, i) => {
    const { inputIds } = tokenizer.encode(text, undefined, { truncation: false });
    return String(inputIds) === String(ids[i]) ? [] : [{ text, got: inputIds, want: ids[i] }];
  });
  expect(different).toEqual([]);
});

test.each(cases)("%s: batches of texts and pairs are cut and filled as in Python", async (name) => {
  const tokenizer = await Tokenizer.fromPretrained(join(DIR, name));
  for (const { rows, options, ids, types, mask } of expected[name]!.batches) {
    const inputs = rows.map((row): TextOrPair => {
      const [text = "", pair] = row.map((index) => (index < 0 ? "" : texts[index]!));
      return pair === undefined ? text : [text, pair];
    });
    const batch = tokenizer.batch(inputs, options);
    expect(batch.shape).toEqual([rows.length, ids[0]!.length]);
    expect([...batch.inputIds]).toEqual(ids.flat());
    expect([...batch.attentionMask!].join("")).toBe(mask.join(""));
    if (tokenizer.usesTokenTypes) expect([...batch.tokenTypeIds!]).toEqual(types.flat());
    else expect(batch.tokenTypeIds).toBeUndefined();
  }
});

test.each(cases)("%s: pairs of all lengths keep as many tokens as in Python", async (name) => {
  const tokenizer = await Tokenizer.fromPretrained(join(DIR, name));
  const [good, movie] = [" good", " movie"].map((word) => tokenizer.encode(word).inputIds[1]!);
  for (const [truncation, rows] of Object.entries(expected[name]!.lengths)) {
    for (const [first, second, maxLength, kept] of rows) {
      const encode = () =>
        tokenizer.encode(" good".repeat(first), second < 0 ? undefined : " movie".repeat(second), {
          maxLength,
          truncation: truncation as Truncation,
        });
      const label = `${truncation} ${first} ${second} ${maxLength}`;
      if (kept === null) {
        expect(encode, label).toThrow(LokoError);
        continue;
      }
      const ids = [...encode().inputIds];
      const count = (id: number) => ids.filter((other) => other === id).length;
      expect([count(good!), count(movie!)], label).toEqual(kept);
    }
  }
});

test("RoBERTa has no token types, BERT 0 and 1", async () => {
  const uses = await Promise.all(
    cases.map(async (name) => (await Tokenizer.fromPretrained(join(DIR, name))).usesTokenTypes),
  );
  expect(Object.fromEntries(cases.map((name, i) => [name, uses[i]]))).toEqual({
    "bert-uncased": true,
    "bert-cased-vocab": true,
    "bert-accents-vocab": true,
    roberta: false,
    "roberta-prefix-vocab": false,
    "wordpiece-stages": true,
    "bpe-unknown": false,
  });
});

type Stage = Record<"normalizer" | "pre_tokenizer", object> & { checksums: number[] };

const stages = readGzip<Record<string, Stage>>("stages.json.gz");

// Over all assigned code points, and before any vocabulary that would make most of them unknown.
test.each(Object.keys(stages))("%s rewrites and splits as in Python", (name) => {
  const { checksums, ...config } = stages[name]!;
  const section = Section.of(config, "stages.json.gz");
  const normalize = readNormalizer(section);
  const split =
    config.normalizer === undefined ? readPreTokenizer(section) : (text: string) => [text];
  const different = checksums.flatMap((checksum, group) => {
    const some = texts.slice(group * 8, group * 8 + 8);
    const words = some.flatMap((text) => split(normalize(text)).map((word) => `${word}\u{e0000}`));
    return crc32(words.join("")) === checksum ? [] : [some];
  });
  expect(different).toEqual([]);
});
