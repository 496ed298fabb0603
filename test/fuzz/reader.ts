// What a fuzzed reader is, how its input is changed, and how one case is run. A case is named by
// (seed, reader, index) and is the same on every machine.
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join, relative } from "node:path";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { LokoError } from "../../lib/errors.js";
import { mutateBytes, mutateJson, Random } from "../unit/io/mutate.js";

/** A folder's files by their names. */
export type Files = ReadonlyMap<string, Uint8Array>;

export interface Reader {
  readonly name: string;
  /** Valid inputs, one of which each case changes. */
  readonly originals: readonly Files[];
  /** Reads what is in the folder, uses it and checks what it promises; may throw a LokoError. */
  read(dir: string): Promise<void>;
  /** Makes changed files fit together again, so that a change is not found by its checksum. */
  repair?(dir: string, random: Random): void;
}

/** "ok", or the code of the error. */
export type Outcome = string;

/** A case that ended as none may. */
export class Finding extends Error {}

/** In the repository, wherever in it this file has been compiled to. */
const FIXTURES = findFixtures(fileURLToPath(new URL(".", import.meta.url)));

function findFixtures(from: string): string {
  const path = join(from, "test/fixtures");
  return existsSync(path) ? path : findFixtures(join(from, ".."));
}

export function fixturePath(name: string): string {
  return join(FIXTURES, name);
}

/** The files of a folder of fixtures, those in its folders too. */
export function fixtureFolder(name: string): Files {
  return readFolder(fixturePath(name));
}

export function readFolder(dir: string): Files {
  const entries = readdirSync(dir, { recursive: true, withFileTypes: true });
  return new Map(
    entries
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .sort()
      .map((path) => [relative(dir, path), new Uint8Array(readFileSync(path))]),
  );
}

export function fixtureFile(path: string, as: string): Files {
  return new Map([[as, new Uint8Array(readFileSync(fixturePath(path)))]]);
}

export function writeFiles(dir: string, files: Files): void {
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  for (const [name, bytes] of files) {
    mkdirSync(join(dir, name, ".."), { recursive: true });
    writeFileSync(join(dir, name), bytes);
  }
}

/** The generator of one case; nearby seeds and indices must not give nearby cases. */
export function randomOf(seed: number, reader: string, index: number): Random {
  let hash = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b);
  for (const character of `${reader}/${index}`) {
    hash = Math.imul(hash ^ character.charCodeAt(0), 0x01000193);
    hash ^= hash >>> 15;
  }
  return new Random(hash);
}

/** Fills `dir` with the changed input of a case. */
export function makeCase(reader: Reader, dir: string, random: Random): void {
  const files = new Map(random.pick(reader.originals));
  const names = [...files.keys()];
  // Mostly one change: what comes after the first error is never looked at.
  for (let changes = random.pick([1, 1, 1, 2, 3]); changes > 0; changes--) {
    const name = random.pick(names);
    const bytes = files.get(name);
    if (bytes === undefined) continue; // was removed
    const other = files.get(random.pick(names)) ?? bytes;
    // A copy, and no Buffer, whose slice() would share the memory of the original.
    const changed = mutateFile(name, Uint8Array.from(bytes), other, random);
    if (changed === undefined) files.delete(name);
    else files.set(name, changed);
  }
  writeFiles(dir, files);
  if (random.next() < 0.8) reader.repair?.(dir, random);
}

/** @returns undefined for a file that is taken away. */
function mutateFile(
  name: string,
  bytes: Uint8Array,
  other: Uint8Array,
  random: Random,
): Uint8Array | undefined {
  const kind = random.next();
  if (kind < 0.01) return undefined;
  if (kind < 0.02) return new Uint8Array(0);
  if (kind < 0.03) return other;
  if (kind < 0.05) return bytes.slice(0, random.below(bytes.length + 1));
  if (kind < 0.07) return overwriteInteger(bytes, random);
  if (kind > 0.85) return mutateBytes(bytes, random);
  if (name.endsWith(".json")) {
    return Buffer.from(mutateJson(Buffer.from(bytes).toString("utf8"), random));
  }
  if (name.endsWith(".safetensors") && kind < 0.6) return mutateHeader(bytes, random);
  if (name.endsWith(".safetensors") && kind < 0.7) return overwriteFloat(bytes, random);
  return mutateBytes(bytes, random);
}

/** Changes the header of a safetensors file and keeps its length and the data right. */
function mutateHeader(bytes: Uint8Array, random: Random): Uint8Array {
  if (bytes.length < 8) return bytes;
  const length = Number(Buffer.from(bytes).readBigUInt64LE(0));
  if (!(length <= bytes.length - 8)) return bytes;
  const header = Buffer.from(bytes.subarray(8, 8 + length)).toString("utf8");
  const changed = Buffer.from(mutateJson(header, random));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(changed.length));
  return Buffer.concat([prefix, changed, bytes.subarray(8 + length)]);
}

const FLOATS = [Number.NaN, Number.POSITIVE_INFINITY, -0, 3e38, -1e30, 1e-40, 0];

function overwriteFloat(bytes: Uint8Array, random: Random): Uint8Array {
  const changed = Buffer.from(bytes);
  if (changed.length < 4) return changed;
  // Somewhere in the data, which take most of a file and end with it.
  const place = changed.length - 4 * (1 + random.below(Math.floor(changed.length / 4)));
  changed.writeFloatLE(random.pick(FLOATS), place);
  return changed;
}

const INTEGERS = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff];

/** A number that a binary format may have taken for a size, in either byte order. */
function overwriteInteger(bytes: Uint8Array, random: Random): Uint8Array {
  const changed = Buffer.from(bytes);
  if (changed.length < 4) return changed;
  const place = random.below(changed.length - 3);
  const value = random.pick(INTEGERS);
  if (random.next() < 0.5) changed.writeUInt32LE(value, place);
  else changed.writeUInt32BE(value, place);
  return changed;
}

/** More than any of the small inputs may need. */
const MAX_GROWTH_KB = 400 * 1024;

/**
 * Runs one case in `dir`.
 *
 * @throws Finding for another error than a coded one, an open file that is left, and memory out of proportion.
 */
export async function runCase(
  reader: Reader,
  seed: number,
  index: number,
  dir: string,
): Promise<Outcome> {
  makeCase(reader, dir, randomOf(seed, reader.name, index));
  const memory = process.resourceUsage().maxRSS;
  let outcome: Outcome = "ok";
  try {
    await reader.read(dir);
  } catch (error) {
    if (!(error instanceof LokoError) || error.code === "ERR_INTERNAL") {
      throw new Finding(error instanceof Error ? (error.stack ?? error.message) : String(error));
    }
    if (error.message.length > 4000) throw new Finding(`a message of ${error.message.length}`);
    outcome = error.code;
  }
  const growth = process.resourceUsage().maxRSS - memory;
  if (growth > MAX_GROWTH_KB) throw new Finding(`the process grew by ${growth} kB: ${outcome}`);
  const open = await openFilesIn(dir);
  if (open.length > 0) throw new Finding(`left open after ${outcome}: ${open.join(", ")}`);
  return outcome;
}

/** What is still open after a while; dispose() of a model does not wait for its thread. */
async function openFilesIn(dir: string): Promise<string[]> {
  if (process.platform !== "linux") return [];
  let open: string[] = [];
  for (let wait = 0; wait < 2000; wait += 20) {
    open = readdirSync("/proc/self/fd")
      .map(targetOf)
      .filter((target) => target.startsWith(dir));
    if (open.length === 0) break;
    await setTimeout(20);
  }
  return open;
}

function targetOf(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return ""; // closed meanwhile
  }
}
