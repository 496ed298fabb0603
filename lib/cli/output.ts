import { once } from "node:events";
import { LokoError } from "../errors.js";
import { extentOf } from "./extent.js";

export { count, counted } from "../report/format.js";

let failure: NodeJS.ErrnoException | undefined;

/** Keeps a closed pipe (`loko predict | head`) from ending the process with a stack. */
export function guardOutput(): void {
  process.stdout.on("error", (error) => {
    failure ??= error;
  });
  process.stderr.on("error", () => {});
}

/**
 * Writes a line to stdout and waits where the reader is slower.
 *
 * @returns whether there is still a reader; a command without another purpose should end then.
 * @throws LokoError ERR_FILE_WRITE when stdout is a file that cannot be written.
 */
export async function printLine(line: string): Promise<boolean> {
  if (failure === undefined && !process.stdout.write(`${line}\n`)) {
    // Neither event need come once the pipe is closed.
    await Promise.race([once(process.stdout, "drain"), once(process.stdout, "close")]).catch(
      () => {},
    );
  }
  if (failure === undefined) return true;
  if (failure.code === "EPIPE" || failure.code === "ERR_STREAM_DESTROYED") return false;
  throw new LokoError("ERR_FILE_WRITE", `stdout cannot be written: ${failure.message}.`, {
    cause: failure,
  });
}

/** One JSON document; what is not finite becomes null. */
export function printJson(value: unknown): Promise<boolean> {
  return printLine(JSON.stringify(value, null, 2));
}

/** Names and what they stand for, in two columns; rows without a value are left out. */
export function printFacts(
  rows: readonly (readonly [string, string | undefined])[],
): Promise<boolean> {
  const shown = rows.filter((row): row is readonly [string, string] => row[1] !== undefined);
  const width = extentOf(shown.map(([name]) => name.length))[1] + 2;
  return printLine(shown.map(([name, value]) => name.padEnd(width) + value).join("\n"));
}

/** A header and rows, in columns as wide as their widest cell; numbers stand to the right. */
export function printTable(rows: readonly (readonly string[])[]): Promise<boolean> {
  const [header, ...body] = rows;
  const columns = header!.map((_, column) => ({
    width: extentOf(rows.map((row) => row[column]!.length))[1],
    isNumeric: body.every((row) => /^[\d.,-]+$|^NaN$|^-?Infinity$|^$/.test(row[column]!)),
  }));
  const line = (row: readonly string[]) =>
    columns
      .map(({ width, isNumeric }, i) =>
        isNumeric ? row[i]!.padStart(width) : row[i]!.padEnd(width),
      )
      .join("  ")
      .trimEnd();
  return printLine(rows.map(line).join("\n"));
}

/** `512 B`, `1.5 MiB` */
export function byteSize(bytes: number): string {
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let size = bytes;
  let unit = "B";
  for (const larger of units) {
    if (size < 1024) break;
    size /= 1024;
    unit = larger;
  }
  return `${unit === "B" ? size : size.toFixed(1)} ${unit}`;
}
