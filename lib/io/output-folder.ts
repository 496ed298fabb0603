import { randomUUID } from "node:crypto";
import { rmSync } from "node:fs";
import {
  type FileHandle,
  lstat,
  mkdir,
  open,
  readdir,
  realpath,
  rename,
  rm,
  rmdir,
} from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { isAbortOf } from "../abort.js";
import { describe, LokoError } from "../errors.js";
import { makeFolder } from "./make-folder.js";

/** Options of {@link writeFolder}. */
export interface OutputFolderOptions {
  /** Whether a folder that is not empty may be replaced. Default false. */
  readonly overwrite?: boolean;
  /** Files beside which the new ones would mean something else; not even `overwrite` mixes them. */
  readonly mustNotHold?: readonly string[];
  /**
   * Whether a file of the former folder belongs to what is replaced, and goes with it where `fill` writes
   * none of its name. Default: none does.
   */
  readonly isReplaced?: (name: string) => boolean;
  /** Gives up, with its reason, until the folder takes its place. */
  readonly signal?: AbortSignal | undefined;
}

/** Hidden folders and files that are being filled; a process that ends at once takes them with it. */
export const unfinished = new Set<string>();

/** Removes what {@link writeFolder} and `writeFile` have not finished, for a process that is about to end. */
export function discardUnfinished(): void {
  for (const folder of unfinished) rmSync(folder, { recursive: true, force: true });
}

/**
 * Tries all of {@link writeFolder} but the writing, to refuse before hours of work and not after.
 *
 * @throws LokoError as {@link writeFolder}.
 */
export async function checkFolder(dir: string, options: OutputFolderOptions = {}): Promise<void> {
  const stop = new Error("the folder can be written");
  await writeFolder(dir, () => Promise.reject(stop), options).catch((error: unknown) => {
    if (error !== stop) throw error;
  });
}

/**
 * Writes a folder so that it appears complete or not at all: `fill` writes into a hidden folder beside
 * it, whose files are flushed to the disk before it takes the place of `dir` by a rename. With
 * `overwrite` the former folder is moved aside first and moved back when that fails; files of it that
 * `fill` did not write are kept, but for those that `isReplaced` names. Should the machine stop between the two renames, both folders are
 * there, complete, under hidden names.
 *
 * @param dir - the folder; missing parents are made.
 * @param fill - receives the path of the hidden folder.
 * @throws LokoError ERR_OUTPUT_EXISTS, ERR_FILE_WRITE; nothing is left behind then, and the former
 * folder is as it was. Errors of `fill` that have a code are passed on. Rejects with the reason of a signal.
 */
export async function writeFolder(
  dir: string,
  fill: (folder: string) => Promise<void>,
  options: OutputFolderOptions = {},
): Promise<void> {
  const { signal } = options;
  signal?.throwIfAborted();
  let created: string | undefined;
  let temporary: string | undefined;
  let parent: string | undefined;
  try {
    const target = await realPath(dir);
    await requireReplaceable(dir, target);
    await requireFree(dir, target, options);
    parent = dirname(target);
    created = await makeFolder(parent);
    // Not mkdtemp, which would give the folder to its owner alone.
    temporary = join(parent, `.${basename(target).slice(0, 100)}.${randomUUID()}`);
    await mkdir(temporary);
    unfinished.add(temporary);
    await fill(temporary);
    await syncAll(temporary);
    await requireFree(dir, target, options);
    signal?.throwIfAborted();
    // From here on the hidden folder may be all that there is.
    unfinished.delete(temporary);
    await replace(target, temporary, options);
    await syncFolder(parent);
  } catch (error) {
    if (temporary !== undefined) {
      await rm(temporary, { recursive: true, force: true });
      unfinished.delete(temporary);
    }
    if (created !== undefined) await removeEmpty(parent!, created);
    throw isAbortOf(signal, error) ? error : toWriteError(dir, error);
  }
}

/** Writes all bytes from the current position on; a single write may write less. */
export async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  let done = 0;
  while (done < bytes.byteLength) {
    const length = Math.min(bytes.byteLength - done, MAX_WRITE_BYTES);
    const { bytesWritten } = await handle.write(bytes, done, length);
    done += bytesWritten;
  }
}

/** Node refuses a single write of 2 GiB or more. */
const MAX_WRITE_BYTES = 2 ** 30;

/**
 * Through links, so that what a link points to is replaced and not the link.
 *
 * @throws LokoError ERR_FILE_WRITE for a link to nothing.
 */
export async function realPath(dir: string): Promise<string> {
  try {
    return await realpath(dir);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    const isLink = await lstat(dir).then(
      (stats) => stats.isSymbolicLink(),
      () => false,
    );
    if (!isLink) return resolve(dir);
    throw new LokoError(
      "ERR_FILE_WRITE",
      `${dir}: is a link to a folder that does not exist. Make that folder, or remove the link.`,
    );
  }
}

/** A rename would pull the folder away from under the processes that work in it. */
async function requireReplaceable(dir: string, target: string): Promise<void> {
  const isRoot = dirname(target) === target;
  if (!isRoot && target !== (await realpath(process.cwd()))) return;
  throw new LokoError(
    "ERR_FILE_WRITE",
    `${dir}: is the ${isRoot ? "root of the file system" : "working folder of this process"}, which ` +
      "cannot be replaced as a whole; name a folder inside it.",
  );
}

async function requireFree(
  dir: string,
  target: string,
  { overwrite = false, mustNotHold = [] }: OutputFolderOptions,
): Promise<void> {
  const entries = await entriesOf(target);
  if (entries.length === 0) return;
  const obstacle = mustNotHold.find((name) => entries.includes(name));
  if (obstacle !== undefined) {
    throw new LokoError(
      "ERR_OUTPUT_EXISTS",
      `${dir}: holds ${obstacle}, and transformers would take both for one thing; choose another folder.`,
    );
  }
  if (overwrite) return;
  throw new LokoError(
    "ERR_OUTPUT_EXISTS",
    `${dir}: exists and is not empty (it holds ${describe(entries[0])}); choose another folder, or set ` +
      "overwrite: true.",
  );
}

/** Empty for a folder that does not exist. */
async function entriesOf(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

async function replace(
  target: string,
  temporary: string,
  { isReplaced = () => false }: OutputFolderOptions,
): Promise<void> {
  const former = `${temporary}.former`;
  const existed = await moveIfThere(target, former);
  try {
    await rename(temporary, target);
  } catch (error) {
    if (existed) await rename(former, target);
    throw error;
  }
  if (!existed) return;
  const written = new Set(await readdir(target));
  for (const name of await readdir(former)) {
    if (!written.has(name) && !isReplaced(name))
      await rename(join(former, name), join(target, name));
  }
  await rm(former, { recursive: true });
}

/** @returns whether there was anything to move. */
export async function moveIfThere(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw error;
  }
}

async function syncAll(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    await using handle = await open(join(folder, name), "r+");
    await handle.sync();
  }
  await syncFolder(folder);
}

/** Windows cannot open a folder, and needs no flush of one. */
export async function syncFolder(folder: string): Promise<void> {
  if (process.platform === "win32") return;
  await using handle = await open(folder, "r");
  await handle.sync();
}

/** Removes the parents that were made, innermost first, as far as they are empty. */
async function removeEmpty(innermost: string, outermost: string): Promise<void> {
  for (let folder = innermost; ; folder = dirname(folder)) {
    const removed = await rmdir(folder).then(
      () => true,
      () => false,
    );
    if (!removed || folder === outermost) return;
  }
}

/** Gives an error of the file system the code ERR_FILE_WRITE and an advice. */
export function toWriteError(dir: string, error: unknown): unknown {
  if (error instanceof LokoError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === undefined) return error;
  const advice = ADVICE[code] ?? "Check the path and the disk.";
  return new LokoError("ERR_FILE_WRITE", `${dir}: cannot be written: ${message}. ${advice}`, {
    cause: error,
  });
}

const NO_PERMISSION =
  "The folder that contains it must be writable: a new folder is made there and then renamed.";
const DISK_FULL = "Free some space; nothing was left behind.";
const ADVICE: Readonly<Record<string, string>> = {
  EACCES: NO_PERMISSION,
  EPERM: NO_PERMISSION,
  EROFS: NO_PERMISSION,
  ENOSPC: DISK_FULL,
  EDQUOT: DISK_FULL,
  ENOTDIR: "A part of the path is a file.",
  EEXIST: "A part of the path is a file.",
};
