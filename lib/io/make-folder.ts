import { mkdir, stat } from "node:fs/promises";
import { dirname } from "node:path";

/**
 * Makes a folder and those above it that are missing, as `mkdir` with `recursive` does. That one never
 * returns where the parent is there and no folder can be made in it all the same (`/proc/x`).
 *
 * @returns the uppermost folder that was made, undefined where all were there.
 */
export async function makeFolder(path: string): Promise<string | undefined> {
  try {
    return (await makeOne(path)) ? path : undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT" || dirname(path) === path) throw error;
  }
  const first = await makeFolder(dirname(path));
  const isNew = await makeOne(path);
  return first ?? (isNew ? path : undefined);
}

/** False where it was there. */
async function makeOne(path: string): Promise<boolean> {
  try {
    await mkdir(path);
    return true;
  } catch (error) {
    const isThere = (error as NodeJS.ErrnoException).code === "EEXIST";
    if (isThere && (await stat(path)).isDirectory()) return false;
    throw error;
  }
}
