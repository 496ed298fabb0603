import { describe } from "../errors.js";
import { type AddedToken, readAddedTokens, type Splitter, splitterOf } from "./added-tokens.js";
import { type Section, tokenizerError } from "./section.js";
import { type Normalizer, type PreTokenizer, readNormalizer, readPreTokenizer } from "./stages.js";
import { readTemplate, type Template } from "./template.js";
import { toWellFormed } from "./unicode.js";
import { readWordModel, type WordModel } from "./word-model.js";

/**
 * The stages of a tokenizer.json in the order of Python's `tokenizers`: added tokens are cut out of the
 * text, the rest is normalised, then split into words, and each word encoded.
 */
export class Pipeline {
  /** Every token, the added ones too, with its id; ids are 0 to size - 1. */
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly template: Template;
  readonly #cutRaw: Splitter;
  readonly #normalize: Normalizer;
  readonly #cutNormalized: Splitter;
  readonly #words: PreTokenizer;
  readonly #model: WordModel;

  /** @throws LokoError ERR_TOKENIZER for a file that is malformed or asks for what is not supported. */
  constructor(tokenizer: Section) {
    this.#normalize = readNormalizer(tokenizer);
    this.#words = readPreTokenizer(tokenizer);
    this.#model = readWordModel(tokenizer);
    const added = readAddedTokens(tokenizer);
    const { path } = tokenizer;
    this.vocabulary = joinVocabulary(this.#model.vocabulary, added, path);
    const [normalized, raw] = [true, false].map((is) => added.filter((t) => t.normalized === is));
    this.#cutRaw = splitterOf(raw!, (content) => content, path);
    this.#cutNormalized = splitterOf(normalized!, this.#normalize, path);
    this.template = readTemplate(tokenizer, this.vocabulary.size);
  }

  /**
   * Token ids of a text, without special tokens around it. No word is encoded once there are `limit`
   * tokens, counted from the start, or from the end when `side` is `"left"`, the side to cut later. Python
   * 0.23 does the same, and which text of a pair counts as the longer one depends on it.
   */
  encode(
    text: string,
    limit = Number.POSITIVE_INFINITY,
    side: "left" | "right" = "right",
  ): number[] {
    const parts = this.#split(text);
    if (side === "left") parts.reverse();
    const runs: (readonly number[])[] = [];
    let count = 0;
    for (const part of parts) {
      const run = typeof part === "number" ? [part] : this.#model.encode(part);
      runs.push(run);
      count += run.length;
      // Added tokens are counted, but end nothing.
      if (typeof part === "string" && count >= limit) break;
    }
    if (side === "left") runs.reverse();
    return runs.flat();
  }

  /** The words of a text, and between them the ids of added tokens. */
  #split(text: string): (string | number)[] {
    const parts: (string | number)[] = [];
    for (const raw of this.#cutRaw(toWellFormed(text))) {
      if (typeof raw === "number") parts.push(raw);
      else if (raw !== "") this.#splitPart(raw, parts);
    }
    return parts;
  }

  #splitPart(text: string, parts: (string | number)[]): void {
    for (const part of this.#cutNormalized(this.#normalize(text))) {
      if (typeof part === "number") parts.push(part);
      else if (part !== "") for (const word of this.#words(part)) parts.push(word);
    }
  }
}

/** @throws LokoError ERR_TOKENIZER when ids repeat, leave a hole, or contradict each other. */
function joinVocabulary(
  words: ReadonlyMap<string, number>,
  added: readonly AddedToken[],
  path: string,
): Map<string, number> {
  const vocabulary = new Map(words);
  for (const { content, id } of added) {
    const other = vocabulary.get(content);
    if (other !== undefined && other !== id) {
      throw tokenizerError(path, `${describe(content)} has the ids ${other} and ${id}.`);
    }
    vocabulary.set(content, id);
  }
  const tokens = new Map<number, string>();
  for (const [token, id] of vocabulary) {
    const other = tokens.get(id);
    if (other !== undefined) {
      throw tokenizerError(path, `${describe(other)} and ${describe(token)} share the id ${id}.`);
    }
    tokens.set(id, token);
  }
  for (let id = 0; id < tokens.size; id++) {
    if (!tokens.has(id)) {
      throw tokenizerError(
        path,
        `expected the ids 0 to ${tokens.size - 1} for ${tokens.size} tokens, and no token has ${id}.`,
      );
    }
  }
  return vocabulary;
}
