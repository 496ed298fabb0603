// The output folder of one training: what of it is its own, and what was there before.

import { randomUUID } from "node:crypto";
import { mkdir, realpath, rm } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { LokoError } from "../errors.js";
import { exists } from "../io/files.js";
import { makeFolder } from "../io/make-folder.js";
import { MANIFEST_FILE } from "../io/manifest.js";
import { realPath, toWriteError } from "../io/output-folder.js";
import {
  type CheckpointParts,
  clearLeftOvers,
  deleteCheckpoint,
  type FoundCheckpoint,
  isUsable,
  listCheckpoints,
  type NamedCheckpoint,
  writeCheckpoint,
} from "./checkpoint.js";
import { RunLock } from "./run-lock.js";

/** An `outputDir` that one training has for itself until it is closed. */
export class RunFolder {
  readonly path: string;
  readonly #lock: RunLock;
  /** Paths of the checkpoints of this training, oldest first: all that it may ever delete for its limit. */
  #own: string[] = [];
  /** Those of an earlier training that it was allowed to delete. */
  #former: readonly NamedCheckpoint[] = [];

  private constructor(path: string, lock: RunLock) {
    this.path = path;
    this.#lock = lock;
  }

  /**
   * Makes the folder where it is missing, and puts in order what a process has left there.
   *
   * @throws LokoError ERR_FILE_WRITE when nothing can be written there; ERR_OUTPUT_BUSY when another training
   * does.
   */
  static async open(path: string): Promise<RunFolder> {
    await requireWritable(path);
    const lock = await RunLock.acquire(path);
    try {
      await clearLeftOvers(path);
    } catch (error) {
      await lock.release();
      throw error;
    }
    return new RunFolder(path, lock);
  }

  /**
   * Finds out which checkpoints are those of the training that begins, or goes on from `found`. Nothing is
   * deleted yet.
   *
   * @param overwrite - whether a training that begins anew may delete those that are there.
   * @throws LokoError ERR_OUTPUT_EXISTS when others are there, among which its own would be lost or mixed up.
   */
  async claim(found: FoundCheckpoint | undefined, overwrite: boolean): Promise<void> {
    const present = await listCheckpoints(this.path);
    if (found === undefined) {
      if (present.length > 0 && !overwrite) throw this.#inTheWay(present.at(-1)!);
      this.#former = present;
    } else if (await isDirectlyIn(found.path, this.path)) {
      const reached = found.state.global_step;
      await this.#refuseNewer(present, found);
      for (const { step, path } of present) {
        const isWritten = await exists(join(path, MANIFEST_FILE));
        if (step <= reached && isWritten) this.#own.push(path);
      }
    } else if (present.length > 0) {
      throw this.#inTheWay(present.at(-1)!, found);
    }
  }

  /** A good one that is newer would be gone on from the next time, as if this training had not been. */
  async #refuseNewer(present: readonly NamedCheckpoint[], found: FoundCheckpoint): Promise<void> {
    const name = basename(resolve(found.path));
    for (const checkpoint of present.toReversed()) {
      if (checkpoint.step <= found.state.global_step) return;
      if (basename(checkpoint.path) === name || !(await isUsable(checkpoint.path))) continue;
      throw new LokoError(
        "ERR_OUTPUT_EXISTS",
        `${this.path}: holds ${basename(checkpoint.path)}, which is newer than ${found.path}. Go on from the ` +
          "newest with resumeFromCheckpoint: true, move the newer ones away, or choose another outputDir.",
      );
    }
  }

  #inTheWay({ path }: NamedCheckpoint, found?: FoundCheckpoint): LokoError {
    const advice =
      found === undefined
        ? "Go on from them with resumeFromCheckpoint: true, set overwriteOutputDir: true, or choose another " +
          "outputDir."
        : `Go on from ${found.path} in another outputDir, or move them away.`;
    return new LokoError(
      "ERR_OUTPUT_EXISTS",
      `${this.path}: holds checkpoints of another training (${basename(path)}). ${advice}`,
    );
  }

  /** Deletes what {@link RunFolder.claim} was allowed to. @throws LokoError ERR_FILE_WRITE */
  async deleteFormer(): Promise<void> {
    for (const { path } of this.#former) await deleteCheckpoint(path);
  }

  /**
   * Writes `checkpoint-<step>`, and then deletes the oldest of this training until `limit` are left, but
   * never the new one or the best.
   *
   * @returns its path.
   * @throws LokoError as {@link writeCheckpoint}.
   */
  async save(parts: CheckpointParts, limit: number, best: string | null): Promise<string> {
    const path = await writeCheckpoint(this.path, parts);
    this.#own = [...this.#own.filter((own) => own !== path), path];
    // By their names: the path of the best one may be spelled another way.
    const kept = [path, best].map((checkpoint) => checkpoint && basename(checkpoint));
    const surplus = Math.max(0, this.#own.length - limit);
    for (const old of this.#own.filter((own) => !kept.includes(basename(own))).slice(0, surplus)) {
      await deleteCheckpoint(old);
      this.#own = this.#own.filter((own) => own !== old);
    }
    return path;
  }

  async close(): Promise<void> {
    await this.#lock.release();
  }
}

async function isDirectlyIn(path: string, folder: string): Promise<boolean> {
  return (await realpath(dirname(resolve(path)))) === (await realpath(folder));
}

async function requireWritable(outputDir: string): Promise<void> {
  const probe = join(outputDir, `.probe.${randomUUID()}`);
  try {
    await realPath(outputDir);
    await makeFolder(outputDir);
    await mkdir(probe);
    await rm(probe, { recursive: true });
  } catch (error) {
    throw toWriteError(outputDir, error);
  }
}
