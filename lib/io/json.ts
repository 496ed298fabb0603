import { describe, LokoError } from "../errors.js";
import { readInto, withFile } from "./files.js";
import { spelledMembers } from "./json-text.js";

/** A parsed JSON object; its values are unknown until the readers in `config.ts` have checked them. */
export type JsonObject = Record<string, unknown>;

/** Above real files (an index of 100,000 weights has 10 MB), and parsed into 1 GB at the very worst. */
const DEFAULT_MAX_BYTES = 16 * 1024 * 1024;

/** Where an object was read from, so that a later complaint about a key can name the file. */
const origins = new WeakMap<object, string>();

/** The members of the objects that {@link readJsonObject} was asked to remember. */
const spellings = new WeakMap<object, ReadonlyMap<string, string>>();

/** The values of a remembered object as its file spells them. */
export function spellingOf(object: object): ReadonlyMap<string, string> {
  return spellings.get(object) ?? new Map();
}

/** Says where a part of a file came from. */
export function setOrigin(object: object, origin: string): void {
  origins.set(object, origin);
}

/** The file that `object` was parsed from, or `fallback` where it did not come from a file. */
export function originOf(object: object, fallback = "configuration"): string {
  return origins.get(object) ?? fallback;
}

/** `derived`, which complaints attribute to the file that `source` came from. */
export function ofSameOrigin<T extends object>(derived: T, source: object): T {
  const path = origins.get(source);
  if (path !== undefined) origins.set(derived, path);
  return derived;
}

/**
 * Parses UTF-8 JSON whose top level must be an object.
 *
 * @param path - names the source in messages, and in later ones by way of {@link originOf}.
 * @throws LokoError ERR_CONFIG when the bytes are not UTF-8, not JSON, or not an object.
 */
export function parseJsonObject(bytes: Uint8Array, path: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch (error) {
    const reason = error instanceof Error ? error.message : describe(error);
    throw new LokoError("ERR_CONFIG", `${path}: expected a JSON object in UTF-8: ${reason}`, {
      cause: error,
    });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new LokoError("ERR_CONFIG", `${path}: expected a JSON object, got ${describe(value)}.`);
  }
  origins.set(value, path);
  return value as JsonObject;
}

/**
 * Reads and parses a JSON file whose top level must be an object.
 *
 * @param options.keepSpelling - whether {@link spellingOf} must know it. Default false.
 * @throws LokoError ERR_FILE_NOT_FOUND, ERR_FILE_READ (also above `maxBytes`), ERR_CONFIG.
 */
export async function readJsonObject(
  path: string,
  {
    maxBytes = DEFAULT_MAX_BYTES,
    keepSpelling = false,
  }: { maxBytes?: number; keepSpelling?: boolean } = {},
): Promise<JsonObject> {
  const bytes = await withFile(path, async ({ handle, size }) => {
    if (size > maxBytes) {
      throw new LokoError(
        "ERR_FILE_READ",
        `${path}: expected at most ${maxBytes} bytes of JSON, got ${size}. Is it the right file?`,
      );
    }
    const buffer = new Uint8Array(size);
    return buffer.subarray(0, await readInto(handle, buffer, 0));
  });
  const object = parseJsonObject(bytes, path);
  if (keepSpelling) spellings.set(object, spelledMembers(Buffer.from(bytes).toString("utf8")));
  return object;
}
