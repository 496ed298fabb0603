import { randomUUID } from "node:crypto";
import { open, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { isAbortOf } from "../abort.js";
import { LokoError } from "../errors.js";
import { syncFolder, toWriteError, unfinished } from "./output-folder.js";

/**
 * Writes a file so that it appears complete or not at all, and is on the disk when this returns: `fill`
 * writes a hidden file beside it, which is flushed and then takes its place by a rename.
 *
 * @throws LokoError ERR_FILE_WRITE; a former file is as it was, and nothing is left behind. Errors of
 * `fill` that have a code are passed on. Rejects with the reason of `signal`; after the rename it is over.
 */
export async function writeOutputFile(
  path: string,
  fill: (temporary: string) => Promise<void>,
  { signal }: { signal?: AbortSignal | undefined } = {},
): Promise<void> {
  signal?.throwIfAborted();
  await requireRegular(path);
  const folder = dirname(resolve(path));
  const temporary = join(folder, `.${basename(path).slice(0, 100)}.${randomUUID()}`);
  unfinished.add(temporary);
  try {
    await fill(temporary);
    {
      await using handle = await open(temporary, "r+");
      await handle.sync();
    }
    signal?.throwIfAborted();
    await rename(temporary, path);
    await syncFolder(folder);
  } catch (error) {
    await rm(temporary, { force: true });
    throw isAbortOf(signal, error) ? error : toWriteError(path, error);
  } finally {
    unfinished.delete(temporary);
  }
}

/**
 * The rename would replace a folder's, a pipe's or a device's entry; /dev/null must stay what it is.
 *
 * @throws LokoError ERR_FILE_WRITE.
 */
export async function requireRegular(path: string): Promise<void> {
  const stats = await stat(path).catch(() => undefined);
  if (stats === undefined || stats.isFile()) return;
  throw new LokoError(
    "ERR_FILE_WRITE",
    `${path}: is ${stats.isDirectory() ? "a folder" : "no regular file"}, which is not replaced by a file. ` +
      "Choose another name.",
  );
}
