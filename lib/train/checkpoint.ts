// checkpoint-<step> folders: adapter, optimizer state, trainer state and a manifest of them.

import { randomUUID } from "node:crypto";
import { mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { describe, LokoError } from "../errors.js";
import { readJsonObject } from "../io/json.js";
import { MANIFEST_FILE, verifyManifest, writeManifest } from "../io/manifest.js";
import { toWriteError, writeFolder } from "../io/output-folder.js";
import type { Model } from "../model.js";
import type { Optimizer } from "../optim/optimizer.js";
import { readStateParameters } from "../optim/optimizer-state.js";
import { parseTrainerState, type TrainerState } from "./trainer-state.js";

export const STATE_FILE = "trainer_state.json";
export const OPTIMIZER_FILE = "optimizer.safetensors";
const ARGUMENTS_FILE = "training_args.json";
const REQUIRED = ["adapter_config.json", "adapter_model.safetensors", OPTIMIZER_FILE, STATE_FILE];

const NAME = /^checkpoint-(\d+)$/;
/** What a process leaves that ends while it writes or deletes a checkpoint. */
const LEFT_OVER = /^\.{1,2}checkpoint-(\d+)\..+$/;
const DELETED = ".deleted";

export interface CheckpointParts {
  readonly model: Model;
  readonly optimizer: Optimizer;
  readonly state: TrainerState;
  /** The options of the run, for people. */
  readonly args: Readonly<Record<string, unknown>>;
}

/**
 * Writes `checkpoint-<step>`, complete and flushed to the disk or not at all.
 *
 * @returns its path.
 * @throws LokoError ERR_FILE_WRITE, and those of `Model.saveAdapter`.
 */
export async function writeCheckpoint(
  outputDir: string,
  { model, optimizer, state, args }: CheckpointParts,
): Promise<string> {
  const path = join(outputDir, `checkpoint-${state.global_step}`);
  const isReplaced = () => true;
  await writeFolder(
    path,
    async (folder) => {
      await model.saveAdapter(folder, { overwrite: true });
      await optimizer.saveState(join(folder, OPTIMIZER_FILE));
      await writeFile(join(folder, STATE_FILE), `${JSON.stringify(state, null, 2)}\n`);
      await writeFile(join(folder, ARGUMENTS_FILE), `${JSON.stringify(args, null, 2)}\n`);
      await writeManifest(folder);
    },
    { overwrite: true, isReplaced },
  );
  return path;
}

/** Checkpoints of a folder, oldest first; empty for a folder that does not exist. */
export async function listCheckpoints(outputDir: string): Promise<string[]> {
  return (await entriesOf(outputDir))
    .flatMap((name) => {
      const step = NAME.exec(name)?.[1];
      return step === undefined ? [] : [{ step: Number(step), path: join(outputDir, name) }];
    })
    .sort((a, b) => a.step - b.step)
    .map(({ path }) => path);
}

async function entriesOf(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return [];
    throw toWriteError(folder, error);
  }
}

/**
 * Puts in order what a process has left that ended in the middle of something: a checkpoint that is
 * complete under its hidden name gets its own one, the rest is removed.
 */
export async function clearLeftOvers(outputDir: string): Promise<void> {
  for (const name of await entriesOf(outputDir)) {
    const step = LEFT_OVER.exec(name)?.[1];
    if (step === undefined) continue;
    const path = join(outputDir, name);
    const target = join(outputDir, `checkpoint-${step}`);
    const isWhole = !name.endsWith(DELETED) && (await isComplete(path));
    if (isWhole && !(await entriesOf(target)).includes(MANIFEST_FILE)) await rename(path, target);
    else await rm(path, { recursive: true, force: true });
  }
}

async function isComplete(path: string): Promise<boolean> {
  return verifyManifest(path, REQUIRED).then(
    () => true,
    () => false,
  );
}

/** A checkpoint whose files are what was written. */
export interface FoundCheckpoint {
  readonly path: string;
  readonly state: TrainerState;
}

/**
 * The checkpoint to go on from: the one of that path, or for `true` the newest good one of `outputDir`,
 * with a process warning (`LOKO_CHECKPOINT_DAMAGED`) for each newer one that is damaged.
 *
 * @throws LokoError ERR_FILE_NOT_FOUND when there is none; ERR_CHECKPOINT_FORMAT when it is damaged.
 */
export async function findCheckpoint(
  from: string | true,
  outputDir: string | undefined,
): Promise<FoundCheckpoint> {
  if (from !== true) return openCheckpoint(from);
  if (outputDir === undefined) {
    throw new LokoError("ERR_OPTION", "Trainer: resumeFromCheckpoint: true needs an outputDir.");
  }
  const paths = await listCheckpoints(outputDir);
  let damaged: unknown;
  for (const path of paths.reverse()) {
    try {
      return await openCheckpoint(path);
    } catch (error) {
      if (!(error instanceof LokoError) || error.code !== "ERR_CHECKPOINT_FORMAT") throw error;
      damaged ??= error;
      const message = `${error.message} The one before it is used, if there is one.`;
      process.emitWarning(message, { type: "LokoWarning", code: "LOKO_CHECKPOINT_DAMAGED" });
    }
  }
  if (damaged !== undefined) throw damaged;
  throw new LokoError(
    "ERR_FILE_NOT_FOUND",
    `${outputDir}: has no checkpoint-<step> to resume from. Check outputDir, or start without ` +
      "resumeFromCheckpoint.",
  );
}

async function openCheckpoint(path: string): Promise<FoundCheckpoint> {
  if ((await entriesOf(path)).length === 0) {
    throw new LokoError("ERR_FILE_NOT_FOUND", `${path}: no such checkpoint. Check the path.`);
  }
  await verifyManifest(path, REQUIRED);
  return { path, state: parseTrainerState(await readJsonObject(join(path, STATE_FILE), LARGE)) };
}

/** The log of millions of steps. */
const LARGE = { maxBytes: 1024 ** 3 };

/** θ of a checkpoint, for the model that it was trained with. */
export async function loadCheckpointParameters(path: string, model: Model): Promise<void> {
  await verifyManifest(path, REQUIRED);
  const theta = await readStateParameters(join(path, OPTIMIZER_FILE));
  await model.writeParameters(theta);
}

/**
 * Deletes the oldest checkpoints until `limit` are left, but never those of `keep`. Each is renamed before
 * it is deleted, so that no half of one is ever found under its name.
 */
export async function rotateCheckpoints(
  outputDir: string,
  limit: number,
  keep: readonly (string | null)[],
): Promise<void> {
  const paths = await listCheckpoints(outputDir);
  let surplus = paths.length - limit;
  const kept = new Set(keep.map((path) => path && basename(path)));
  for (const path of paths) {
    if (surplus <= 0) return;
    if (kept.has(basename(path))) continue;
    await deleteCheckpoint(outputDir, path);
    surplus--;
  }
}

async function deleteCheckpoint(outputDir: string, path: string): Promise<void> {
  const hidden = join(outputDir, `.${basename(path)}.${randomUUID()}${DELETED}`);
  try {
    await rename(path, hidden);
    await rm(hidden, { recursive: true, force: true });
  } catch (error) {
    throw toWriteError(path, error);
  }
}

/**
 * Makes an output folder ready for a training that begins anew.
 *
 * @throws LokoError ERR_OUTPUT_EXISTS when it holds checkpoints and `overwrite` is not set;
 * ERR_FILE_WRITE when nothing can be written there.
 */
export async function prepareOutput(outputDir: string, overwrite: boolean): Promise<void> {
  const present = await listCheckpoints(outputDir);
  if (present.length > 0 && !overwrite) {
    throw new LokoError(
      "ERR_OUTPUT_EXISTS",
      `${outputDir}: holds checkpoints of an earlier training (${describe(basename(present.at(-1)!))}). ` +
        "Go on from them with resumeFromCheckpoint: true, set overwriteOutputDir: true, or choose " +
        "another outputDir.",
    );
  }
  for (const path of present) await deleteCheckpoint(outputDir, path);
}

/** @throws LokoError ERR_FILE_WRITE when nothing can be written there. */
export async function requireWritable(outputDir: string): Promise<void> {
  const probe = join(outputDir, `.probe.${randomUUID()}`);
  try {
    await mkdir(outputDir, { recursive: true });
    await mkdir(probe);
    await rm(probe, { recursive: true });
  } catch (error) {
    throw toWriteError(outputDir, error);
  }
}
