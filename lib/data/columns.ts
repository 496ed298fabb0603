import { describe, LokoError, nearestNames } from "../errors.js";
import { listNames } from "./records.js";

/** Which columns hold what; without names they are found. */
export interface ColumnOptions {
  /**
   * Column of the text. Default: `sentence` or `text`, or the first of the pairs `sentence1` and
   * `sentence2`, `#1 String` and `#2 String` (MRPC), `premise` and `hypothesis`, `question1` and
   * `question2`, `question` and `sentence`, `text` and `text_pair`, whichever the file has.
   */
  textColumn?: string;
  /** Column of the second text of a pair. Default: none where `textColumn` is named. */
  pairColumn?: string;
  /** Column of the label. Default: `label`, `labels` or `Quality` (MRPC). false: labels are not read. */
  labelColumn?: string | false;
}

/** The columns of a file that are read. */
export interface TextColumns {
  readonly text: string;
  readonly pair?: string;
  readonly label?: string;
}

/** Texts and pairs as the tasks of GLUE name them; the first whose columns are all there is taken. */
const TEXTS: readonly (readonly [text: string, pair?: string])[] = [
  ["sentence1", "sentence2"],
  ["#1 String", "#2 String"],
  ["premise", "hypothesis"],
  ["question1", "question2"],
  ["question", "sentence"],
  ["text", "text_pair"],
  ["sentence"],
  ["text"],
];
const LABELS = ["label", "labels", "Quality"];

/**
 * Finds the columns to read among those of a file.
 *
 * @throws LokoError ERR_DATA_COLUMN when one is not there or there twice, naming those that are.
 */
export function findColumns(
  path: string,
  columns: readonly string[],
  options: ColumnOptions,
): TextColumns {
  const { textColumn, pairColumn, labelColumn } = options;
  const has = (name: string | undefined) => name === undefined || columns.includes(name);
  const [knownText, knownPair] = TEXTS.find((names) => names.every(has)) ?? [];
  const text = textColumn ?? knownText;
  const pair = pairColumn ?? (textColumn === undefined ? knownPair : undefined);
  const label = labelColumn === false ? undefined : (labelColumn ?? LABELS.find(has));

  const there = `The columns are ${listNames(columns)}`;
  if (text === undefined) {
    const known = listNames(["sentence", "text", "sentence1"]);
    throw columnError(
      path,
      `found no column for the text (such as ${known}). ${there}; name it: textColumn.`,
    );
  }
  if (label === undefined && labelColumn !== false) {
    throw columnError(
      path,
      `found no column for the label (${listNames(LABELS)}). ${there}; name it: labelColumn, ` +
        "or pass labelColumn: false to read texts without labels.",
    );
  }
  for (const name of [text, pair, label]) {
    if (name === undefined) continue;
    const first = columns.indexOf(name);
    if (first === -1) {
      const [nearest] = nearestNames(name, columns, 1);
      throw columnError(
        path,
        `has no column ${describe(name)}; the nearest is ${describe(nearest)}. ${there}.`,
      );
    }
    if (columns.indexOf(name, first + 1) !== -1) {
      throw columnError(path, `has more than one column ${describe(name)}. ${there}.`);
    }
  }
  return { text, pair, label };
}

function columnError(path: string, problem: string): LokoError {
  return new LokoError("ERR_DATA_COLUMN", `${path}: ${problem}`);
}
