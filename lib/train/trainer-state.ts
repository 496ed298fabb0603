// trainer_state.json: what the Hugging Face Trainer has in it, and under "loko" what a bit-equal resume
// needs beside it.

import { describe, LokoError } from "../errors.js";
import { type JsonObject, originOf } from "../io/json.js";
import type { HistoryState } from "./history.js";
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
  };
  readonly loko: {
    readonly format: typeof FORMAT_VERSION;
    readonly version: string;
    readonly position: DataPosition;
    readonly run: RunIdentity;
    /** The order of pass e is drawn from this stream of this generator. */
    readonly random: {
      readonly generator: "philox4x32-10";
      readonly seed: number;
      readonly stream: number;
    };
    readonly window: HistoryState["window"];
    readonly total: HistoryState["total"];
  };
}

/** @throws LokoError ERR_CHECKPOINT_FORMAT for another version, or a part that is missing. */
export function parseTrainerState(json: JsonObject): TrainerState {
  const state = json as unknown as TrainerState;
  const { loko } = state;
  if (loko?.format !== FORMAT_VERSION) {
    throw new LokoError(
      "ERR_CHECKPOINT_FORMAT",
      `${originOf(json)}: expected a training of this package in format ${FORMAT_VERSION}, got ` +
        `${describe(loko?.format)}.`,
    );
  }
  const counts = [state.global_step, loko.position?.epoch, loko.position?.batch];
  const isComplete =
    counts.every((value) => Number.isSafeInteger(value) && value >= 0) &&
    Array.isArray(state.log_history) &&
    [loko.run, loko.window, loko.total].every((part) => typeof part === "object" && part !== null);
  if (isComplete) return state;
  throw new LokoError(
    "ERR_CHECKPOINT_FORMAT",
    `${originOf(json)}: lacks global_step, log_history, or a part of "loko".`,
  );
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
