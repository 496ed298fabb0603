// The lock file of an output folder. Node.js has no locks that end with their process, so a holder gives
// signs of life: one whose process is known to be gone, or that has been silent for long, holds nothing.

import { randomUUID } from "node:crypto";
import { lstat, readFile, rename, rm, utimes, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { threadId } from "node:worker_threads";
import { LokoError } from "../errors.js";
import { moveIfThere, toWriteError, unfinished } from "../io/output-folder.js";

const LOCK_FILE = ".training.lock";
const BEAT_MS = 5_000;
/** Many beats: an event loop may be held up for a while, and clocks of machines differ. */
const SILENT_MS = 30_000;

interface Holder {
  readonly pid: number;
  readonly thread: number;
  readonly host: string;
  readonly id: string;
}

/** Ids of what this thread holds; another thread, or process, cannot be asked. */
const held = new Set<string>();

/** Keeps other trainings out of a folder until it is released. */
export class RunLock {
  readonly #path: string;
  readonly #holder: Holder;
  readonly #beat: NodeJS.Timeout;

  private constructor(path: string, holder: Holder) {
    this.#path = path;
    this.#holder = holder;
    held.add(holder.id);
    unfinished.add(path);
    this.#beat = setInterval(() => {
      const now = new Date();
      utimes(path, now, now).catch(() => {});
    }, BEAT_MS).unref();
  }

  /** @throws LokoError ERR_OUTPUT_BUSY when another training holds it; ERR_FILE_WRITE. */
  static async acquire(folder: string): Promise<RunLock> {
    const path = join(folder, LOCK_FILE);
    const holder = { pid: process.pid, thread: threadId, host: hostname(), id: randomUUID() };
    try {
      while (!(await create(path, JSON.stringify(holder)))) await removeStale(folder, path);
    } catch (error) {
      throw toWriteError(path, error);
    }
    return new RunLock(path, holder);
  }

  async release(): Promise<void> {
    clearInterval(this.#beat);
    held.delete(this.#holder.id);
    unfinished.delete(this.#path);
    // It may be another's by now, if this one was silent for too long.
    if (parseHolder(await read(this.#path))?.id !== this.#holder.id) return;
    await rm(this.#path, { force: true }).catch(() => {});
  }
}

/** @returns false when there is one already. */
async function create(path: string, text: string): Promise<boolean> {
  try {
    await writeFile(path, text, { flag: "wx" });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    await rm(path, { force: true });
    throw error;
  }
}

async function removeStale(folder: string, path: string): Promise<void> {
  const stats = await lstat(path).catch(() => undefined);
  if (stats === undefined) return;
  const text = await read(path);
  const holder = parseHolder(text);
  const silentMs = Date.now() - stats.mtimeMs;
  if (silentMs < SILENT_MS && !isKnownToBeGone(holder)) throw busyError(folder, path, holder);
  const aside = `${path}.${randomUUID()}`;
  if (!(await moveIfThere(path, aside))) return;
  // Two that find it stale must not both remove it: the later one would take the lock of the other.
  if ((await read(aside)) === text) await rm(aside, { force: true });
  else await rename(aside, path);
}

function isKnownToBeGone(holder: Holder | undefined): boolean {
  if (holder === undefined || holder.host !== hostname()) return false;
  // Numbers of processes come again, in a container at each of its starts.
  if (holder.pid === process.pid && holder.thread === threadId) return !held.has(holder.id);
  try {
    process.kill(holder.pid, 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ESRCH";
  }
}

function busyError(folder: string, path: string, holder: Holder | undefined): LokoError {
  const who = holder === undefined ? "" : `, process ${holder.pid} on ${holder.host},`;
  return new LokoError(
    "ERR_OUTPUT_BUSY",
    `${folder}: another training${who} writes there. Await or stop it, or choose another outputDir. If it has ` +
      `ended without removing its lock, try again in ${SILENT_MS / 1000} seconds, or delete ${path}.`,
  );
}

async function read(path: string): Promise<string> {
  return readFile(path, "utf8").catch(() => "");
}

/** Undefined for a file that is being written, or is none of ours. */
function parseHolder(text: string): Holder | undefined {
  try {
    const holder = JSON.parse(text) as Holder;
    return Number.isSafeInteger(holder.pid) && holder.pid > 0 ? holder : undefined;
  } catch {
    return undefined;
  }
}
