import { join } from "node:path";
import { LokoError } from "../errors.js";
import { readInto, withFile } from "../io/files.js";
import { Section, tokenizerError } from "./section.js";

/** Four times the largest tokenizer.json of a multilingual model. */
const MAX_BYTES = 64 * 1024 * 1024;

/** A text file of a tokenizer. */
export interface TextFile {
  readonly path: string;
  readonly text: string;
}

/**
 * Reads a UTF-8 file, with or without a byte order mark.
 *
 * @returns undefined when there is no such file.
 * @throws LokoError ERR_FILE_READ, also above 64 MiB; ERR_TOKENIZER when it is not UTF-8.
 */
export async function readTextFile(dir: string, name: string): Promise<TextFile | undefined> {
  const path = join(dir, name);
  const bytes = await readBytes(path);
  if (bytes === undefined) return undefined;
  try {
    return { path, text: new TextDecoder("utf-8", { fatal: true }).decode(bytes) };
  } catch (error) {
    throw tokenizerError(path, "expected UTF-8, got bytes that are not.", error);
  }
}

async function readBytes(path: string): Promise<Uint8Array | undefined> {
  try {
    return await withFile(path, async ({ handle, size }) => {
      if (size > MAX_BYTES) {
        throw new LokoError(
          "ERR_FILE_READ",
          `${path}: expected at most ${MAX_BYTES} bytes, got ${size}. Is it the right file?`,
        );
      }
      const buffer = new Uint8Array(size);
      return buffer.subarray(0, await readInto(handle, buffer, 0));
    });
  } catch (error) {
    if (error instanceof LokoError && error.code === "ERR_FILE_NOT_FOUND") return undefined;
    throw error;
  }
}

/** Reads a file that must hold a JSON object; otherwise as {@link readTextFile}. */
export async function readJsonFile(dir: string, name: string): Promise<Section | undefined> {
  const file = await readTextFile(dir, name);
  return file === undefined ? undefined : parseJsonFile(file);
}

/** @throws LokoError ERR_TOKENIZER. */
export function parseJsonFile({ path, text }: TextFile): Section {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw tokenizerError(path, `expected a JSON object: ${reason}`, error);
  }
  return Section.of(value, path);
}
