import { constants } from "node:fs";
import { access, type FileHandle, open } from "node:fs/promises";

import { LokoError } from "../errors.js";

/** Not blocking, because opening a pipe would wait until somebody writes to it; absent on Windows. */
const OPEN_FLAGS = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0);

/** Node refuses a single read of 2 GiB or more. */
const MAX_READ_BYTES = 2 ** 30;

/** A regular file that is open for reading. */
export interface OpenFile {
  readonly handle: FileHandle;
  readonly size: number;
}

/** Opens a regular file, which the caller closes; every failure has a code. */
export async function openFile(path: string): Promise<OpenFile> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, OPEN_FLAGS);
    const stats = await handle.stat();
    if (!stats.isFile()) {
      throw new LokoError("ERR_FILE_READ", `${path}: expected a regular file.`);
    }
    return { handle, size: stats.size };
  } catch (error) {
    await handle?.close();
    throw toFileError(path, error);
  }
}

/** Opens a regular file, hands it to `use`, and closes it; every failure to read has a code. */
export async function withFile<T>(path: string, use: (file: OpenFile) => Promise<T>): Promise<T> {
  const file = await openFile(path);
  try {
    return await use(file);
  } catch (error) {
    throw toFileError(path, error);
  } finally {
    await file.handle.close();
  }
}

/** Gives an error of the file system, or of the memory for a file, one of our codes. */
export function toFileError(path: string, error: unknown): unknown {
  if (error instanceof LokoError) return error;
  if (error instanceof RangeError) {
    return new LokoError("ERR_OUT_OF_MEMORY", `${path}: ${error.message}.`, { cause: error });
  }
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === "ENOENT" || code === "ENOTDIR") {
    return new LokoError("ERR_FILE_NOT_FOUND", `${path}: no such file. Check the path.`, {
      cause: error,
    });
  }
  return code === undefined
    ? error
    : new LokoError("ERR_FILE_READ", `${path}: cannot be read: ${message}.`, { cause: error });
}

/** Fills `target` from `position` on; returns the bytes read, fewer only where the file ends. */
export async function readInto(
  handle: FileHandle,
  target: Uint8Array,
  position: number,
): Promise<number> {
  let done = 0;
  while (done < target.byteLength) {
    const wanted = Math.min(target.byteLength - done, MAX_READ_BYTES);
    const { bytesRead } = await handle.read(target, done, wanted, position + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done;
}

/** Whether there is a file or folder of that name that this process can see. */
export function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
