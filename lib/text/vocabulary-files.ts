import { describe } from "../errors.js";
import type { JsonObject } from "../io/json.js";
import { readJsonFile, readTextFile, type TextFile } from "./files.js";
import { Section, tokenizerError } from "./section.js";

/** Which tokenizer a folder without a tokenizer.json is for. */
type Kind = "bert" | "roberta";

/**
 * Builds the tokenizer.json that transformers would from `vocab.txt` (BERT) or from `vocab.json` and
 * `merges.txt` (RoBERTa).
 *
 * @param config - `tokenizer_config.json`; empty where there is none.
 * @throws LokoError ERR_TOKENIZER.
 */
export async function readVocabularyFiles(dir: string, config: Section): Promise<Section> {
  const wordPieces = await readTextFile(dir, "vocab.txt");
  const vocab = await readJsonFile(dir, "vocab.json");
  const merges = await readTextFile(dir, "merges.txt");
  if (wordPieces === undefined && (vocab === undefined || merges === undefined)) {
    const half = vocab === undefined ? "" : " Beside vocab.json there must be merges.txt.";
    throw tokenizerError(
      dir,
      "no tokenizer here: expected tokenizer.json, vocab.txt, or vocab.json and merges.txt. Run " +
        `tokenizer.save_pretrained(dir) in Python.${half}`,
    );
  }
  const kind = await kindOf(dir, config);
  if (kind === "bert" && wordPieces !== undefined) {
    const tokens = Section.of(readVocabTxt(wordPieces), wordPieces.path);
    return bertTokenizer(tokens, config, await readAddedTokensFile(dir));
  }
  if (kind === "roberta" && vocab !== undefined && merges !== undefined) {
    return robertaTokenizer(vocab, merges, config, await readAddedTokensFile(dir));
  }
  const expected = kind === "bert" ? "vocab.txt" : "vocab.json and merges.txt";
  throw tokenizerError(dir, `a ${kind} tokenizer needs tokenizer.json or ${expected}.`);
}

async function kindOf(dir: string, config: Section): Promise<Kind> {
  const model = await readJsonFile(dir, "config.json");
  const sources: [string, unknown][] = [
    ["tokenizer_class", config.get("tokenizer_class")],
    ["model_type", model?.get("model_type")],
  ];
  const [key, value] = sources.find(([, name]) => name !== undefined && name !== null) ?? [];
  const kind =
    typeof value === "string" ? value.replace(/Tokenizer(Fast)?$/, "").toLowerCase() : "";
  if (kind === "bert" || kind === "roberta") return kind;
  const found =
    key === undefined
      ? "neither tokenizer_class in tokenizer_config.json nor model_type in config.json is given"
      : `${key} is ${describe(value)}`;
  throw tokenizerError(
    dir,
    `cannot tell how to use the vocabulary: ${found}; expected BertTokenizer or RobertaTokenizer, or ` +
      "the model type bert or roberta. Run tokenizer.save_pretrained(dir) in Python, which writes a " +
      "tokenizer.json.",
  );
}

/** One token a line; its number is its id. */
function readVocabTxt({ path, text }: TextFile): JsonObject {
  const lines = linesOf(text);
  const vocab = new Map<string, number>();
  for (const [id, token] of lines.entries()) {
    const other = vocab.get(token);
    if (other !== undefined) {
      throw tokenizerError(
        path,
        `line ${id + 1} repeats the token ${describe(token)} of line ${other + 1}.`,
      );
    }
    vocab.set(token, id);
  }
  return Object.fromEntries(vocab);
}

/** Lines without their ends, and without empty lines at the end of the file. */
function linesOf(text: string): string[] {
  const lines = text.split(/\r\n|\n/);
  while (lines.at(-1) === "") lines.pop();
  return lines;
}

function bertTokenizer(vocab: Section, config: Section, added: JsonObject[]): Section {
  const special = specialTokens(vocab, config, {
    unk_token: "[UNK]",
    sep_token: "[SEP]",
    pad_token: "[PAD]",
    cls_token: "[CLS]",
    mask_token: "[MASK]",
  });
  const json = {
    added_tokens: [...special.tokens, ...added],
    normalizer: { type: "BertNormalizer" },
    pre_tokenizer: { type: "BertPreTokenizer" },
    post_processor: {
      type: "BertProcessing",
      cls: special.get("cls_token"),
      sep: special.get("sep_token"),
    },
    model: { type: "WordPiece", unk_token: special.get("unk_token")[0], vocab: vocab.value },
  };
  return Section.of(json, vocab.path);
}

function robertaTokenizer(
  vocab: Section,
  merges: TextFile,
  config: Section,
  added: JsonObject[],
): Section {
  const special = specialTokens(vocab, config, {
    bos_token: "<s>",
    eos_token: "</s>",
    unk_token: "<unk>",
    sep_token: "</s>",
    pad_token: "<pad>",
    cls_token: "<s>",
    mask_token: "<mask>",
  });
  const json = {
    added_tokens: [...special.tokens, ...added],
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false },
    post_processor: {
      type: "RobertaProcessing",
      cls: special.get("cls_token"),
      sep: special.get("sep_token"),
    },
    model: { type: "BPE", vocab: vocab.value, merges: readMergesTxt(merges) },
  };
  return Section.of(json, vocab.path);
}

/** One merge a line, "a b", after a line with the version of the format. */
function readMergesTxt({ path, text }: TextFile): string[] {
  const lines = linesOf(text);
  return lines.flatMap((line, i) => {
    if (line.startsWith("#version")) return [];
    if (line.split(" ").length === 2) return [line];
    throw tokenizerError(path, `line ${i + 1} must be two tokens, "a b", got ${describe(line)}.`);
  });
}

interface SpecialTokens {
  /** As `added_tokens` of a tokenizer.json has them. */
  readonly tokens: readonly JsonObject[];
  /** A token and its id. */
  get(key: string): readonly [token: string, id: unknown];
}

/**
 * The special tokens of a configuration, by default those of `defaults`. The vocabulary must have all
 * but the mask, which classification does not need.
 */
function specialTokens(
  vocab: Section,
  config: Section,
  defaults: Readonly<Record<string, string>>,
): SpecialTokens {
  const byKey = new Map<string, readonly [string, unknown]>();
  for (const [key, fallback] of Object.entries(defaults)) {
    const token = specialToken(config, key) ?? fallback;
    const id = vocab.get(token);
    if (id === undefined && key === "mask_token") continue;
    if (id === undefined) {
      throw tokenizerError(
        vocab.path,
        `expected the ${key} ${describe(token)} in the vocabulary, and it is not there.`,
      );
    }
    byKey.set(key, [token, id]);
  }
  const tokens = new Map<string, JsonObject>();
  for (const [content, id] of byKey.values()) {
    tokens.set(content, { content, id, special: true });
  }
  for (const token of configuredTokens(config)) tokens.set(String(token.content), token);
  return { tokens: [...tokens.values()], get: (key) => byKey.get(key)! };
}

/** `added_tokens_decoder` of tokenizer_config.json: ids to tokens. */
function configuredTokens(config: Section): JsonObject[] {
  if (config.lacks("added_tokens_decoder")) return [];
  const decoder = config.section("added_tokens_decoder");
  return Object.keys(decoder.value).map((id) => ({ ...decoder.section(id).value, id: Number(id) }));
}

/** `added_tokens.json`, of older versions: tokens to ids. */
async function readAddedTokensFile(dir: string): Promise<JsonObject[]> {
  const file = await readJsonFile(dir, "added_tokens.json");
  return Object.entries(file?.value ?? {}).map(([content, id]) => ({ content, id }));
}

/** A special token of a configuration: a string, or an object with its `content`. */
export function specialToken(config: Section | undefined, key: string): string | undefined {
  if (config === undefined || config.lacks(key)) return undefined;
  return typeof config.get(key) === "object"
    ? config.section(key).string("content")
    : config.string(key);
}
