// Mutated tokenizer files: each must give a tokenizer that works, or a LokoError.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { LokoError } from "../../../lib/errors.js";
import { parseJsonFile } from "../../../lib/text/files.js";
import { Pipeline } from "../../../lib/text/pipeline.js";
import { Tokenizer } from "../../../lib/text/tokenizer.js";
import { mutateBytes, mutateJson, Random } from "../io/mutate.js";
import { BERT, folder, ROBERTA, WORDS } from "./helpers.js";

const FIXTURES = fileURLToPath(new URL("../../fixtures/tokenizers/", import.meta.url));

const STAGES = {
  ...BERT,
  normalizer: {
    type: "Sequence",
    normalizers: [
      { type: "NFD" },
      { type: "StripAccents" },
      { type: "Strip", strip_left: true, strip_right: false },
      { type: "Lowercase" },
    ],
  },
  pre_tokenizer: {
    type: "Sequence",
    pretokenizers: [
      { type: "Whitespace" },
      { type: "Digits", individual_digits: true },
      { type: "Punctuation", behavior: "Isolated" },
    ],
  },
};

const BASES = [BERT, ROBERTA, STAGES].map((json) => JSON.stringify(json));

const TEXTS = [
  "",
  "a b",
  "hello worlds [SEP]",
  "é É\u0301 中国 \u{1f600}",
  "\ud800 <mask>ab?",
  "x".repeat(300),
];

const seeds = fc.integer();

function mutated(text: string, random: Random): string {
  let result = text;
  for (let changes = 1 + random.below(3); changes > 0; changes--) {
    result = mutateJson(result, random);
  }
  return result;
}

/** True for a tokenizer that works, false for one of our errors; anything else is thrown on. */
function outcome(work: () => void): boolean {
  try {
    work();
    return true;
  } catch (error) {
    if (error instanceof LokoError && error.code === "ERR_TOKENIZER") return false;
    throw error;
  }
}

test("any mutated tokenizer.json gives ids in its vocabulary, or ERR_TOKENIZER", () => {
  const counts = { good: 0, bad: 0 };
  fc.assert(
    fc.property(fc.constantFrom(...BASES), seeds, (base, seed) => {
      const works = outcome(() => {
        const text = mutated(base, new Random(seed));
        const pipeline = new Pipeline(parseJsonFile({ path: "fuzz.json", text }));
        for (const id of TEXTS.flatMap((some) => pipeline.encode(some))) {
          if (!(id >= 0 && id < pipeline.vocabulary.size)) throw new Error(`id ${id}`);
        }
      });
      counts[works ? "good" : "bad"]++;
    }),
    { numRuns: 10_000 },
  );
  // The mutations must reach the checks, and leave enough that pass them.
  expect(Math.min(counts.good, counts.bad)).toBeGreaterThan(1000);
});

test("any mutated files in a folder give a tokenizer that batches, or a LokoError", async () => {
  const json = (value: object) => (random: Random) => mutated(JSON.stringify(value), random);
  const bytes = (text: string) => (random: Random) => mutateBytes(Buffer.from(text), random);
  const config = {
    tokenizer_class: "BertTokenizer",
    do_lower_case: true,
    model_max_length: 16,
    padding_side: "left",
    pad_token: { content: "[PAD]" },
    added_tokens_decoder: { "18": { content: "<new>", lstrip: true, special: true } },
    model_input_names: ["input_ids", "token_type_ids"],
  };
  const sets: Record<string, (random: Random) => string | Uint8Array>[] = [
    { "tokenizer.json": () => BASES[0]!, "tokenizer_config.json": json(config) },
    { "tokenizer.json": bytes(BASES[1]!), "special_tokens_map.json": json({ pad_token: "<pad>" }) },
    { "vocab.txt": bytes(WORDS.join("\n")), "tokenizer_config.json": json(config) },
    {
      "vocab.json": json(ROBERTA.model.vocab),
      "merges.txt": bytes("#version: 0.2\nĠ a\na b\n"),
      "config.json": () => '{"model_type":"roberta"}',
    },
  ];
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...sets), seeds, async (set, seed) => {
      const random = new Random(seed);
      const files = Object.entries(set).map(([name, make]) => [name, make(random)]);
      try {
        const tokenizer = await Tokenizer.fromPretrained(folder(Object.fromEntries(files)));
        tokenizer.batch([...TEXTS, ["a", ""]], { maxLength: 12 });
      } catch (error) {
        if (!(error instanceof LokoError)) throw error;
      }
    }),
    { numRuns: 600 },
  );
});

test("any text, of any code units, gives what its well-formed text gives", async () => {
  const tokenizers = await Promise.all(
    ["bert-uncased", "roberta", "wordpiece-stages"].map((name) =>
      Tokenizer.fromPretrained(join(FIXTURES, name)),
    ),
  );
  const pool = JSON.parse(
    gunzipSync(readFileSync(join(FIXTURES, "texts.json.gz"))).toString("utf8"),
  ) as string[];
  const units = fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 40 });
  const raw = units.map((codes) => String.fromCharCode(...codes));
  fc.assert(
    fc.property(
      raw,
      fc.constantFrom(...pool),
      fc.integer({ min: 5, max: 40 }),
      (a, b, maxLength) => {
        for (const tokenizer of tokenizers) {
          const { inputIds } = tokenizer.encode(a + b, a, { maxLength });
          expect(inputIds.length).toBeLessThanOrEqual(maxLength);
          // The bytes of UTF-8 turn half pairs into U+FFFD.
          const wellFormed = (text: string) => Buffer.from(text).toString();
          expect(
            tokenizer.encode(wellFormed(a + b), wellFormed(a), { maxLength }).inputIds,
          ).toEqual(inputIds);
        }
      },
    ),
    { numRuns: 1000 },
  );
});
