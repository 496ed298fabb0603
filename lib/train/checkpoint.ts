// checkpoint-<step> folders: adapter, optimizer state, trainer state and a manifest of them.

import { randomUUID } from "node:crypto";
import { readdir, rename, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { LokoError } from "../errors.js";
import { exists, toFileError } from "../io/files.js";
import { type JsonObject, readJsonObject, setOrigin } from "../io/json.js";
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
const ID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}";
/**
 * What a process leaves that ends while it writes or deletes a checkpoint, or the adapter in one: exactly the
 * names that `writeFolder` and {@link deleteCheckpoint} give. Any other hidden folder is the user's.
 */
const LEFT_OVER = new RegExp(`^\\.checkpoint-(\\d+)\\.${ID}(?:\\.former|\\.deleted)?$`);
const LEFT_OVER_PART = new RegExp(`^\\.\\.checkpoint-\\d+\\.${ID}\\.${ID}(?:\\.former)?$`);
const DELETED = ".deleted";

/** How long a checkpoint waits for a model that is busy with a call from outside, and between two looks. */
const BUSY_LIMIT_MS = 600_000;
const BUSY_POLL_MS = 1;

export interface CheckpointParts {
  readonly model: Model;
  readonly optimizer: Optimizer;
  readonly state: TrainerState;
  /** The options of the run, for people. */
  readonly args: Readonly<Record<string, unknown>>;
}

/**
 * Writes `checkpoint-<step>`, complete and flushed to the disk or not at all. While a call from outside uses
 * the model it waits: what was learned is worth more than time.
 *
 * @returns its path.
 * @throws LokoError ERR_FILE_WRITE, and those of `Model.saveAdapter`.
 */
export async function writeCheckpoint(
  outputDir: string,
  { model, optimizer, state, args }: CheckpointParts,
): Promise<string> {
  const path = checkpointPath(outputDir, state.global_step);
  const isReplaced = () => true;
  // What could not be read again must not take the place of what can.
  setOrigin(state, join(path, STATE_FILE));
  parseTrainerState(state as unknown as JsonObject);
  await writeFolder(
    path,
    async (folder) => {
      await whenFree(() => model.saveAdapter(folder, { overwrite: true }));
      await whenFree(() => optimizer.saveState(join(folder, OPTIMIZER_FILE)));
      await writeFile(join(folder, STATE_FILE), `${JSON.stringify(state, null, 2)}\n`);
      await writeFile(join(folder, ARGUMENTS_FILE), `${JSON.stringify(args, null, 2)}\n`);
      await writeManifest(folder);
    },
    { overwrite: true, isReplaced },
  );
  return path;
}

async function whenFree(action: () => Promise<void>): Promise<void> {
  const deadline = performance.now() + BUSY_LIMIT_MS;
  for (;;) {
    try {
      return await action();
    } catch (error) {
      const isBusy = error instanceof LokoError && error.code === "ERR_MODEL_BUSY";
      if (!isBusy || performance.now() > deadline) throw error;
      await setTimeout(BUSY_POLL_MS);
    }
  }
}

export function checkpointPath(outputDir: string, step: number): string {
  return join(outputDir, `checkpoint-${step}`);
}

/** What is named as a checkpoint. */
export interface NamedCheckpoint {
  readonly step: number;
  readonly path: string;
}

/** Checkpoints of a folder, oldest first, by their names; empty for a folder that does not exist. */
export async function listCheckpoints(outputDir: string): Promise<NamedCheckpoint[]> {
  return (await entriesOf(outputDir))
    .flatMap((name) => {
      const step = NAME.exec(name)?.[1];
      return step === undefined ? [] : [{ step: Number(step), path: join(outputDir, name) }];
    })
    .sort((a, b) => a.step - b.step);
}

/** Empty for what does not exist, and for a file. */
async function entriesOf(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return [];
    throw toFileError(folder, error);
  }
}

/**
 * Puts in order what a process has left that ended in the middle of something: a checkpoint that is
 * complete under its hidden name gets its own one, the rest is removed.
 *
 * @throws LokoError ERR_FILE_WRITE.
 */
export async function clearLeftOvers(outputDir: string): Promise<void> {
  for (const name of await entriesOf(outputDir)) {
    const step = LEFT_OVER.exec(name)?.[1];
    if (step === undefined && !LEFT_OVER_PART.test(name)) continue;
    const path = join(outputDir, name);
    const mayBeWhole = step !== undefined && !name.endsWith(DELETED);
    const target = checkpointPath(outputDir, Number(step));
    try {
      if (mayBeWhole && (await isFree(target)) && (await isComplete(path))) {
        await rename(path, target);
      } else {
        await rm(path, { recursive: true, force: true });
      }
    } catch (error) {
      throw toWriteError(path, error);
    }
  }
}

/** Whether no checkpoint has that name. */
async function isFree(path: string): Promise<boolean> {
  return !(await entriesOf(path)).includes(MANIFEST_FILE);
}

/** Whether a folder holds the files that its manifest names, byte by byte. */
export async function isComplete(path: string): Promise<boolean> {
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
  if (from !== true) {
    if (await exists(from)) return openCheckpoint(from);
    throw new LokoError("ERR_FILE_NOT_FOUND", `${from}: no such checkpoint. Check the path.`);
  }
  if (outputDir === undefined) {
    throw new LokoError("ERR_OPTION", "Trainer: resumeFromCheckpoint: true needs an outputDir.");
  }
  let damaged: unknown;
  for (const { path } of (await listCheckpoints(outputDir)).toReversed()) {
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
  await verifyManifest(path, REQUIRED);
  return { path, state: parseTrainerState(await readJsonObject(join(path, STATE_FILE), LARGE)) };
}

/** Whether a training could go on from it. */
export async function isUsable(path: string): Promise<boolean> {
  return openCheckpoint(path).then(
    () => true,
    () => false,
  );
}

/** The log of millions of steps. */
const LARGE = { maxBytes: 1024 ** 3 };

/** θ of a checkpoint, for the model that it was trained with. */
export async function loadCheckpointParameters(path: string, model: Model): Promise<void> {
  await verifyManifest(path, REQUIRED);
  const theta = await readStateParameters(join(path, OPTIMIZER_FILE));
  await model.writeParameters(theta);
}

/** Renames it first, so that no half of one is ever found under its name. @throws LokoError ERR_FILE_WRITE */
export async function deleteCheckpoint(path: string): Promise<void> {
  const hidden = join(dirname(path), `.${basename(path)}.${randomUUID()}${DELETED}`);
  try {
    await rename(path, hidden);
    await rm(hidden, { recursive: true, force: true });
  } catch (error) {
    throw toWriteError(path, error);
  }
}
