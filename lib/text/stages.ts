import { describe } from "../errors.js";
import { type Section, tokenizerError } from "./section.js";
import {
  BERT_WORDS,
  BYTE_LEVEL_WORDS,
  CHINESE,
  DIGITS,
  IGNORABLE,
  lowerCase,
  MARKS,
  NON_SPACING_MARKS,
  NOT_WHITE_SPACE,
  normalizeForm,
  PUNCTUATION,
  SINGLE_DIGITS,
  trimEnd,
  trimStart,
  WHITE_SPACE,
  WORDS,
} from "./unicode.js";

/** Rewrites a text before it is split, as the `normalizer` of a tokenizer.json says. */
export type Normalizer = (text: string) => string;

/** Splits a text into the words that the model then encodes each on its own. */
export type PreTokenizer = (text: string) => string[];

/** The files are hostile at worst, and a sequence may hold sequences. */
const MAX_DEPTH = 16;

type Reader<Stage> = (config: Section, depth: number) => Stage;

const NORMALIZERS: ReadonlyMap<string, Reader<Normalizer>> = new Map<string, Reader<Normalizer>>([
  ["BertNormalizer", readBertNormalizer],
  ["NFC", () => (text: string) => normalizeForm(text, "NFC")],
  ["NFD", () => (text: string) => normalizeForm(text, "NFD")],
  ["NFKC", () => (text: string) => normalizeForm(text, "NFKC")],
  ["NFKD", () => (text: string) => normalizeForm(text, "NFKD")],
  ["Lowercase", () => lowerCase],
  ["StripAccents", () => (text: string) => text.replace(MARKS, "")],
  ["Strip", readStrip],
  [
    "Sequence",
    (config, depth) => {
      const stages = config
        .sections("normalizers")
        .map((stage) => readStage(stage, "normalizer", NORMALIZERS, depth + 1));
      return (text) => stages.reduce((result, stage) => stage(result), text);
    },
  ],
]);

const PRE_TOKENIZERS: ReadonlyMap<string, Reader<PreTokenizer>> = new Map<
  string,
  Reader<PreTokenizer>
>([
  ["BertPreTokenizer", () => matchesOf(BERT_WORDS)],
  ["ByteLevel", readByteLevel],
  ["Whitespace", () => matchesOf(WORDS)],
  ["WhitespaceSplit", () => matchesOf(NOT_WHITE_SPACE)],
  ["Digits", (config) => matchesOf(config.boolean("individual_digits") ? SINGLE_DIGITS : DIGITS)],
  ["Punctuation", readPunctuation],
  [
    "Sequence",
    (config, depth) => {
      const stages = config
        .sections("pretokenizers")
        .map((stage) => readStage(stage, "pre-tokenizer", PRE_TOKENIZERS, depth + 1));
      return (text) => stages.reduce((words, stage) => words.flatMap(stage), [text]);
    },
  ],
]);

/** @throws LokoError ERR_TOKENIZER, also for a type that does not compute what Python computes. */
export function readNormalizer(tokenizer: Section): Normalizer {
  if (tokenizer.lacks("normalizer")) return (text) => text;
  return readStage(tokenizer.section("normalizer"), "normalizer", NORMALIZERS, 0);
}

/** @throws LokoError ERR_TOKENIZER, also for a type that does not compute what Python computes. */
export function readPreTokenizer(tokenizer: Section): PreTokenizer {
  if (tokenizer.lacks("pre_tokenizer")) return wholeText;
  return readStage(tokenizer.section("pre_tokenizer"), "pre-tokenizer", PRE_TOKENIZERS, 0);
}

function readStage<Stage>(
  config: Section,
  what: string,
  readers: ReadonlyMap<string, Reader<Stage>>,
  depth: number,
): Stage {
  const type = config.string("type");
  const read = readers.get(type);
  if (read === undefined) {
    throw tokenizerError(
      config.path,
      `the ${what} ${describe(type)} is not supported; expected one of ${[...readers.keys()].join(", ")}.`,
    );
  }
  if (depth > MAX_DEPTH) {
    throw tokenizerError(config.path, `a ${what} is nested more than ${MAX_DEPTH} deep.`);
  }
  return read(config, depth);
}

function readBertNormalizer(config: Section): Normalizer {
  const cleanText = config.boolean("clean_text", true);
  const chinese = config.boolean("handle_chinese_chars", true);
  const lowercase = config.boolean("lowercase", true);
  const accents = config.boolean("strip_accents", lowercase);
  return (text) => {
    let result = text;
    if (cleanText) result = result.replace(IGNORABLE, "").replace(WHITE_SPACE, " ");
    if (chinese) result = result.replace(CHINESE, " $& ");
    if (accents) result = normalizeForm(result, "NFD").replace(NON_SPACING_MARKS, "");
    return lowercase ? lowerCase(result) : result;
  };
}

function readStrip(config: Section): Normalizer {
  const left = config.boolean("strip_left");
  const right = config.boolean("strip_right");
  return (text) => {
    const start = left ? trimStart(text) : text;
    return right ? trimEnd(start) : start;
  };
}

function readPunctuation(config: Section): PreTokenizer {
  config.oneOf("behavior", ["Isolated"], "Isolated");
  return matchesOf(PUNCTUATION);
}

function matchesOf(pattern: RegExp): PreTokenizer {
  return (text) => text.match(pattern) ?? [];
}

/** The 256 characters that stand for bytes: themselves where printable, else from U+0100 on. */
export const BYTE_CHARACTERS: readonly string[] = byteCharacters();

function byteCharacters(): string[] {
  const isPrintable = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) =>
    String.fromCharCode(isPrintable(byte) ? byte : next++),
  );
}

function readByteLevel(config: Section): PreTokenizer {
  const prefix = config.boolean("add_prefix_space", true);
  const split = config.boolean("use_regex", true) ? matchesOf(BYTE_LEVEL_WORDS) : wholeText;
  return (text) => {
    if (text === "") return [];
    return split(prefix && !text.startsWith(" ") ? ` ${text}` : text).map(toByteCharacters);
  };
}

function wholeText(text: string): string[] {
  return text === "" ? [] : [text];
}

function toByteCharacters(word: string): string {
  if (/^[!-~]*$/.test(word)) return word;
  let result = "";
  for (const byte of Buffer.from(word, "utf8")) result += BYTE_CHARACTERS[byte];
  return result;
}
