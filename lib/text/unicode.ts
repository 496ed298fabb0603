// Character classes as Python's `tokenizers` 0.23 has them. It takes them from several Unicode versions
// (8 to 16), so that Node's own properties hold characters too many: the lists below, which
// test/fixtures/make_tokenizers.py found by asking it about every code point.

import { LokoError } from "../errors.js";

const NEW_NON_SPACING_MARKS = `
  7fd 897-89f 8ca-8e1 9fe afa-aff b55 c04 c3c d00 d3b-d3c d81 eba ece 180f 1885-1886
  1abf-1add 1ae0-1aeb 1df6-1dfb a82c a8c5 a8ff a9bd 10d24-10d27 10d69-10d6d 10eab-10eac
  10efa-10eff 10f46-10f50 10f82-10f85 11070 11073-11074 110c2 111c9 111cf 1123e 11241
  1133b 113bb-113c0 113ce 113d0 113d2 113e1-113e2 11438-1143f 11442-11444 11446 1145e
  1182f-11837 11839-1183a 1193b-1193c 1193e 11943 119d4-119d7 119da-119db 119e0
  11a01-11a0a 11a33-11a38 11a3b-11a3e 11a47 11a51-11a56 11a59-11a5b 11a8a-11a96
  11a98-11a99 11b60 11b62-11b64 11b66 11c30-11c36 11c38-11c3d 11c3f 11c92-11ca7
  11caa-11cb0 11cb2-11cb3 11cb5-11cb6 11d31-11d36 11d3a 11d3c-11d3d 11d3f-11d45 11d47
  11d90-11d91 11d95 11d97 11ef3-11ef4 11f00-11f01 11f36-11f3a 11f40 11f42 11f5a 13440
  13447-13455 1611e-16129 1612d-1612f 16f4f 16fe4 1cf00-1cf2d 1cf30-1cf46 1e000-1e006
  1e008-1e018 1e01b-1e021 1e023-1e024 1e026-1e02a 1e08f 1e130-1e136 1e2ae 1e2ec-1e2ef
  1e4ec-1e4ef 1e5ee-1e5ef 1e6e3 1e6e6 1e6ee-1e6ef 1e6f5 1e944-1e94a`;

const NEW_MARKS = `
  7fd 897-89f 8ca-8d3 9fe afa-aff b55 c04 c3c cf3 d00 d3b-d3c d81 eba ece 1715 180f
  1abf-1add 1ae0-1aeb 1cf7 1df6-1dfa a82c a8ff 10d24-10d27 10d69-10d6d 10eab-10eac
  10efa-10eff 10f46-10f50 10f82-10f85 11070 11073-11074 110c2 11145-11146 111c9
  111ce-111cf 11241 1133b 113b8-113c0 113c2 113c5 113c7-113ca 113cc-113d0 113d2
  113e1-113e2 1145e 1182c-1183a 11930-11935 11937-11938 1193b-1193e 11940 11942-11943
  119d1-119d7 119da-119e0 119e4 11a01-11a0a 11a33-11a39 11a3b-11a3e 11a47 11a51-11a5b
  11a8a-11a99 11b60-11b67 11d31-11d36 11d3a 11d3c-11d3d 11d3f-11d45 11d47 11d8a-11d8e
  11d90-11d91 11d93-11d97 11ef3-11ef6 11f00-11f01 11f03 11f34-11f3a 11f3e-11f42 11f5a
  13440 13447-13455 1611e-1612f 16f4f 16f7f-16f87 16fe4 16ff0-16ff1 1cf00-1cf2d
  1cf30-1cf46 1e08f 1e130-1e136 1e2ae 1e2ec-1e2ef 1e4ec-1e4ef 1e5ee-1e5ef 1e6e3 1e6e6
  1e6ee-1e6ef 1e6f5`;

const NEW_FORMAT_CHARACTERS = `
  890-891 8e2 110cd 13430-1343f`;

const NEW_PUNCTUATION = `
  61d 9fd a76 c77 c84 1b4e-1b4f 1b7d-1b7f 2e43-2e4f 2e52-2e5d 10d6e 10ead 10ed0
  10f55-10f59 10f86-10f89 113d4-113d5 113d7-113d8 1144b-1144f 1145a-1145b 1145d
  11660-1166c 116b9 1183b 11944-11946 119e2 11a3f-11a46 11a9a-11a9c 11a9e-11aa2
  11b00-11b09 11be1 11c41-11c45 11c70-11c71 11ef7-11ef8 11f43-11f4f 11fff 12ff1-12ff2
  16d6d-16d6f 16e97-16e9a 16fe2 1e5ff 1e95e-1e95f`;

const NEW_LETTERS = `
  88f c5c cdc a7ce-a7cf a7d2 a7d4 a7f1 10940-10959 10ec5-10ec7 11db0-11ddb 16ea0-16eb8
  16ebb-16ed3 16ff2-16ff3 187f8-187ff 18d09-18d1e 18d80-18df2 1e6c0-1e6de 1e6e0-1e6e2
  1e6e4-1e6e5 1e6e7-1e6ed 1e6f0-1e6f4 1e6fe-1e6ff 2b73a-2b73f 2cea2-2cead 323b0-33479`;

const NEW_NUMBERS = `
  11de0-11de9 16ff4-16ff6`;

const NEW_WORD_CHARACTERS = `
  88f c5c cdc 1acf-1add 1ae0-1aeb a7ce-a7cf a7d2 a7d4 a7f1 10940-10959 10ec5-10ec7
  10efa-10efb 11b60-11b67 11db0-11ddb 11de0-11de9 16ea0-16eb8 16ebb-16ed3 16ff2-16ff6
  187f8-187ff 18d09-18d1e 18d80-18df2 1e6c0-1e6de 1e6e0-1e6f5 1e6fe-1e6ff 2b73a-2b73f
  2cea2-2cead 323b0-33479`;

const NEW_NORMALIZED = `
  7fd 897-89f 8ca-8d3 9fe c3c d3b-d3c eba 1715 1abf-1add 1ae0-1aeb 1df6-1dfa 32ff
  a7f1-a7f4 a82c ab69 105c9 105d2 105da 105e4 10781-10785 10787-107b0 107b2-107ba
  10d24-10d27 10d69-10d6d 10eab-10eac 10efa-10efb 10efd-10eff 10f46-10f50 10f82-10f85
  11070 1133b 11382-11385 1138b 1138e 11390-11391 113c2 113c5 113c7-113c8 113ce-113d0
  1145e 11839-1183a 11935 11938 1193d-1193e 11943 119e0 11a34 11a47 11a99 11d42
  11d44-11d45 11d97 11f41-11f42 1611e 16121-16129 1612f 16d63 16d67-16d6a 16ff0-16ff1
  1ccd6-1ccf9 1e030-1e06d 1e08f 1e130-1e136 1e2ae 1e2ec-1e2ef 1e4ec-1e4ef 1e5ee-1e5ef
  1e6e3 1e6e6 1e6ee-1e6ef 1e6f5 1f16c 1fbf0-1fbf9`;

/** The hexadecimal ranges of a list as the inside of a character class. */
function ranges(list: string): string {
  return list
    .trim()
    .split(/\s+/)
    .map((range) => range.replace(/[0-9a-f]+/g, "\\u{$&}"))
    .join("");
}

/** A class of `property` without the characters of `list`. */
function without(property: string, list: string): string {
  return `[${property}--[${ranges(list)}]]`;
}

// The `v` flag gives classes difference and union.
const pattern = (source: string) => new RegExp(source, "gv");

const LETTER = without("\\p{L}", NEW_LETTERS);
const NUMBER = without("\\p{N}", NEW_NUMBERS);
const PUNCTUATION_MARK = `[${without("\\p{P}", NEW_PUNCTUATION)}\\u{166d}\\u{111c9}!-\\/:-@\\[-\\\`\\{-~]`;
const WORD_CHARACTER = without(
  "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\u{200c}\\u{200d}]",
  NEW_WORD_CHARACTERS,
);

// \s differs from White_Space in U+0085 and U+FEFF.
export const WHITE_SPACE: RegExp = pattern("\\p{White_Space}");
export const NOT_WHITE_SPACE: RegExp = pattern("\\P{White_Space}+");

/** What BERT drops: NUL, U+FFFD, control and format characters but for tab and line ends. */
export const IGNORABLE: RegExp = pattern(
  `[[\\p{Cc}\\p{Co}\\u{fffd}${without("\\p{Cf}", NEW_FORMAT_CHARACTERS)}]--[\\t\\n\\r]]`,
);

/** The ideographs that BERT takes as words; U+2B920 for U+2B820 is a slip that Python makes. */
export const CHINESE: RegExp = pattern(
  "[\\u{4e00}-\\u{9fff}\\u{3400}-\\u{4dbf}\\u{20000}-\\u{2a6df}\\u{2a700}-\\u{2b81f}" +
    "\\u{2b920}-\\u{2ceaf}\\u{f900}-\\u{faff}\\u{2f800}-\\u{2fa1f}]",
);

export const NON_SPACING_MARKS: RegExp = pattern(
  `[${without("\\p{Mn}", NEW_NON_SPACING_MARKS)}\\u{1734}\\u{1171e}]`,
);
export const MARKS: RegExp = pattern(`[${without("\\p{M}", NEW_MARKS)}\\u{1cf2}\\u{1cf3}]`);

export const BERT_WORDS: RegExp = pattern(
  `[^\\p{White_Space}${PUNCTUATION_MARK}]+|${PUNCTUATION_MARK}`,
);
export const PUNCTUATION: RegExp = pattern(`[^${PUNCTUATION_MARK}]+|${PUNCTUATION_MARK}`);
export const WORDS: RegExp = pattern(`${WORD_CHARACTER}+|[^${WORD_CHARACTER}\\p{White_Space}]+`);
export const DIGITS: RegExp = pattern("\\p{N}+|\\P{N}+");
export const SINGLE_DIGITS: RegExp = pattern("\\p{N}|\\P{N}+");

/** GPT-2's words: contractions, then letters, numbers or others, each with the space before it. */
export const BYTE_LEVEL_WORDS: RegExp = pattern(
  `'s|'t|'re|'ve|'m|'ll|'d| ?${LETTER}+| ?${NUMBER}+| ?[^\\p{White_Space}${LETTER}${NUMBER}]+` +
    "|\\p{White_Space}+(?!\\P{White_Space})|\\p{White_Space}+",
);

const STARTS_WITH_WORD = new RegExp(`^${WORD_CHARACTER}`, "v");
const ENDS_WITH_WORD = new RegExp(`${WORD_CHARACTER}$`, "v");

/** Whether the character before `start` or the one at `end` belongs to a word. */
export function touchesWord(text: string, start: number, end: number): boolean {
  // Two code units hold any character.
  return (
    ENDS_WITH_WORD.test(text.slice(Math.max(0, start - 2), start)) ||
    STARTS_WITH_WORD.test(text.slice(end, end + 2))
  );
}

const IS_WHITE_SPACE = /^\p{White_Space}$/u;

/** Without white space at the start; it is all in the basic plane. */
export function trimStart(text: string): string {
  let start = 0;
  while (start < text.length && IS_WHITE_SPACE.test(text[start]!)) start++;
  return text.slice(start);
}

export function trimEnd(text: string): string {
  // A loop: the time of /\s+$/ is quadratic in a run of spaces.
  let end = text.length;
  while (end > 0 && IS_WHITE_SPACE.test(text[end - 1]!)) end--;
  return text.slice(0, end);
}

/** Lower case of each character by itself: Python's final sigma is no other than any sigma. */
export function lowerCase(text: string): string {
  return text.replaceAll("Σ", "σ").toLowerCase();
}

const NEW_CHARACTER = pattern(`([${ranges(NEW_NORMALIZED)}])`);

/** Node sorts marks in the time of their number squared: this many take 6 ms. Unicode advises 30. */
const MAX_MARKS = 4096;

/**
 * A Unicode normal form that leaves alone the characters that are newer than Python's tables.
 *
 * @throws LokoError ERR_SEQUENCE_LENGTH when more than 4096 combining marks follow one another.
 */
export function normalizeForm(text: string, form: "NFC" | "NFD" | "NFKC" | "NFKD"): string {
  if (text.length > MAX_MARKS) requireFewMarks(text);
  return text
    .split(NEW_CHARACTER)
    .map((part, i) => (i % 2 === 0 ? part.normalize(form) : part))
    .join("");
}

function requireFewMarks(text: string): void {
  for (const [marks] of text.matchAll(/\p{M}+/gu)) {
    if (marks.length <= MAX_MARKS) continue;
    throw new LokoError(
      "ERR_SEQUENCE_LENGTH",
      `a text must have at most ${MAX_MARKS} combining marks in a row, got ${marks.length}.`,
    );
  }
}

/** Lone halves of surrogate pairs as U+FFFD, as every encoder of UTF-8 writes them. */
export function toWellFormed(text: string): string {
  return text.replace(/\p{Surrogate}/gu, "\ufffd");
}
