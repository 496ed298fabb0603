// trainer_state.json: what the Hugging Face Trainer has in it, and under "loko" what a bit-equal resume
// needs beside it.

import { describe, LokoError } from "../errors.js";
import { type JsonObject, originOf } from "../io/json.js";
import { type HistoryState, ZERO } from "./history.js";
import type { LogEntry } from "./trainer-events.js";

export const FORMAT_VERSION = 1;

/** Where the next batch is. */
export interface DataPosition {
  /** Passes that are complete. */
  readonly epoch: number;
  /** Batches of the running pass that were learned from. */
  readonly batch: number;
}

/** What decides the batches and what is done with them: it must be the same where a run is resumed. */
export interface RunIdentity {
  /** Examples of one pass; null where it is not known. */
  readonly dataset_size: number | null;
  readonly batch_size: number;
  readonly gradient_accumulation_steps: number;
  readonly shuffle: boolean;
  readonly seed: number;
  readonly lr_scheduler_type: string;
  readonly warmup_steps: number;
  readonly max_grad_norm: number;
}

/** The contents of `trainer_state.json`. */
export interface TrainerState {
  readonly best_global_step: number | null;
  readonly best_metric: number | null;
  readonly best_model_checkpoint: string | null;
  readonly epoch: number;
  readonly global_step: number;
  readonly max_steps: number;
  readonly num_train_epochs: number;
  readonly logging_steps: number;
  readonly eval_steps: number;
  readonly save_steps: number;
  readonly train_batch_size: number;
  readonly is_local_process_zero: true;
  readonly is_world_process_zero: true;
  readonly log_history: readonly LogEntry[];
  readonly stateful_callbacks: {
    readonly EarlyStoppingCallback?: {
      readonly args: {
        readonly early_stopping_patience: number;
        readonly early_stopping_threshold: number;
      };
      readonly attributes: { readonly early_stopping_patience_counter: number };
    };
    /** What was due after the step and had not been done: a resumed run makes up for it. */
    readonly TrainerControl?: {
      readonly args: {
        readonly should_training_stop: boolean;
        readonly should_epoch_stop: boolean;
        readonly should_save: boolean;
        readonly should_evaluate: boolean;
        readonly should_log: boolean;
      };
      readonly attributes: Readonly<Record<string, never>>;
    };
  };
  readonly loko: {
    readonly format: typeof FORMAT_VERSION;
    readonly version: string;
    readonly position: DataPosition;
    /** Whether the end of the pass is still to come after the last step. Absent in older checkpoints. */
    readonly ends_pass?: boolean;
    readonly run: RunIdentity;
    /** The order of pass e is drawn from this stream of this generator. */
    readonly random: {
      readonly generator: "philox4x32-10";
      readonly seed: number;
      readonly stream: number;
    };
    readonly window: HistoryState["window"];
    readonly total: HistoryState["total"];
    /** Absent in older checkpoints. */
    readonly last?: HistoryState["last"];
  };
}

/**
 * Checks all that a resumed run reads; what is for people, and for other programs, may be anything.
 *
 * @throws LokoError ERR_CHECKPOINT_FORMAT for another version, or a part that is missing or of another type.
 */
export function parseTrainerState(json: JsonObject): TrainerState {
  const loko = isObject(json.loko) ? json.loko : {};
  if (loko.format !== FORMAT_VERSION) {
    throw new LokoError(
      "ERR_CHECKPOINT_FORMAT",
      `${originOf(json)}: expected a training of this package in format ${FORMAT_VERSION}, got ` +
        `${describe(loko.format)}.`,
    );
  }
  const wrong = wrongPart(json, loko);
  if (wrong === undefined) return json as unknown as TrainerState;
  throw new LokoError(
    "ERR_CHECKPOINT_FORMAT",
    `${originOf(json)}: has no ${wrong} that a training could go on from. Use another checkpoint.`,
  );
}

/** Name of a part that is not what {@link TrainerState} says. */
function wrongPart(state: JsonObject, loko: JsonObject): string | undefined {
  const position = isObject(loko.position) ? loko.position : {};
  const { EarlyStoppingCallback: stopping, TrainerControl: control } = isObject(
    state.stateful_callbacks,
  )
    ? state.stateful_callbacks
    : {};
  const checks: Readonly<Record<string, boolean>> = {
    global_step: isCount(state.global_step),
    log_history: Array.isArray(state.log_history) && state.log_history.every(isNumbers),
    best_global_step: state.best_global_step === null || isCount(state.best_global_step),
    best_metric: state.best_metric === null || Number.isFinite(state.best_metric),
    best_model_checkpoint:
      state.best_model_checkpoint === null || typeof state.best_model_checkpoint === "string",
    stateful_callbacks:
      isObject(state.stateful_callbacks) && isStopping(stopping) && isControl(control),
    "loko.position": isCount(position.epoch) && isCount(position.batch),
    "loko.ends_pass": loko.ends_pass === undefined || typeof loko.ends_pass === "boolean",
    "loko.run": isObject(loko.run),
    "loko.window": isTotals(loko.window),
    "loko.total": isTotals(loko.total),
    "loko.last": loko.last === undefined || isNumbers(loko.last),
  };
  return Object.keys(checks).find((name) => !checks[name]);
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isNumbers(value: unknown): boolean {
  return isObject(value) && Object.values(value).every(Number.isFinite);
}

function isTotals(value: unknown): boolean {
  return (
    isNumbers(value) && Object.keys(ZERO).every((name) => Object.hasOwn(value as object, name))
  );
}

function isStopping(callback: unknown): boolean {
  if (callback === undefined) return true;
  const { attributes } = isObject(callback) ? callback : {};
  return isObject(attributes) && isCount(attributes.early_stopping_patience_counter);
}

function isControl(control: unknown): boolean {
  if (control === undefined) return true;
  const { args } = isObject(control) ? control : {};
  if (!isObject(args)) return false;
  const due = [args.should_log, args.should_evaluate, args.should_save];
  return due.every((flag) => typeof flag === "boolean");
}

/** @throws LokoError ERR_CHECKPOINT_MISMATCH naming what differs. */
export function requireSameRun(path: string, saved: RunIdentity, now: RunIdentity): void {
  for (const [name, value] of Object.entries(now)) {
    const before = (saved as unknown as Record<string, unknown>)[name];
    if (before === value) continue;
    // A size that either of the runs did not need to know.
    if (name === "dataset_size" && (before === null || value === null)) continue;
    throw new LokoError(
      "ERR_CHECKPOINT_MISMATCH",
      `${path}: was written with ${name} ${describe(before)}, and now it is ${describe(value)}. A training ` +
        "is resumed with the same data and options.",
    );
  }
}
