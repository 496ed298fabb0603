import * as library from "@huggingface/tokenizers";
import { describe } from "../errors.js";
import { type Section, tokenizerError } from "./section.js";

/** Turns words into token ids. */
export interface WordModel {
  readonly vocabulary: ReadonlyMap<string, number>;
  /** Ids of one word, of one token or more. */
  encode(word: string): readonly number[];
}

/** Above any real vocabulary. */
const MAX_VOCABULARY = 2 ** 24;

/** What a word of unknown characters costs grows by the third power of this; files say 100. */
const MAX_WORD_CHARACTERS = 200;

/** What the library's models share: words to tokens. */
interface LibraryModel {
  encode(words: string[]): string[];
}

// The library's declarations name files without endings, which TypeScript does not follow in ESM.
const { BPE, WordPiece } = library as unknown as Record<
  "BPE" | "WordPiece",
  new (
    config: object,
  ) => LibraryModel
>;

/**
 * Builds the `model` of a tokenizer.json.
 *
 * @throws LokoError ERR_TOKENIZER, also for a model or a setting that is not supported.
 */
export function readWordModel(tokenizer: Section): WordModel {
  const config = tokenizer.section("model");
  switch (typeOf(config)) {
    case "WordPiece":
      return readWordPiece(config);
    case "BPE":
      return readBpe(config);
    default:
      throw tokenizerError(
        config.path,
        `the model ${describe(config.get("type"))} is not supported; expected "WordPiece" or "BPE".`,
      );
  }
}

/** Files of old versions give no type. */
function typeOf(config: Section): unknown {
  if (!config.lacks("type")) return config.get("type");
  if (!config.lacks("merges")) return "BPE";
  return config.lacks("continuing_subword_prefix") ? undefined : "WordPiece";
}

function readWordPiece(config: Section): WordModel {
  const vocabulary = readVocabulary(config);
  const unknown = config.string("unk_token", "[UNK]");
  requireToken(config, vocabulary, unknown, "unk_token");
  const model = new WordPiece({
    type: "WordPiece",
    vocab: config.value.vocab as Record<string, number>,
    unk_token: unknown,
    continuing_subword_prefix: config.string("continuing_subword_prefix", "##"),
    max_input_chars_per_word: config.integer(
      "max_input_chars_per_word",
      0,
      MAX_WORD_CHARACTERS,
      100,
    ),
  });
  return wordModel(model, vocabulary);
}

function readBpe(config: Section): WordModel {
  const vocabulary = readVocabulary(config);
  const unknown = config.lacks("unk_token") ? undefined : config.string("unk_token");
  if (unknown !== undefined) requireToken(config, vocabulary, unknown, "unk_token");
  requireOff(config, "dropout", [0], "it makes token ids random");
  requireOff(config, "byte_fallback", [false]);
  requireOff(config, "fuse_unk", unknown === undefined ? [false, true] : [false]);
  requireOff(config, "continuing_subword_prefix", [""]);
  requireOff(config, "end_of_word_suffix", [""]);
  const ignoreMerges = config.boolean("ignore_merges", false);
  const model = new BPE({
    type: "BPE",
    vocab: config.value.vocab as Record<string, number>,
    merges: readMerges(config, vocabulary),
    unk_token: unknown ?? null,
    ignore_merges: ignoreMerges,
  });
  if (unknown !== undefined) return wordModel(model, vocabulary);
  // Without an unknown token Python drops a character before it merges, the library after.
  const known = (word: string) => Array.from(word).filter((character) => vocabulary.has(character));
  return wordModel(
    {
      encode: ([word = ""]) =>
        model.encode([ignoreMerges && vocabulary.has(word) ? word : known(word).join("")]),
    },
    vocabulary,
  );
}

function requireOff(config: Section, key: string, off: readonly unknown[], why?: string): void {
  if (config.lacks(key) || off.includes(config.get(key))) return;
  const reason = why === undefined ? "" : `, for ${why}`;
  throw config.error(key, `${describe(off[0])} or null; no other is supported${reason}`);
}

function requireToken(
  config: Section,
  vocabulary: ReadonlyMap<string, number>,
  token: string,
  key: string,
): void {
  if (!vocabulary.has(token)) {
    throw tokenizerError(
      config.path,
      `"model.${key}" must be in "model.vocab", and ${describe(token)} is not.`,
    );
  }
}

function readVocabulary(config: Section): Map<string, number> {
  const vocab = config.section("vocab");
  const entries = Object.keys(vocab.value).map((token): [string, number] => [
    token,
    vocab.integer(token, 0, MAX_VOCABULARY - 1),
  ]);
  if (entries.length === 0) throw config.error("vocab", "an object with at least one token");
  return new Map(entries);
}

function readMerges(config: Section, vocabulary: ReadonlyMap<string, number>): [string, string][] {
  return config.list("merges").map((merge, i) => {
    const pair: unknown = typeof merge === "string" ? merge.split(" ") : merge;
    if (!isPairOfStrings(pair)) {
      throw tokenizerError(
        config.path,
        `"model.merges[${i}]" must be two tokens, "a b" or ["a", "b"], got ${describe(merge)}.`,
      );
    }
    for (const token of [...pair, pair.join("")]) {
      if (!vocabulary.has(token)) {
        throw tokenizerError(
          config.path,
          `"model.merges[${i}]" needs the token ${describe(token)}, which is not in "model.vocab".`,
        );
      }
    }
    return pair;
  });
}

function isPairOfStrings(value: unknown): value is [string, string] {
  return (
    Array.isArray(value) && value.length === 2 && value.every((item) => typeof item === "string")
  );
}

const MAX_CACHED_WORDS = 2 ** 16;
const MAX_CACHED_LENGTH = 64;

/** The ids of a library's model, with those of frequent words kept. */
function wordModel(model: LibraryModel, vocabulary: ReadonlyMap<string, number>): WordModel {
  const cache = new Map<string, readonly number[]>();
  const encode = (word: string): readonly number[] => {
    const cached = cache.get(word);
    if (cached !== undefined) return cached;
    const ids = model.encode([word]).map((token) => vocabulary.get(token)!);
    if (word.length <= MAX_CACHED_LENGTH) {
      if (cache.size >= MAX_CACHED_WORDS) cache.clear();
      cache.set(word, ids);
    }
    return ids;
  };
  return { vocabulary, encode };
}
