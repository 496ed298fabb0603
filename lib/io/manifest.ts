// manifest.json: size and SHA-256 of every file of a folder, so that damage is found before it is used.

import { createHash } from "node:crypto";
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, LokoError } from "../errors.js";
import { exists, readInto, withFile } from "./files.js";
import { readJsonObject } from "./json.js";

export const MANIFEST_FILE = "manifest.json";
const FORMAT_VERSION = 1;

/** Hashed in one go; a fraction of a millisecond, after which the event loop may turn. */
const CHUNK_BYTES = 256 * 1024;

interface FileDigest {
  readonly size: number;
  readonly sha256: string;
}

async function digest(path: string): Promise<FileDigest> {
  return withFile(path, async ({ handle, size }) => {
    const hash = createHash("sha256");
    const chunk = new Uint8Array(Math.min(size, CHUNK_BYTES));
    for (let position = 0; position < size; ) {
      const got = await readInto(handle, chunk, position);
      if (got === 0) break;
      hash.update(chunk.subarray(0, got));
      position += got;
    }
    return { size, sha256: hash.digest("hex") };
  });
}

/** Describes all files that are in `folder` now. */
export async function writeManifest(folder: string): Promise<void> {
  const files: Record<string, FileDigest> = {};
  for (const name of (await readdir(folder)).sort()) files[name] = await digest(join(folder, name));
  const text = JSON.stringify({ format: FORMAT_VERSION, files }, null, 2);
  await writeFile(join(folder, MANIFEST_FILE), `${text}\n`);
}

/**
 * Compares a folder with its manifest, byte by byte.
 *
 * @param required - files that the manifest must name.
 * @throws LokoError ERR_CHECKPOINT_FORMAT naming the file and what is wrong with it.
 */
export async function verifyManifest(folder: string, required: readonly string[]): Promise<void> {
  const refuse = (reason: string, cause?: unknown): never => {
    const message = `${folder}: is damaged or was not finished: ${reason}.`;
    throw new LokoError("ERR_CHECKPOINT_FORMAT", message, { cause });
  };
  const files = await readManifest(folder).catch((error: unknown) =>
    refuse((error as Error).message.replace(/\.$/, ""), error),
  );
  for (const name of required) {
    if (!Object.hasOwn(files, name)) refuse(`${MANIFEST_FILE} does not name ${name}`);
  }
  for (const [name, expected] of Object.entries(files)) {
    const path = join(folder, name);
    if (!(await exists(path))) refuse(`${name} is missing`);
    const { size, sha256 } = await digest(path);
    if (size !== expected.size) refuse(`${name} has ${size} of ${expected.size} bytes`);
    if (sha256 !== expected.sha256) refuse(`${name} has other contents than when it was written`);
  }
}

async function readManifest(folder: string): Promise<Record<string, FileDigest>> {
  const path = join(folder, MANIFEST_FILE);
  const { format, files } = await readJsonObject(path);
  if (format !== FORMAT_VERSION || !isDigests(files)) {
    throw new LokoError(
      "ERR_CONFIG",
      `${MANIFEST_FILE} must have format ${FORMAT_VERSION}, and files with size and sha256 each; got ` +
        `${describe(format)} and ${describe(files)}.`,
    );
  }
  // A name with a separator could lead out of the folder.
  const bad = Object.keys(files).find((name) => /[\\/\0]/.test(name) || name === "..");
  if (bad === undefined) return files;
  throw new LokoError(
    "ERR_CONFIG",
    `${MANIFEST_FILE} names ${describe(bad)}, which is no file name.`,
  );
}

function isDigests(files: unknown): files is Record<string, FileDigest> {
  return (
    typeof files === "object" &&
    files !== null &&
    Object.values(files).every(
      (file: Partial<FileDigest> | null) =>
        Number.isSafeInteger(file?.size) && typeof file?.sha256 === "string",
    )
  );
}
