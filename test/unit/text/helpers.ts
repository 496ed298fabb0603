import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";

/** A folder with these files, removed after the test; objects are written as JSON. */
export function folder(files: Record<string, string | Uint8Array | object>): string {
  const dir = mkdtempSync(join(tmpdir(), "loko-text-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  for (const [name, content] of Object.entries(files)) {
    const isPlain = typeof content === "string" || content instanceof Uint8Array;
    writeFileSync(join(dir, name), isPlain ? content : JSON.stringify(content));
  }
  return dir;
}

export const WORDS = [
  ...["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "hello", "world"],
  ...["##s", "A", "é", "e", "中", "国", "σ", "x"],
];

const bertVocab = Object.fromEntries(WORDS.map((token, id) => [token, id]));

/** A small tokenizer.json for BERT, cased. */
export const BERT = {
  version: "1.0",
  truncation: null,
  padding: null,
  added_tokens: WORDS.slice(0, 5).map((content, id) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  })),
  normalizer: {
    type: "BertNormalizer",
    clean_text: true,
    handle_chinese_chars: true,
    strip_accents: null as boolean | null,
    lowercase: false,
  },
  pre_tokenizer: { type: "BertPreTokenizer" } as object | null,
  post_processor: {
    type: "TemplateProcessing",
    single: [
      { SpecialToken: { id: "[CLS]", type_id: 0 } },
      { Sequence: { id: "A", type_id: 0 } },
      { SpecialToken: { id: "[SEP]", type_id: 0 } },
    ],
    pair: [
      { SpecialToken: { id: "[CLS]", type_id: 0 } },
      { Sequence: { id: "A", type_id: 0 } },
      { SpecialToken: { id: "[SEP]", type_id: 0 } },
      { Sequence: { id: "B", type_id: 1 } },
      { SpecialToken: { id: "[SEP]", type_id: 1 } },
    ],
    special_tokens: {
      "[CLS]": { id: "[CLS]", ids: [2], tokens: ["[CLS]"] },
      "[SEP]": { id: "[SEP]", ids: [3], tokens: ["[SEP]"] },
    },
  } as object | null,
  decoder: { type: "WordPiece", prefix: "##", cleanup: true },
  model: {
    type: "WordPiece",
    unk_token: "[UNK]",
    continuing_subword_prefix: "##",
    max_input_chars_per_word: 100,
    vocab: bertVocab,
  },
};

const ROBERTA_TOKENS = [
  "<s>",
  "<pad>",
  "</s>",
  "<unk>",
  "<mask>",
  "a",
  "b",
  "Ġ",
  "Ġa",
  "ab",
  "Ã",
  "©",
];

/** A small tokenizer.json for RoBERTa; its vocabulary lacks most bytes. */
export const ROBERTA = {
  version: "1.0",
  added_tokens: ROBERTA_TOKENS.slice(0, 5).map((content, id) => ({
    id,
    content,
    single_word: false,
    lstrip: content === "<mask>",
    rstrip: false,
    normalized: false,
    special: true,
  })),
  normalizer: null as object | null,
  pre_tokenizer: {
    type: "ByteLevel",
    add_prefix_space: false,
    trim_offsets: true,
    use_regex: true,
  },
  post_processor: { type: "RobertaProcessing", sep: ["</s>", 2], cls: ["<s>", 0] },
  decoder: { type: "ByteLevel" },
  model: {
    type: "BPE",
    dropout: null as number | null,
    unk_token: null as string | null,
    continuing_subword_prefix: "",
    end_of_word_suffix: "",
    fuse_unk: false,
    byte_fallback: false,
    ignore_merges: false,
    vocab: Object.fromEntries(ROBERTA_TOKENS.map((token, id) => [token, id])),
    merges: [
      ["Ġ", "a"],
      ["a", "b"],
    ] as unknown,
  },
};
