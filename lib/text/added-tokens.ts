import { describe } from "../errors.js";
import { type Section, tokenizerError } from "./section.js";
import type { Normalizer } from "./stages.js";
import { touchesWord, trimEnd, trimStart } from "./unicode.js";

/** A token that is found in the text itself, before anything splits it: special tokens, mostly. */
export interface AddedToken {
  readonly content: string;
  readonly id: number;
  /** Only where no letter or digit touches it. */
  readonly singleWord: boolean;
  /** Swallows the white space before it. */
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  /** Looked for in the normalised text, else in the text as it came. */
  readonly normalized: boolean;
}

/** @throws LokoError ERR_TOKENIZER. */
export function readAddedTokens(tokenizer: Section): AddedToken[] {
  if (tokenizer.lacks("added_tokens")) return [];
  return tokenizer.sections("added_tokens").map((token) => {
    const content = token.string("content");
    if (content === "") throw token.error("content", "a string that is not empty");
    return {
      content,
      id: token.integer("id", 0, 2 ** 31 - 1),
      singleWord: token.boolean("single_word", false),
      lstrip: token.boolean("lstrip", false),
      rstrip: token.boolean("rstrip", false),
      normalized: token.boolean("normalized", !token.boolean("special", false)),
    };
  });
}

/** Cuts a text at the tokens it names: the numbers are ids, the strings the text between them. */
export type Splitter = (text: string) => (string | number)[];

/**
 * A splitter that takes the leftmost of all tokens, and the longest of those that begin there.
 *
 * @param normalize - applied to what the tokens look like, not to the text.
 * @throws LokoError ERR_TOKENIZER when nothing of a token is left after `normalize`.
 */
export function splitterOf(
  tokens: readonly AddedToken[],
  normalize: Normalizer,
  path: string,
): Splitter {
  const byContent = new Map<string, AddedToken>();
  for (const token of tokens) {
    const content = normalize(token.content);
    if (content === "") {
      throw tokenizerError(
        path,
        `the added token ${describe(token.content)} is empty after normalisation.`,
      );
    }
    if (!byContent.has(content)) byContent.set(content, token);
  }
  if (byContent.size === 0) return (text) => [text];
  const longestFirst = [...byContent.keys()].sort((a, b) => b.length - a.length);
  const pattern = new RegExp(longestFirst.map(escapePattern).join("|"), "g");
  return (text) => split(text, pattern, byContent);
}

function escapePattern(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}

function split(
  text: string,
  pattern: RegExp,
  tokens: ReadonlyMap<string, AddedToken>,
): (string | number)[] {
  const parts: (string | number)[] = [];
  let done = 0;
  for (const match of text.matchAll(pattern)) {
    const token = tokens.get(match[0])!;
    const end = match.index + match[0].length;
    if (token.singleWord && touchesWord(text, match.index, end)) continue;
    const before = text.slice(done, match.index);
    parts.push(token.lstrip ? trimEnd(before) : before, token.id);
    done = token.rstrip ? text.length - trimStart(text.slice(end)).length : end;
  }
  parts.push(text.slice(done));
  return parts;
}
