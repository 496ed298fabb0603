import { stat } from "node:fs/promises";
import { describe, LokoError } from "../errors.js";
import type { JsonObject } from "../io/json.js";
import type { TextInputs } from "../models/inputs.js";
import { checkOptions, either, integerIn, type OptionRule, oneOf } from "../options.js";
import { readJsonFile } from "./files.js";
import type { Pipeline } from "./pipeline.js";
import { Section, tokenizerError } from "./section.js";
import type { Piece } from "./template.js";
import { keptLengths, type Truncation } from "./truncate.js";
import { readVocabularyFiles, specialToken } from "./vocabulary-files.js";

/** A text, or two that belong together, such as a question and its answer. */
export type TextOrPair = string | readonly [text: string, pair: string];

/** Options of {@link Tokenizer.fromPretrained}. */
export interface TokenizerOptions {
  /**
   * Most tokens that the model takes, `model.input.maxLength`; a `model_max_length` of the tokenizer
   * that is smaller wins. Default: that of the tokenizer alone.
   */
  maxLength?: number;
}

/** Options of {@link Tokenizer.encode}. */
export interface EncodeOptions {
  /** Most tokens of the result, special ones included. Default `tokenizer.maxLength`. */
  maxLength?: number;
  /** What to cut when there are more. Default `"longest_first"`. */
  truncation?: Truncation;
}

/** Options of {@link Tokenizer.batch}. */
export interface BatchOptions extends EncodeOptions {
  /**
   * Fill up to the longest text of the batch or to `maxLength`; `false` wants texts of equal length.
   * Default `"longest"`.
   */
  padding?: "longest" | "max_length" | false;
  /** Make the length a multiple of this, at least 1. Default 1. */
  padToMultipleOf?: number;
}

/** Token ids of one text or pair, special tokens included. */
export interface Encoding {
  /** [T], each in [0, vocabularySize). */
  readonly inputIds: Int32Array;
  /** [T], which text a token belongs to; absent where the tokenizer has one type only. */
  readonly tokenTypeIds?: Int32Array;
}

/** What the configuration of a tokenizer says beside its pipeline. */
interface Settings {
  readonly maxLength: number | undefined;
  readonly padTokenId: number | undefined;
  readonly padTypeId: number;
  readonly paddingSide: "left" | "right";
  readonly truncationSide: "left" | "right";
  readonly usesTokenTypes: boolean;
}

/** A larger `model_max_length` means none: transformers writes 1e30. */
const MAX_MAX_LENGTH = 1e9;

/** Characters of one text. Four times as many in one word exceed the stack of Node's regular expressions. */
const MAX_TEXT_LENGTH = 2 ** 20;

const TRUNCATIONS: OptionRule = either(oneOf("longest_first", "only_first", "only_second"), {
  expected: "false",
  accepts: (value) => value === false,
});
const ENCODE_RULES = { maxLength: integerIn(1, MAX_MAX_LENGTH), truncation: TRUNCATIONS };
const BATCH_RULES = {
  ...ENCODE_RULES,
  padding: either(oneOf("longest", "max_length"), {
    expected: "false",
    accepts: (value) => value === false,
  }),
  padToMultipleOf: integerIn(1, 2 ** 16),
};

/**
 * Turns texts into the token ids that Python's `tokenizers` gives, for BERT (WordPiece) and RoBERTa
 * (byte-level BPE).
 *
 * Half a surrogate pair, which Python refuses, counts as U+FFFD. A text that looks like a special token
 * ("[SEP]") becomes that token, as in Python.
 *
 * @example
 * ```ts
 * const tokenizer = await Tokenizer.fromPretrained("bert-base");
 * const inputs = tokenizer.batch(["A text.", ["A question?", "Its answer."]]);
 * const logits = await model.forward(inputs);
 * ```
 */
export class Tokenizer {
  /** Most tokens of a text by default; undefined where neither tokenizer nor model has a limit. */
  readonly maxLength: number | undefined;
  /** Id that fills up shorter texts; undefined where the tokenizer has no such token. */
  readonly padTokenId: number | undefined;
  /** Whether results have `tokenTypeIds`: BERT's do, RoBERTa's do not. */
  readonly usesTokenTypes: boolean;
  /** Number of token ids. */
  readonly vocabularySize: number;
  readonly #pipeline: Pipeline;
  readonly #settings: Settings;

  private constructor(pipeline: Pipeline, settings: Settings) {
    this.#pipeline = pipeline;
    this.#settings = settings;
    this.maxLength = settings.maxLength;
    this.padTokenId = settings.padTokenId;
    this.usesTokenTypes = settings.usesTokenTypes;
    this.vocabularySize = pipeline.vocabulary.size;
  }

  /**
   * Reads `tokenizer.json`, or else `vocab.txt` (BERT) or `vocab.json` and `merges.txt` (RoBERTa), with
   * `tokenizer_config.json` and `special_tokens_map.json` where there are such. As in transformers,
   * `do_lower_case`, `strip_accents`, `tokenize_chinese_chars` and `add_prefix_space` of the former win
   * over tokenizer.json, and truncation and padding of tokenizer.json are left to the caller.
   *
   * @param dir - a folder in Hugging Face format.
   * @throws LokoError ERR_INPUT_TYPE, ERR_OPTION, ERR_FILE_NOT_FOUND when there is no such folder,
   * ERR_FILE_READ, ERR_TOKENIZER when there is no tokenizer in it, or one that is malformed or would not
   * compute what Python computes.
   */
  static async fromPretrained(dir: string, options: TokenizerOptions = {}): Promise<Tokenizer> {
    if (typeof dir !== "string") {
      throw new LokoError("ERR_INPUT_TYPE", `dir must be a string, got ${describe(dir)}.`);
    }
    checkOptions("Tokenizer.fromPretrained", options, {
      maxLength: integerIn(1, MAX_MAX_LENGTH),
    });
    await requireFolder(dir);
    const config =
      (await readJsonFile(dir, "tokenizer_config.json")) ?? Section.of({}, `${dir} (no config)`);
    const specialTokens = await readJsonFile(dir, "special_tokens_map.json");
    const json =
      (await readJsonFile(dir, "tokenizer.json")) ?? (await readVocabularyFiles(dir, config));
    const { Pipeline } = await import("./pipeline.js");
    const pipeline = new Pipeline(configured(json, config));
    return new Tokenizer(pipeline, readSettings(config, specialTokens, pipeline, options));
  }

  /**
   * Encodes one text, or a pair when `pair` is given, even an empty one.
   *
   * @throws LokoError ERR_INPUT_TYPE, ERR_OPTION, ERR_SEQUENCE_LENGTH when `"only_first"` or
   * `"only_second"` cannot make room.
   */
  encode(text: string, pair?: string, options: EncodeOptions = {}): Encoding {
    checkOptions("tokenizer.encode", options, ENCODE_RULES);
    const texts = [checkText(text, "text")];
    if (pair !== undefined) texts.push(checkText(pair, "pair"));
    return this.#encode(texts, options);
  }

  /**
   * Encodes texts and pairs as one padded batch, with a mask that is 1 on tokens and 0 on padding.
   *
   * @returns arrays of shape [B, T].
   * @throws LokoError as {@link Tokenizer.encode}, and ERR_SHAPE_MISMATCH for no texts at all or for
   * unequal lengths without padding, ERR_TOKENIZER without a padding token, ERR_OUT_OF_MEMORY.
   */
  batch(texts: readonly TextOrPair[], options: BatchOptions = {}): TextInputs {
    checkOptions("tokenizer.batch", options, BATCH_RULES);
    if (!Array.isArray(texts)) {
      throw new LokoError("ERR_INPUT_TYPE", `texts must be an array, got ${describe(texts)}.`);
    }
    if (texts.length === 0) {
      throw new LokoError("ERR_SHAPE_MISMATCH", "texts must hold at least one text, got none.");
    }
    // Array.from visits holes as well.
    const rows = Array.from(texts as readonly TextOrPair[], (entry, i) =>
      this.#encode(textsOf(entry, i), options),
    );
    return this.#pad(rows, this.#paddedLength(rows, options));
  }

  #encode(texts: readonly string[], options: EncodeOptions): Encoding {
    const { truncation = "longest_first", maxLength = this.maxLength ?? MAX_MAX_LENGTH } = options;
    const { template } = this.#pipeline;
    const pieces = texts.length === 1 ? template.single : template.pair;
    const special = pieces.filter((piece) => piece.text === undefined).length;
    if (truncation !== false && maxLength < special) {
      throw new LokoError(
        "ERR_OPTION",
        `maxLength must leave room for the ${special} special tokens, got ${maxLength}.`,
      );
    }
    const { truncationSide } = this.#settings;
    const limit = truncation === false ? Number.POSITIVE_INFINITY : maxLength;
    const ids = texts.map((text) => this.#pipeline.encode(text, limit, truncationSide));
    const lengths = ids.map(({ length }) => length);
    const kept = keptLengths(lengths, maxLength - special, truncation);
    return this.#fill(
      pieces,
      ids.map((all, i) => this.#cut(all, kept[i]!)),
    );
  }

  #cut(ids: readonly number[], length: number): readonly number[] {
    if (ids.length === length) return ids;
    return this.#settings.truncationSide === "right"
      ? ids.slice(0, length)
      : ids.slice(ids.length - length);
  }

  #fill(pieces: readonly Piece[], texts: readonly (readonly number[])[]): Encoding {
    const runs = pieces.map((piece) =>
      piece.text === undefined ? [piece.token] : texts[piece.text]!,
    );
    const length = runs.reduce((sum, run) => sum + run.length, 0);
    const inputIds = new Int32Array(length);
    const tokenTypeIds = new Int32Array(length);
    let at = 0;
    for (const [i, run] of runs.entries()) {
      inputIds.set(run, at);
      tokenTypeIds.fill(pieces[i]!.typeId, at, at + run.length);
      at += run.length;
    }
    return this.usesTokenTypes ? { inputIds, tokenTypeIds } : { inputIds };
  }

  #paddedLength(rows: readonly Encoding[], options: BatchOptions): number {
    const { padding = "longest", padToMultipleOf = 1, maxLength = this.maxLength } = options;
    const lengths = rows.map(({ inputIds }) => inputIds.length);
    const longest = lengths.reduce((most, length) => Math.max(most, length), 0);
    if (padding === false) {
      const at = lengths.findIndex((length) => length !== lengths[0]);
      if (at < 0) return longest;
      throw new LokoError(
        "ERR_SHAPE_MISMATCH",
        `without padding all texts must have equally many tokens, got ${lengths[0]} for texts[0] and ` +
          `${lengths[at]} for texts[${at}].`,
      );
    }
    if (padding === "max_length" && maxLength === undefined) {
      throw new LokoError(
        "ERR_OPTION",
        'padding "max_length" needs maxLength, because the tokenizer has no limit of its own.',
      );
    }
    const length = padding === "max_length" ? Math.max(longest, maxLength!) : longest;
    return Math.ceil(length / padToMultipleOf) * padToMultipleOf;
  }

  #pad(rows: readonly Encoding[], length: number): TextInputs {
    const { padTokenId, padTypeId, paddingSide } = this.#settings;
    if (padTokenId === undefined && rows.some(({ inputIds }) => inputIds.length < length)) {
      throw new LokoError(
        "ERR_TOKENIZER",
        "the tokenizer has no padding token; name one as pad_token in tokenizer_config.json, or use " +
          "padding: false.",
      );
    }
    const array = () => allocate(rows.length, length);
    const inputIds = array().fill(padTokenId ?? 0);
    const attentionMask = array();
    const tokenTypeIds = this.usesTokenTypes ? array().fill(padTypeId) : undefined;
    for (const [b, row] of rows.entries()) {
      const gap = paddingSide === "left" ? length - row.inputIds.length : 0;
      const start = b * length + gap;
      inputIds.set(row.inputIds, start);
      attentionMask.fill(1, start, start + row.inputIds.length);
      if (row.tokenTypeIds !== undefined) tokenTypeIds?.set(row.tokenTypeIds, start);
    }
    const shape = [rows.length, length];
    return tokenTypeIds === undefined
      ? { inputIds, attentionMask, shape }
      : { inputIds, attentionMask, tokenTypeIds, shape };
  }
}

function allocate(rows: number, columns: number): Int32Array {
  try {
    return new Int32Array(rows * columns);
  } catch (error) {
    throw new LokoError(
      "ERR_OUT_OF_MEMORY",
      `a batch of ${rows} x ${columns} tokens does not fit in memory.`,
      { cause: error },
    );
  }
}

function textsOf(entry: unknown, i: number): string[] {
  if (!Array.isArray(entry)) return [checkText(entry, `texts[${i}]`)];
  if (entry.length !== 2) {
    throw new LokoError(
      "ERR_INPUT_TYPE",
      `texts[${i}] must be a string or two, got ${describe(entry)}.`,
    );
  }
  return [checkText(entry[0], `texts[${i}][0]`), checkText(entry[1], `texts[${i}][1]`)];
}

function checkText(text: unknown, name: string): string {
  if (typeof text !== "string") {
    throw new LokoError("ERR_INPUT_TYPE", `${name} must be a string, got ${describe(text)}.`);
  }
  if (text.length <= MAX_TEXT_LENGTH) return text;
  throw new LokoError(
    "ERR_SEQUENCE_LENGTH",
    `${name} must have at most ${MAX_TEXT_LENGTH} characters, got ${text.length}; cut it first.`,
  );
}

async function requireFolder(dir: string): Promise<void> {
  const stats = await stat(dir).catch(() => undefined);
  if (stats?.isDirectory()) return;
  throw new LokoError(
    "ERR_FILE_NOT_FOUND",
    `${dir}: expected a folder with a tokenizer, and ${stats ? "it is none" : "there is none"}.`,
  );
}

/**
 * The tokenizer.json with what tokenizer_config.json says otherwise, as transformers does for the
 * classes of BERT and RoBERTa.
 */
function configured(json: Section, config: Section): Section {
  const { value } = json;
  if (
    !/^(bert|roberta)tokenizer(fast)?$/i.test(config.string("tokenizer_class", "BertTokenizer"))
  ) {
    return json;
  }
  const normalizer = { ...(value.normalizer as JsonObject | undefined) };
  const preTokenizer = { ...(value.pre_tokenizer as JsonObject | undefined) };
  if (normalizer.type === "BertNormalizer") {
    overwrite(normalizer, "lowercase", config, "do_lower_case");
    overwrite(normalizer, "strip_accents", config, "strip_accents");
    overwrite(normalizer, "handle_chinese_chars", config, "tokenize_chinese_chars");
    return json.with({ normalizer });
  }
  if (preTokenizer.type === "ByteLevel") {
    overwrite(preTokenizer, "add_prefix_space", config, "add_prefix_space");
    return json.with({ pre_tokenizer: preTokenizer });
  }
  return json;
}

function overwrite(target: JsonObject, key: string, config: Section, configKey: string): void {
  if (config.get(configKey) !== undefined) target[key] = config.value[configKey];
}

function readSettings(
  config: Section,
  specialTokens: Section | undefined,
  { vocabulary, template }: Pipeline,
  options: TokenizerOptions,
): Settings {
  const limits = [modelMaxLength(config), options.maxLength].filter((limit) => limit !== undefined);
  const named = specialToken(config, "pad_token") ?? specialToken(specialTokens, "pad_token");
  const padToken = named ?? ["[PAD]", "<pad>"].find((token) => vocabulary.has(token));
  const padTokenId = padToken === undefined ? undefined : vocabulary.get(padToken);
  if (padToken !== undefined && padTokenId === undefined) {
    throw tokenizerError(
      config.path,
      `"pad_token" ${describe(padToken)} is not in the vocabulary.`,
    );
  }
  return {
    maxLength: limits.length === 0 ? undefined : Math.min(...limits),
    padTokenId,
    padTypeId: config.integer("pad_token_type_id", 0, 2 ** 16, 0),
    paddingSide: config.oneOf("padding_side", ["left", "right"], "right"),
    truncationSide: config.oneOf("truncation_side", ["left", "right"], "right"),
    usesTokenTypes: template.pair.some(({ typeId }) => typeId > 0) && takesTokenTypes(config),
  };
}

function modelMaxLength(config: Section): number | undefined {
  if (config.lacks("model_max_length")) return undefined;
  const limit = config.get("model_max_length");
  if (typeof limit === "number" && limit > MAX_MAX_LENGTH) return undefined;
  return config.integer("model_max_length", 1, MAX_MAX_LENGTH);
}

/** RoBERTa's table has one row, though some files give the second text of a pair the type 1. */
function takesTokenTypes(config: Section): boolean {
  if (!config.lacks("model_input_names")) {
    return config.list("model_input_names").includes("token_type_ids");
  }
  return !/^roberta/i.test(config.string("tokenizer_class", ""));
}
