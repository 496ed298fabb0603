import { pipeline } from "node:stream";
import { CsvError, type InfoRecord, parse } from "csv-parse";

import {
  type ChooseColumns,
  type DataRecord,
  formatError,
  listNames,
  MAX_RECORD_LENGTH,
} from "./records.js";
import { readTextChunks } from "./text-chunks.js";

/** What tells one kind of delimited text from another. */
export interface DelimitedFormat {
  readonly delimiter: "," | "\t";
  /** Fields may stand in double quotes, and then hold delimiters, line breaks and doubled quotes. */
  readonly quotes: boolean;
  /** The columns of a file without a header, told from its first record; undefined: it is a header. */
  readonly columnsWithoutHeader?: (first: readonly string[]) => readonly string[] | undefined;
}

/**
 * Reads delimited text record by record. Lines end in LF or CRLF; blank lines are skipped.
 *
 * @throws LokoError as `readTextChunks`; ERR_DATA_FORMAT for a ragged, too long or badly quoted record.
 */
export async function* readDelimited(
  path: string,
  choose: ChooseColumns,
  format: DelimitedFormat,
): AsyncGenerator<DataRecord, void, undefined> {
  let columns: readonly string[] | undefined;
  let chosen: readonly number[] = [];
  for await (const { fields, line } of parseRecords(path, format)) {
    const isFirst = columns === undefined;
    columns ??= format.columnsWithoutHeader?.(fields) ?? fields;
    if (fields.length !== columns.length) {
      throw formatError(
        `${path}: line ${line}`,
        `expected ${columns.length} fields (${listNames(columns)}), got ${fields.length}`,
      );
    }
    if (isFirst) {
      const names = columns;
      chosen = choose(names).map((name) => names.indexOf(name));
      if (columns === fields) continue;
    }
    yield { values: chosen.map((index) => fields[index]), position: line };
  }
}

interface ParsedRecord {
  readonly fields: readonly string[];
  readonly line: number;
}

async function* parseRecords(
  path: string,
  { delimiter, quotes }: DelimitedFormat,
): AsyncGenerator<ParsedRecord, void, undefined> {
  // Counted here, for the parser counts both halves of a CRLF in a quoted field.
  let linesRead = 0;
  const firstLine = (emptyLines: number) => linesRead + emptyLines + 1;
  const onRecord = (fields: string[], info: InfoRecord): ParsedRecord => {
    const record = { fields, line: firstLine(info.empty_lines) };
    linesRead += fields.reduce((lines, field) => lines + countBreaks(field), 1);
    return record;
  };
  const parser = parse({
    delimiter,
    quote: quotes ? '"' : null,
    record_delimiter: ["\r\n", "\n"],
    relax_column_count: true,
    skip_empty_lines: true,
    max_record_size: MAX_RECORD_LENGTH,
    on_record: onRecord as never,
  });
  const chunks = readTextChunks(path);
  try {
    // Its errors come out of the iteration as well, so there is nothing to do at its end.
    yield* pipeline(chunks, parser, () => {}) as AsyncIterable<ParsedRecord>;
  } catch (error) {
    if (!(error instanceof CsvError)) throw error;
    const problem = PROBLEMS[error.code] ?? error.message;
    throw formatError(`${path}: line ${firstLine(parser.info.empty_lines)}`, problem, error);
  } finally {
    // The pipeline does not wait until the file is closed.
    await chunks.return();
  }
}

function countBreaks(field: string): number {
  return field.includes("\n") ? field.split("\n").length - 1 : 0;
}

const PROBLEMS: Readonly<Record<string, string>> = {
  CSV_MAX_RECORD_SIZE: `the record that begins here is longer than ${MAX_RECORD_LENGTH} characters. Is a quote not closed?`,
  CSV_QUOTE_NOT_CLOSED: "the record that begins here has a quote that is not closed",
  CSV_INVALID_CLOSING_QUOTE:
    "the record that begins here goes on after a closing quote. Double a quote inside a quoted field",
  INVALID_OPENING_QUOTE:
    "the record that begins here has a quote inside a field. Put the field in quotes and double it",
};
