import { describe } from "../errors.js";
import { type Section, tokenizerError } from "./section.js";

/** One place of a template: a special token, or the first (0) or second (1) text. */
export type Piece = { readonly typeId: number } & (
  | { readonly token: number; readonly text?: undefined }
  | { readonly text: 0 | 1 }
);

/** Where the special tokens go around one text and around two. */
export interface Template {
  readonly single: readonly Piece[];
  readonly pair: readonly Piece[];
}

const FIRST: Piece = { text: 0, typeId: 0 };
const SECOND: Piece = { text: 1, typeId: 1 };
const BARE: Template = { single: [FIRST], pair: [FIRST, SECOND] };

/** Above any type table. */
const MAX_TYPE_ID = 2 ** 16;

/**
 * Reads the `post_processor` of a tokenizer.json.
 *
 * @throws LokoError ERR_TOKENIZER.
 */
export function readTemplate(tokenizer: Section, vocabularySize: number): Template {
  if (tokenizer.lacks("post_processor")) return BARE;
  const config = tokenizer.section("post_processor");
  const stages = config.get("type") === "Sequence" ? config.sections("processors") : [config];
  // A ByteLevel processor moves offsets only.
  const templates = stages.filter((stage) => stage.get("type") !== "ByteLevel");
  if (templates.length > 1) {
    throw config.error("processors", "a list with one template (others than ByteLevel)");
  }
  return templates[0] === undefined ? BARE : readProcessor(templates[0], vocabularySize);
}

function readProcessor(config: Section, vocabularySize: number): Template {
  switch (config.string("type")) {
    case "TemplateProcessing":
      return {
        single: readPieces(config, "single", [0], vocabularySize),
        pair: readPieces(config, "pair", [0, 1], vocabularySize),
      };
    case "BertProcessing":
      return clsSepTemplate(config, vocabularySize, 1, 1);
    case "RobertaProcessing":
      return clsSepTemplate(config, vocabularySize, 0, 2);
    default:
      throw tokenizerError(
        config.path,
        `the post-processor ${describe(config.get("type"))} is not supported; expected one of ` +
          "TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel, Sequence.",
      );
  }
}

/** cls A sep, and cls A sep B sep with one or two separators between the texts. */
function clsSepTemplate(
  config: Section,
  vocabularySize: number,
  secondType: number,
  separators: number,
): Template {
  const tokenOf = (key: string): number => {
    const [, id] = config.list(key);
    if (isTokenId(id, vocabularySize)) return id;
    throw config.error(key, `a token and its id in [0, ${vocabularySize})`);
  };
  const cls = tokenOf("cls");
  const sep = tokenOf("sep");
  const single: Piece[] = [{ token: cls, typeId: 0 }, FIRST, { token: sep, typeId: 0 }];
  return {
    single,
    pair: [
      ...single,
      ...(separators === 2 ? [{ token: sep, typeId: secondType }] : []),
      { text: 1, typeId: secondType },
      { token: sep, typeId: secondType },
    ],
  };
}

function isTokenId(value: unknown, vocabularySize: number): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0 && Number(value) < vocabularySize;
}

function readPieces(
  config: Section,
  key: string,
  texts: readonly number[],
  vocabularySize: number,
): Piece[] {
  const pieces = config
    .sections(key)
    .flatMap((item) => (item.lacks("SpecialToken") ? readText(item) : readSpecial(item)));
  const found = pieces.flatMap(({ text }) => (text === undefined ? [] : [text])).sort();
  if (found.join() !== texts.join()) {
    throw config.error(key, `a template with ${texts.length === 1 ? "A" : "A and B"} once each`);
  }
  return pieces;

  function readText(item: Section): Piece {
    const sequence = item.section("Sequence");
    return {
      text: sequence.oneOf("id", ["A", "B"]) === "A" ? 0 : 1,
      typeId: sequence.integer("type_id", 0, MAX_TYPE_ID, 0),
    };
  }

  function readSpecial(item: Section): Piece[] {
    const special = item.section("SpecialToken");
    const typeId = special.integer("type_id", 0, MAX_TYPE_ID, 0);
    const definition = config.section("special_tokens").section(special.string("id"));
    return definition.list("ids").map((id) => {
      if (isTokenId(id, vocabularySize)) return { token: id, typeId };
      throw definition.error("ids", `a list of ids in [0, ${vocabularySize})`);
    });
  }
}
