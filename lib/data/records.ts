import { describe, LokoError } from "../errors.js";

/** Told which columns a file has, answers which of them to read. */
export type ChooseColumns = (columns: readonly string[]) => readonly string[];

/** One record of a data file. */
export interface DataRecord {
  /** The values of the chosen columns; undefined where a record lacks one. */
  readonly values: readonly unknown[];
  /** Where it stands in the file, from 1: its line, or its row where the format has no lines. */
  readonly position: number;
}

/**
 * Longest record accepted, in characters: far above any text a model reads, and small enough that a
 * file without line breaks cannot fill the memory.
 */
export const MAX_RECORD_LENGTH = 16 * 2 ** 20;

/** @param where - the path, and the line or row where there is one. */
export function formatError(where: string, problem: string, cause?: unknown): LokoError {
  const options = cause === undefined ? undefined : { cause };
  return new LokoError("ERR_DATA_FORMAT", `${where}: ${problem}.`, options);
}

/** A list of names for a message, cut where it gets long. */
export function listNames(names: readonly string[], limit = 20): string {
  const shown = names.slice(0, limit).map(describe).join(", ");
  return names.length > limit ? `${shown} and ${names.length - limit} more` : shown;
}
