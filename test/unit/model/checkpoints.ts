// Makes damaged copies of a small checkpoint.
import {
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { LokoError } from "../../../lib/errors.js";
import { vitFolder } from "../../parity/fixtures.js";

export interface HeaderEntry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}
export type Header = Record<string, HeaderEntry>;

/** A copy of a checkpoint, by default `vit/odd/base`, that a test may damage. */
export class CheckpointCopy {
  readonly dir = mkdtempSync(join(tmpdir(), "loko-checkpoint-"));
  readonly weights = join(this.dir, "model.safetensors");
  readonly config = join(this.dir, "config.json");

  constructor(source = vitFolder("odd")) {
    cpSync(source, this.dir, { recursive: true });
  }

  editConfig(edit: (config: Record<string, unknown>) => void): void {
    const config = JSON.parse(readFileSync(this.config, "utf8")) as Record<string, unknown>;
    edit(config);
    writeFileSync(this.config, JSON.stringify(config));
  }

  /** Rewrites the header and keeps the data. */
  editHeader(edit: (header: Header) => void): void {
    const bytes = readFileSync(this.weights);
    const length = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.toString("utf8", 8, 8 + length)) as Header;
    edit(header);
    this.writeWeights(JSON.stringify(header), bytes.subarray(8 + length));
  }

  writeWeights(header: string, data: Uint8Array, length = Buffer.byteLength(header)): void {
    const prefix = Buffer.alloc(8);
    prefix.writeBigUInt64LE(BigInt(length));
    writeFileSync(this.weights, Buffer.concat([prefix, Buffer.from(header), data]));
  }

  [Symbol.dispose](): void {
    rmSync(this.dir, { recursive: true });
  }
}

/** The error that `action` rejects or throws with, which must have that code and those words. */
export async function expectError(
  action: () => unknown,
  code: string,
  ...words: readonly string[]
): Promise<LokoError> {
  let error: unknown;
  try {
    await action();
  } catch (caught) {
    error = caught;
  }
  expect(error).toBeInstanceOf(LokoError);
  const { code: actual, message } = error as LokoError;
  expect({ code: actual, message }).toMatchObject({ code });
  for (const word of words) expect(message).toContain(word);
  return error as LokoError;
}

/** Open files of this process inside `dir`; a loader that failed must not leave any. */
export function openFilesIn(dir: string): string[] {
  const targets = readdirSync("/proc/self/fd").map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return ""; // closed meanwhile
    }
  });
  return targets.filter((target) => target.startsWith(dir));
}
