import { describe, type LokoError } from "../errors.js";
import { type ChooseColumns, type DataRecord, formatError, MAX_RECORD_LENGTH } from "./records.js";
import { readTextChunks } from "./text-chunks.js";

/**
 * Reads one JSON object per line; the columns are the keys of the first one. Blank lines are skipped.
 *
 * @throws LokoError as `readTextChunks`; ERR_DATA_FORMAT for a line that is too long or no JSON object.
 */
export async function* readJsonLines(
  path: string,
  choose: ChooseColumns,
): AsyncGenerator<DataRecord, void, undefined> {
  let chosen: readonly string[] | undefined;
  let position = 0;
  for await (const line of readLines(path)) {
    position++;
    if (line.trim() === "") continue;
    const object = parseObject(line, `${path}: line ${position}`);
    chosen ??= choose(Object.keys(object));
    const values = chosen.map((name) => (Object.hasOwn(object, name) ? object[name] : undefined));
    yield { values, position };
  }
}

function parseObject(line: string, where: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw formatError(where, `expected a JSON object: ${(error as Error).message}`, error);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw formatError(where, `expected a JSON object, got ${describe(value)}`);
  }
  return value as Record<string, unknown>;
}

/** Not node:readline, which ends a line at U+2028 as well and has no limit. */
async function* readLines(path: string): AsyncGenerator<string, void, undefined> {
  let parts: Buffer[] = [];
  let length = 0;
  let lines = 0;
  const tooLong = (): LokoError =>
    formatError(`${path}: line ${lines + 1}`, `is longer than ${MAX_RECORD_LENGTH} bytes`);
  for await (const chunk of readTextChunks(path)) {
    let start = 0;
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, start)) {
      if (length + end - start > MAX_RECORD_LENGTH) throw tooLong();
      yield Buffer.concat([...parts, chunk.subarray(start, end)]).toString();
      [parts, length, start] = [[], 0, end + 1];
      lines++;
    }
    parts.push(chunk.subarray(start));
    length += chunk.length - start;
    if (length > MAX_RECORD_LENGTH) throw tooLong();
  }
  yield Buffer.concat(parts).toString();
}
