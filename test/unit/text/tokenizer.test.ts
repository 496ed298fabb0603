import { describe, expect, test } from "vitest";
import { Tokenizer, type TokenizerOptions } from "../../../lib/text/tokenizer.js";
import { BERT, folder, ROBERTA } from "./helpers.js";

function bert(config: object = {}, options?: TokenizerOptions): Promise<Tokenizer> {
  return Tokenizer.fromPretrained(
    folder({ "tokenizer.json": BERT, "tokenizer_config.json": config }),
    options,
  );
}

function roberta(): Promise<Tokenizer> {
  return Tokenizer.fromPretrained(folder({ "tokenizer.json": ROBERTA }));
}

const code = (name: string) => expect.objectContaining({ name: "LokoError", code: name });

describe("one text", () => {
  test("an empty second text is a second text, and none is none", async () => {
    const tokenizer = await bert();
    expect(tokenizer.encode("a")).toEqual({
      inputIds: Int32Array.of(2, 5, 3),
      tokenTypeIds: Int32Array.of(0, 0, 0),
    });
    expect(tokenizer.encode("a", "")).toEqual({
      inputIds: Int32Array.of(2, 5, 3, 3),
      tokenTypeIds: Int32Array.of(0, 0, 0, 1),
    });
    expect([...tokenizer.encode("", "").inputIds]).toEqual([2, 3, 3]);
    expect(tokenizer.encode("a", undefined)).toEqual(tokenizer.encode("a"));
  });

  test("RoBERTa's pair has two separators and no token types", async () => {
    const encoding = (await roberta()).encode("a", "b");
    expect([...encoding.inputIds]).toEqual([0, 5, 2, 2, 6, 2]);
    expect(encoding).not.toHaveProperty("tokenTypeIds");
  });

  test("a token of the text is cut, a special one never", async () => {
    const tokenizer = await bert();
    const ids = (maxLength: number) => [
      ...tokenizer.encode("a b c hello", undefined, { maxLength }).inputIds,
    ];
    expect(ids(6)).toEqual([2, 5, 6, 7, 8, 3]);
    expect(ids(4)).toEqual([2, 5, 6, 3]);
    expect(ids(2)).toEqual([2, 3]);
    expect(() => ids(1)).toThrow(code("ERR_OPTION"));
  });

  test("the longer text gives way first, then both", async () => {
    const tokenizer = await bert();
    const encode = (text: string, pair: string, maxLength: number, truncation?: "only_first") => [
      ...tokenizer.encode(text, pair, { maxLength, truncation }).inputIds,
    ];
    expect(encode("a b c", "x", 6)).toEqual([2, 5, 6, 3, 17, 3]);
    expect(encode("x", "a b c", 6)).toEqual([2, 17, 3, 5, 6, 3]);
    expect(encode("a a", "b b", 6)).toEqual([2, 5, 3, 6, 6, 3]);
    expect(encode("a b c", "x", 6, "only_first")).toEqual([2, 5, 6, 3, 17, 3]);
  });

  test("of two texts with more than maxLength tokens, Python compares what it has read of them", async () => {
    const tokenizer = await bert();
    // Kept of both, as tokenizers 0.23 gives it: reading stops at a word, but not at an added token.
    const kept = (text: string, pair: string, maxLength: number) => {
      const types = [...tokenizer.encode(text, pair, { maxLength }).tokenTypeIds!];
      const second = types.filter((type) => type === 1).length - 1;
      return [maxLength - 3 - second, second];
    };
    expect(kept("a a a a", "b b b", 4)).toEqual([1, 0]);
    expect(kept("a a a a a", "b b b b", 4)).toEqual([0, 1]);
    expect(kept("[SEP]".repeat(5), "b b b b", 4)).toEqual([1, 0]);
    expect(kept("a a a a [SEP]", "b b b b", 4)).toEqual([0, 1]);
    expect(kept("a a a [SEP] a a", "b b b b", 4)).toEqual([1, 0]);
  });

  test("truncation that cannot make room says so", async () => {
    const tokenizer = await bert();
    expect(() =>
      tokenizer.encode("a", "b b b b", { maxLength: 6, truncation: "only_first" }),
    ).toThrow(code("ERR_SEQUENCE_LENGTH"));
    expect(() =>
      tokenizer.encode("a b c", undefined, { maxLength: 4, truncation: "only_second" }),
    ).toThrow(/no second text/);
  });

  test("without truncation nothing is cut", async () => {
    const tokenizer = await bert({ model_max_length: 4 });
    expect(tokenizer.encode("a b c").inputIds).toHaveLength(4);
    expect(tokenizer.encode("a b c", undefined, { truncation: false }).inputIds).toHaveLength(5);
  });

  test("half a surrogate pair counts as U+FFFD", async () => {
    // BERT drops U+FFFD; the bytes of U+FFFD are not in this vocabulary of RoBERTa's.
    expect([...(await bert()).encode("a\ud800b").inputIds]).toEqual([2, 1, 3]);
    const json = structuredClone(ROBERTA);
    Object.assign(json.model.vocab, { ï: 12, "¿": 13, "½": 14 });
    const tokenizer = await Tokenizer.fromPretrained(folder({ "tokenizer.json": json }));
    expect([...tokenizer.encode("a\udfff").inputIds]).toEqual([0, 5, 12, 13, 14, 2]);
  });

  test("a control character inside a special token keeps it from being one", async () => {
    // @huggingface/tokenizers takes "[C\\0LS]" for [CLS].
    expect([...(await bert()).encode("[CLS] [C\0LS]").inputIds]).toEqual([2, 2, 1, 1, 1, 3]);
  });

  test("a sigma at the end of a word is the same sigma, and rare ideographs are words", async () => {
    const lower = await bert({ do_lower_case: true });
    expect([...lower.encode("Σ xΣ").inputIds].slice(0, 2)).toEqual([2, 16]);
    // U+20000, unknown, between two that are known.
    expect([...lower.encode("中\u{20000}国").inputIds]).toEqual([2, 14, 1, 15, 3]);
  });

  test("bytes that a vocabulary without an unknown token lacks are dropped before merging", async () => {
    // Python: merges look at what is left, so "a?b" becomes "ab" (pre-split only by its regex).
    const json = structuredClone(ROBERTA);
    json.pre_tokenizer.use_regex = false;
    const tokenizer = await Tokenizer.fromPretrained(folder({ "tokenizer.json": json }));
    expect([...tokenizer.encode("a?b").inputIds]).toEqual([0, 9, 2]);
    expect([...tokenizer.encode("?").inputIds]).toEqual([0, 2]);
  });

  test.each([[undefined], [null], [1], [Buffer.from("a")], [["a"]], [new String("a")]])(
    "%o is no text",
    async (text) => {
      const tokenizer = await bert();
      expect(() => tokenizer.encode(text as string)).toThrow(code("ERR_INPUT_TYPE"));
      if (text !== undefined) {
        expect(() => tokenizer.encode("a", text as string)).toThrow(/^pair must be a string, got/);
      }
    },
  );

  test("a text of a million characters takes seconds, a longer one is refused", async () => {
    for (const tokenizer of [await bert(), await roberta()]) {
      for (const unit of ["a", " ", "é", "[SEP]<s> "]) {
        const text = unit.repeat(Math.floor(2 ** 20 / unit.length));
        expect(tokenizer.encode(text, undefined, { maxLength: 8 }).inputIds.length).toBeLessThan(9);
      }
      expect(() => tokenizer.encode("a".repeat(2 ** 20 + 1))).toThrow(code("ERR_SEQUENCE_LENGTH"));
    }
  });

  test("a million tokens fit on the stack", async () => {
    const ids = (await bert()).encode("a ".repeat(2 ** 19), undefined, {
      truncation: false,
    }).inputIds;
    expect(ids).toHaveLength(2 ** 19 + 2);
  });

  test("marks without end are refused, because sorting them would take minutes", async () => {
    const tokenizer = await bert({ strip_accents: true });
    const marks = "\u0301\u0316";
    expect([...tokenizer.encode(`e${marks.repeat(2048)}`).inputIds]).toEqual([2, 13, 3]);
    expect(() => tokenizer.encode(`e${marks.repeat(2049)}`)).toThrow(/combining marks in a row/);
  });
});

describe("a batch", () => {
  test("is filled to the longest, with a mask", async () => {
    const batch = (await bert()).batch(["a", ["b", "c"], ""]);
    expect(batch).toEqual({
      inputIds: Int32Array.of(2, 5, 3, 0, 0, 2, 6, 3, 7, 3, 2, 3, 0, 0, 0),
      attentionMask: Int32Array.of(1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0),
      tokenTypeIds: Int32Array.of(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0),
      shape: [3, 5],
    });
  });

  test("RoBERTa's is filled with 1 and has no token types", async () => {
    const batch = (await roberta()).batch(["a", "a b"]);
    expect(batch).toEqual({
      inputIds: Int32Array.of(0, 5, 2, 1, 1, 0, 5, 7, 6, 2),
      attentionMask: Int32Array.of(1, 1, 1, 0, 0, 1, 1, 1, 1, 1),
      shape: [2, 5],
    });
  });

  test("can be filled at the left, with the type of the configuration", async () => {
    const tokenizer = await bert({ padding_side: "left", pad_token_type_id: 1 });
    const { inputIds, tokenTypeIds } = tokenizer.batch(["a", "a b"]);
    expect([...inputIds]).toEqual([0, 2, 5, 3, 2, 5, 6, 3]);
    expect([...tokenTypeIds!]).toEqual([1, 0, 0, 0, 0, 0, 0, 0]);
  });

  test("can be cut at the left", async () => {
    const tokenizer = await bert({ truncation_side: "left" });
    expect([...tokenizer.batch(["a b c"], { maxLength: 4 }).inputIds]).toEqual([2, 6, 7, 3]);
  });

  test("is filled to maxLength, and to a multiple", async () => {
    const tokenizer = await bert();
    const width = (options: object) => tokenizer.batch(["a b", "a"], options).shape[1];
    expect(width({})).toBe(4);
    expect(width({ padToMultipleOf: 8 })).toBe(8);
    expect(width({ padding: "max_length", maxLength: 12 })).toBe(12);
    expect(width({ padding: "max_length", maxLength: 12, padToMultipleOf: 8 })).toBe(16);
    expect(() => width({ padding: "max_length" })).toThrow(code("ERR_OPTION"));
  });

  test("without padding takes texts of equal length only", async () => {
    const tokenizer = await bert();
    expect(tokenizer.batch(["a", "b"], { padding: false }).shape).toEqual([2, 3]);
    expect(() => tokenizer.batch(["a", "b c"], { padding: false })).toThrow(
      /equally many tokens, got 3 for texts\[0\] and 4 for texts\[1\]/,
    );
  });

  test("of no texts, of no array, of triples is refused", async () => {
    const tokenizer = await bert();
    expect(() => tokenizer.batch([])).toThrow(code("ERR_SHAPE_MISMATCH"));
    expect(() => tokenizer.batch("a" as never)).toThrow(code("ERR_INPUT_TYPE"));
    expect(() => tokenizer.batch(new Array(2))).toThrow(/^texts\[0\] must be a string/);
    expect(() => tokenizer.batch([["a", "b", "c"]] as never)).toThrow(
      /^texts\[0\] must be a string/,
    );
    expect(() => tokenizer.batch(["a", ["b", 1]] as never)).toThrow(/^texts\[1\]\[1\] must be/);
  });

  test("larger than memory has a code", async () => {
    const tokenizer = await bert();
    const texts = Array(1000).fill("a");
    expect(() => tokenizer.batch(texts, { padding: "max_length", maxLength: 1e9 })).toThrow(
      code("ERR_OUT_OF_MEMORY"),
    );
  });

  test("names an option that it does not know or cannot use", async () => {
    const tokenizer = await bert();
    const bad: object[] = [
      { maxlength: 3 },
      { maxLength: 0 },
      { maxLength: 1.5 },
      { truncation: true },
      { truncation: "longest" },
      { padding: true },
      { padToMultipleOf: 0 },
    ];
    for (const options of bad) {
      expect(() => tokenizer.batch(["a"], options)).toThrow(code("ERR_OPTION"));
    }
    expect(() => tokenizer.encode("a", undefined, { padding: "longest" } as never)).toThrow(
      code("ERR_OPTION"),
    );
  });

  test("needs a padding token only where something is filled", async () => {
    const json = structuredClone(BERT);
    json.model.vocab = Object.fromEntries(
      Object.entries(json.model.vocab).map(([token, id]) => [
        token === "[PAD]" ? "none" : token,
        id,
      ]),
    );
    json.added_tokens.shift();
    const tokenizer = await Tokenizer.fromPretrained(folder({ "tokenizer.json": json }));
    expect(tokenizer.padTokenId).toBeUndefined();
    expect(tokenizer.batch(["a", "b"]).shape).toEqual([2, 3]);
    expect(() => tokenizer.batch(["a", "b c"])).toThrow(code("ERR_TOKENIZER"));
  });
});

describe("the configuration", () => {
  test("gives the length, and the smaller of tokenizer and model wins", async () => {
    const limit = async (config: object, options?: TokenizerOptions) =>
      (await bert(config, options)).maxLength;
    expect(await limit({})).toBeUndefined();
    expect(await limit({ model_max_length: 512 })).toBe(512);
    expect(await limit({ model_max_length: 1e30 })).toBeUndefined();
    expect(await limit({ model_max_length: 512 }, { maxLength: 64 })).toBe(64);
    expect(await limit({ model_max_length: 32 }, { maxLength: 64 })).toBe(32);
    expect(await limit({ model_max_length: 1e30 }, { maxLength: 64 })).toBe(64);
    await expect(limit({ model_max_length: 0 })).rejects.toThrow(code("ERR_TOKENIZER"));
    await expect(limit({}, { maxLength: 0 })).rejects.toThrow(code("ERR_OPTION"));
    await expect(limit({}, { max_length: 1 } as never)).rejects.toThrow(code("ERR_OPTION"));
  });

  test("wins over tokenizer.json where transformers lets it, for its own classes", async () => {
    const ids = async (config: object) => [...(await bert(config)).encode("A é中国").inputIds];
    expect(await ids({})).toEqual([2, 11, 12, 14, 15, 3]);
    expect(await ids({ do_lower_case: true })).toEqual([2, 5, 13, 14, 15, 3]);
    expect(await ids({ do_lower_case: true, strip_accents: false })).toEqual([2, 5, 12, 14, 15, 3]);
    expect(await ids({ tokenize_chinese_chars: false })).toEqual([2, 11, 1, 3]);
    expect(await ids({ do_lower_case: true, tokenizer_class: "PreTrainedTokenizerFast" })).toEqual(
      await ids({}),
    );
    const prefixed = await Tokenizer.fromPretrained(
      folder({
        "tokenizer.json": ROBERTA,
        "tokenizer_config.json": { add_prefix_space: true, tokenizer_class: "RobertaTokenizer" },
      }),
    );
    expect([...prefixed.encode("a").inputIds]).toEqual([0, 8, 2]);
  });

  test("names the padding token, as a string or an object, or special_tokens_map.json does", async () => {
    expect((await bert()).padTokenId).toBe(0);
    expect((await bert({ pad_token: "x" })).padTokenId).toBe(17);
    expect((await bert({ pad_token: { content: "x" } })).padTokenId).toBe(17);
    const dir = folder({ "tokenizer.json": BERT, "special_tokens_map.json": { pad_token: "c" } });
    expect((await Tokenizer.fromPretrained(dir)).padTokenId).toBe(7);
    await expect(bert({ pad_token: "zebra" })).rejects.toThrow(code("ERR_TOKENIZER"));
  });

  test("says whether there are token types", async () => {
    const uses = async (config: object) => (await bert(config)).usesTokenTypes;
    expect(await uses({})).toBe(true);
    expect(await uses({ model_input_names: ["input_ids", "attention_mask"] })).toBe(false);
    expect(await uses({ tokenizer_class: "RobertaTokenizerFast" })).toBe(false);
  });
});

test("1,000 sentences do not take three times as long as with the library alone", async () => {
  const tokenizer = await bert();
  const { Tokenizer: Library } = (await import("@huggingface/tokenizers")) as never as {
    Tokenizer: new (json: object, config: object) => { encode(text: string): { ids: number[] } };
  };
  const library = new Library(BERT, {});
  const sentences = Array.from({ length: 1000 }, (_, i) => `hello worlds, a b c ${i} `.repeat(8));
  const time = (work: () => void) => {
    const start = performance.now();
    work();
    return performance.now() - start;
  };
  const times = [0, 1, 2].map(() => [
    time(() => tokenizer.batch(sentences)),
    time(() => sentences.map((text) => library.encode(text))),
  ]);
  const best = (which: number) => Math.min(...times.map((pair) => pair[which]!));
  expect(best(0)).toBeLessThan(3 * best(1));
});
