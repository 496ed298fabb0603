import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { Tokenizer } from "../../../lib/text/tokenizer.js";
import { BERT, folder, ROBERTA, WORDS } from "./helpers.js";

type Files = Parameters<typeof folder>[0];

const load = (files: Files) => Tokenizer.fromPretrained(folder(files));

async function expectError(files: Files, code: string, message: RegExp): Promise<void> {
  const dir = folder(files);
  const error = await Tokenizer.fromPretrained(dir).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toMatchObject({ name: "LokoError", code });
  expect((error as Error).message).toMatch(message);
  // Which file it was.
  expect((error as Error).message).toContain(dir);
}

/** A deep copy with one change. */
function changed<T extends object>(json: T, change: (copy: T) => void): T {
  const copy = structuredClone(json);
  change(copy);
  return copy;
}

describe("a folder", () => {
  test("without a tokenizer says how to write one", async () => {
    await expectError({ "config.json": {} }, "ERR_TOKENIZER", /tokenizer\.save_pretrained\(dir\)/);
    await expectError({ "vocab.json": {} }, "ERR_TOKENIZER", /must be merges\.txt/);
    await expectError({ "merges.txt": "" }, "ERR_TOKENIZER", /no tokenizer here/);
  });

  test("that is not there, or is a file, is ERR_FILE_NOT_FOUND", async () => {
    const dir = folder({ "tokenizer.json": BERT });
    for (const path of [join(dir, "none"), join(dir, "tokenizer.json"), "", "a\0b"]) {
      await expect(Tokenizer.fromPretrained(path)).rejects.toMatchObject({
        code: "ERR_FILE_NOT_FOUND",
      });
    }
    await expect(Tokenizer.fromPretrained(1 as never)).rejects.toMatchObject({
      code: "ERR_INPUT_TYPE",
    });
  });

  test("in which tokenizer.json is a folder, or too large, is ERR_FILE_READ", async () => {
    const dir = folder({});
    mkdirSync(join(dir, "tokenizer.json"));
    await expect(Tokenizer.fromPretrained(dir)).rejects.toMatchObject({ code: "ERR_FILE_READ" });
    const large = new Uint8Array(64 * 1024 * 1024 + 1);
    await expectError({ "tokenizer.json": large }, "ERR_FILE_READ", /at most 67108864 bytes/);
  });
});

test("a byte order mark is accepted in every file", async () => {
  const mark = "\ufeff";
  const bert = await load({
    "tokenizer.json": mark + JSON.stringify(BERT),
    "tokenizer_config.json": `${mark}{"model_max_length":8}`,
    "special_tokens_map.json": `${mark}{"pad_token":"c"}`,
  });
  expect([bert.maxLength, bert.padTokenId]).toEqual([8, 7]);
  const words = await load({
    "vocab.txt": `${mark}${WORDS.join("\n")}`,
    "config.json": `${mark}{"model_type":"bert"}`,
  });
  expect([...words.encode("hello worlds").inputIds]).toEqual([2, 8, 9, 10, 3]);
});

test.each<[string, string | Uint8Array, RegExp]>([
  ["an empty file", "", /expected a JSON object: Unexpected end/],
  ["half a file", JSON.stringify(BERT).slice(0, 500), /expected a JSON object: /],
  ["a list", "[]", /expected a JSON object, got an array of 0/],
  ["null", "null", /expected a JSON object, got null/],
  ["invalid UTF-8", Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x7d), /expected UTF-8/],
  ["a Git LFS pointer", "version https://git-lfs.github.com/spec/v1\n", /expected a JSON object/],
])("%s is no tokenizer.json", async (_, content, message) => {
  await expectError({ "tokenizer.json": content }, "ERR_TOKENIZER", message);
  await expectError(
    { "tokenizer.json": BERT, "tokenizer_config.json": content },
    "ERR_TOKENIZER",
    message,
  );
});

describe("tokenizer.json", () => {
  const cases: [string, object, RegExp][] = [
    ["no model", { ...BERT, model: undefined }, /"model" must be a JSON object, got undefined/],
    [
      "a Unigram model",
      { ...BERT, model: { type: "Unigram", vocab: [] } },
      /model "Unigram" is not/,
    ],
    ["a WordLevel model", { ...BERT, model: { type: "WordLevel" } }, /model "WordLevel" is not/],
    ["a model without type", { ...BERT, model: { vocab: {} } }, /model undefined is not supported/],
    ["an unknown normalizer", { ...BERT, normalizer: { type: "Nmt" } }, /normalizer "Nmt" is not/],
    [
      "a normalizer with a regular expression",
      { ...BERT, normalizer: { type: "Replace", pattern: { Regex: "[a&&b]" }, content: "" } },
      /normalizer "Replace" is not supported; expected one of BertNormalizer, NFC/,
    ],
    [
      "an unknown stage in a sequence",
      { ...BERT, normalizer: { type: "Sequence", normalizers: [{ type: "Precompiled" }] } },
      /normalizer "Precompiled" is not supported/,
    ],
    [
      "an unknown pre-tokenizer",
      { ...BERT, pre_tokenizer: { type: "Metaspace" } },
      /pre-tokenizer "Metaspace" is not supported; expected one of BertPreTokenizer, ByteLevel/,
    ],
    [
      "a pre-tokenizer with a regular expression",
      { ...BERT, pre_tokenizer: { type: "Split", pattern: { Regex: "\\G(?i:a)" } } },
      /pre-tokenizer "Split" is not supported/,
    ],
    [
      "another behaviour of Punctuation",
      { ...BERT, pre_tokenizer: { type: "Punctuation", behavior: "Contiguous" } },
      /"pre_tokenizer.behavior" must be one of "Isolated", got "Contiguous"/,
    ],
    [
      "a stage of the wrong type",
      { ...BERT, normalizer: { type: "BertNormalizer", lowercase: "yes" } },
      /"normalizer.lowercase" must be true or false, got "yes"/,
    ],
    [
      "a post-processor that is unknown",
      { ...BERT, post_processor: { type: "Other" } },
      /post-processor "Other" is not supported/,
    ],
    [
      "an unknown token that is not in the vocabulary",
      changed(BERT, (json) => {
        json.model.unk_token = "<unk>";
      }),
      /"model.unk_token" must be in "model.vocab", and "<unk>" is not/,
    ],
    [
      "an id twice",
      changed(BERT, (json) => {
        json.model.vocab.hello = 9;
      }),
      /"hello" and "world" share the id 9/,
    ],
    [
      "an id left out",
      changed(BERT, (json) => {
        json.model.vocab.x = 18;
      }),
      /expected the ids 0 to 17 for 18 tokens, and no token has 17/,
    ],
    [
      "an id that is no id",
      changed(BERT, (json) => {
        json.model.vocab.x = -1;
      }),
      /"model.vocab.x" must be an integer in \[0, 16777215\], got -1/,
    ],
    [
      "no tokens",
      changed(BERT, (json) => {
        json.model.vocab = {};
      }),
      /"model.vocab" must be an object with at least one token/,
    ],
    [
      "an added token with another id than the vocabulary gives",
      changed(BERT, (json) => {
        json.added_tokens[0]!.id = 5;
      }),
      /"\[PAD\]" has the ids 0 and 5/,
    ],
    [
      "an empty added token",
      changed(BERT, (json) => {
        json.added_tokens[0]!.content = "";
      }),
      /"added_tokens\[0\].content" must be a string that is not empty, got ""/,
    ],
    [
      "a merge of an unknown token",
      changed(ROBERTA, (json) => {
        json.model.merges = ["Ġ a", "a z"];
      }),
      /"model.merges\[1\]" needs the token "z", which is not in "model.vocab"/,
    ],
    [
      "a merge that gives an unknown token",
      changed(ROBERTA, (json) => {
        json.model.merges = [["b", "a"]];
      }),
      /"model.merges\[0\]" needs the token "ba"/,
    ],
    [
      "a merge of three",
      changed(ROBERTA, (json) => {
        json.model.merges = ["a b c"];
      }),
      /"model.merges\[0\]" must be two tokens, "a b" or \["a", "b"\], got "a b c"/,
    ],
    [
      "dropout",
      changed(ROBERTA, (json) => {
        json.model.dropout = 0.1;
      }),
      /"model.dropout" must be 0 or null; no other is supported, for it makes token ids random, got 0.1/,
    ],
    [
      "a continuing prefix of BPE",
      changed(ROBERTA, (json) => {
        json.model.continuing_subword_prefix = "##";
      }),
      /"model.continuing_subword_prefix" must be ""/,
    ],
    [
      "a special token of a template that is not defined",
      changed(BERT, (json) => {
        Object.assign(json.post_processor!, { special_tokens: {} });
      }),
      /"post_processor.special_tokens.\[CLS\]" must be a JSON object, got undefined/,
    ],
    [
      "a special token with an id outside the vocabulary",
      {
        ...BERT,
        post_processor: { type: "BertProcessing", cls: ["[CLS]", 99], sep: ["[SEP]", 3] },
      },
      /"post_processor.cls" must be a token and its id in \[0, 18\)/,
    ],
    [
      "a template without the second text",
      changed(BERT, (json) => {
        Object.assign(json.post_processor!, { pair: [{ Sequence: { id: "A", type_id: 0 } }] });
      }),
      /"post_processor.pair" must be a template with A and B once each/,
    ],
    [
      "two templates",
      {
        ...BERT,
        post_processor: {
          type: "Sequence",
          processors: [BERT.post_processor, BERT.post_processor],
        },
      },
      /"post_processor.processors" must be a list with one template/,
    ],
  ];
  test.each(cases)("with %s is refused by name", async (_, json, message) => {
    await expectError({ "tokenizer.json": json }, "ERR_TOKENIZER", message);
  });

  test("nested without end is refused", async () => {
    const nested = '{"type":"Sequence","normalizers":[';
    const text = `${nested.repeat(20_000)}${"]}".repeat(20_000)}`;
    const json = JSON.stringify({ ...BERT, normalizer: 0 }).replace('"normalizer":0', () => {
      return `"normalizer":${text}`;
    });
    await expectError({ "tokenizer.json": json }, "ERR_TOKENIZER", /nested more than 16 deep/);
  });

  test("of an old version, with merges as strings and without types, is read", async () => {
    const { type: _, ...model } = { ...ROBERTA.model, merges: ["Ġ a", "a b"] };
    const old = await load({ "tokenizer.json": { ...ROBERTA, model } });
    expect([...old.encode("ab a").inputIds]).toEqual([0, 9, 8, 2]);
    const { type: __, ...wordPiece } = BERT.model;
    const bert = await load({ "tokenizer.json": { ...BERT, model: wordPiece } });
    expect([...bert.encode("hello").inputIds]).toEqual([2, 8, 3]);
  });

  test("may have keys like those of JavaScript's objects", async () => {
    const json = JSON.stringify(BERT).replace('"x":17', '"__proto__":17,"constructor":18');
    const tokenizer = await load({ "tokenizer.json": json });
    expect([...tokenizer.encode("constructor toString").inputIds]).toEqual([2, 18, 1, 3]);
  });
});

describe("tokenizer_config.json", () => {
  test.each<[object, RegExp]>([
    [{ model_max_length: "512" }, /"model_max_length" must be an integer in \[1, 1000000000\]/],
    [{ model_max_length: 0.5 }, /"model_max_length" must be an integer/],
    [{ padding_side: "middle" }, /"padding_side" must be one of "left", "right", got "middle"/],
    [{ truncation_side: 1 }, /"truncation_side" must be one of/],
    [{ pad_token: 3 }, /"pad_token" must be a string, got 3/],
    [{ pad_token: { text: "a" } }, /"pad_token.content" must be a string, got nothing/],
    [{ pad_token: "zebra" }, /"pad_token" "zebra" is not in the vocabulary/],
    [{ do_lower_case: 1 }, /must be true or false, got 1/],
    [{ model_input_names: "input_ids" }, /"model_input_names" must be a list/],
  ])("%j is refused", async (config, message) => {
    await expectError(
      { "tokenizer.json": BERT, "tokenizer_config.json": config },
      "ERR_TOKENIZER",
      message,
    );
  });
});

describe("vocabulary files", () => {
  const vocab = WORDS.join("\n");

  test("need the kind of tokenizer", async () => {
    await expectError({ "vocab.txt": vocab }, "ERR_TOKENIZER", /cannot tell .* neither/);
    await expectError(
      { "vocab.txt": vocab, "tokenizer_config.json": { tokenizer_class: "BertJapaneseTokenizer" } },
      "ERR_TOKENIZER",
      /tokenizer_class is "BertJapaneseTokenizer"/,
    );
    await expectError(
      { "vocab.txt": vocab, "config.json": { model_type: "electra" } },
      "ERR_TOKENIZER",
      /model_type is "electra"/,
    );
    await expectError(
      { "vocab.txt": vocab, "config.json": { model_type: "roberta" } },
      "ERR_TOKENIZER",
      /a roberta tokenizer needs tokenizer.json or vocab.json and merges.txt/,
    );
  });

  test("take BERT's defaults, and line ends of any kind", async () => {
    const tokenizer = await load({
      "vocab.txt": `${WORDS.join("\r\n")}\r\n\r\n`,
      "config.json": { model_type: "bert" },
    });
    // Lower case and without accents.
    expect([...tokenizer.encode("A É [MASK]").inputIds]).toEqual([2, 5, 13, 4, 3]);
    expect([tokenizer.padTokenId, tokenizer.usesTokenTypes]).toEqual([0, true]);
  });

  test("take added tokens from the configuration and from added_tokens.json", async () => {
    const config = {
      tokenizer_class: "BertTokenizer",
      added_tokens_decoder: { 18: { content: "<new>", lstrip: true, special: true } },
    };
    const tokenizer = await load({
      "vocab.txt": vocab,
      "tokenizer_config.json": config,
      "added_tokens.json": { "<old>": 19 },
    });
    expect([...tokenizer.encode("a <new>b<old>").inputIds]).toEqual([2, 5, 18, 6, 19, 3]);
  });

  test("with a token twice, or without a special token, are refused", async () => {
    const config = { "config.json": { model_type: "bert" } };
    await expectError(
      { ...config, "vocab.txt": `${vocab}\nhello` },
      "ERR_TOKENIZER",
      /line 19 repeats the token "hello" of line 9/,
    );
    await expectError(
      { ...config, "vocab.txt": vocab.replace("[SEP]", "sep") },
      "ERR_TOKENIZER",
      /expected the sep_token "\[SEP\]" in the vocabulary/,
    );
    await expectError({ ...config, "vocab.txt": "" }, "ERR_TOKENIZER", /expected the unk_token/);
  });

  test("of RoBERTa are read, and bad merges named", async () => {
    const files = { "vocab.json": ROBERTA.model.vocab, "config.json": { model_type: "roberta" } };
    const merges = "#version: 0.2\nĠ a\na b\n";
    const tokenizer = await load({ ...files, "merges.txt": merges });
    expect([...tokenizer.encode("ab a", "").inputIds]).toEqual([0, 9, 8, 2, 2, 2]);
    await expectError(
      { ...files, "merges.txt": `${merges}a\n` },
      "ERR_TOKENIZER",
      /merges.txt: line 4 must be two tokens, "a b", got "a"/,
    );
    await expectError(
      { ...files, "merges.txt": `${merges}a q\n` },
      "ERR_TOKENIZER",
      /needs the token "q"/,
    );
    await expectError(
      { ...files, "vocab.json": { "<s>": 0 }, "merges.txt": merges },
      "ERR_TOKENIZER",
      /vocab.json: expected the eos_token "<\/s>" in the vocabulary/,
    );
  });
});
