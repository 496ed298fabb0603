import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect } from "vitest";

import { LokoError, type LokoErrorCode } from "../../../lib/errors.js";

/** A folder that is removed when the test ends. */
export async function temporaryFolder(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "loko-test-"));
  folders.push(dir);
  return dir;
}

const folders: string[] = [];
afterEach(async () => {
  for (const dir of folders.splice(0)) await rm(dir, { recursive: true, force: true });
});

/** The bytes of a safetensors file: length, header, data. A string is taken as the header's text. */
export function safetensorsBytes(
  header: object | string,
  data: Uint8Array = new Uint8Array(0),
  headerLength?: bigint,
): Uint8Array {
  const text = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(headerLength ?? BigInt(text.length));
  return Buffer.concat([length, text, data]);
}

/** The error that `run` throws or rejects with, which must be a LokoError with `code`. */
export async function errorOf(code: LokoErrorCode, run: () => unknown): Promise<LokoError> {
  let result: unknown;
  try {
    result = await run();
  } catch (error) {
    expect(error).toBeInstanceOf(LokoError);
    expect((error as LokoError).code).toBe(code);
    return error as LokoError;
  }
  throw new Error(`expected ${code}, got the value ${JSON.stringify(result)}`);
}
