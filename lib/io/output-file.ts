import { randomUUID } from "node:crypto";
import { open, rename, rm } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { syncFolder, toWriteError, unfinished } from "./output-folder.js";

/**
 * Writes a file so that it appears complete or not at all, and is on the disk when this returns: `fill`
 * writes a hidden file beside it, which is flushed and then takes its place by a rename.
 *
 * @throws LokoError ERR_FILE_WRITE; a former file is as it was, and nothing is left behind. Errors of
 * `fill` that have a code are passed on.
 */
export async function writeOutputFile(
  path: string,
  fill: (temporary: string) => Promise<void>,
): Promise<void> {
  const folder = dirname(resolve(path));
  const temporary = join(folder, `.${basename(path).slice(0, 100)}.${randomUUID()}`);
  unfinished.add(temporary);
  try {
    await fill(temporary);
    {
      await using handle = await open(temporary, "r+");
      await handle.sync();
    }
    await rename(temporary, path);
    await syncFolder(folder);
  } catch (error) {
    await rm(temporary, { force: true });
    throw toWriteError(path, error);
  } finally {
    unfinished.delete(temporary);
  }
}
