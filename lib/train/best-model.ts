import { basename, dirname, join } from "node:path";
import { LokoError } from "../errors.js";
import type { Evaluation } from "../metrics/accumulator.js";
import { type FoundCheckpoint, isComplete } from "./checkpoint.js";
import type { ResolvedOptions } from "./trainer-options.js";
import type { TrainerState } from "./trainer-state.js";

type BestState = Pick<
  TrainerState,
  "best_global_step" | "best_metric" | "best_model_checkpoint" | "stateful_callbacks"
>;

/** Which evaluation was the best, and how long ago; the rules are those of the Hugging Face Trainer. */
export class BestModel {
  readonly #options: ResolvedOptions;
  #step: number | null = null;
  #metric: number | null = null;
  #checkpoint: string | null = null;
  #patience = 0;

  private constructor(options: ResolvedOptions) {
    this.#options = options;
  }

  /**
   * @param found - what the training goes on from.
   * @throws LokoError ERR_FILE_NOT_FOUND when its best checkpoint is not there any more, and is to be loaded
   * in the end.
   */
  static async open(
    options: ResolvedOptions,
    found: FoundCheckpoint | undefined,
  ): Promise<BestModel> {
    const best = new BestModel(options);
    if (found === undefined) return best;
    const { state } = found;
    best.#step = state.best_global_step;
    best.#metric = state.best_metric;
    best.#checkpoint = await findBest(found);
    if (best.#checkpoint === null && options.loadBestModelAtEnd) requireNone(found);
    const { EarlyStoppingCallback } = state.stateful_callbacks;
    best.#patience = EarlyStoppingCallback?.attributes.early_stopping_patience_counter ?? 0;
    return best;
  }

  /** Path of the best checkpoint; null until one was saved. */
  get checkpoint(): string | null {
    return this.#checkpoint;
  }

  /** @returns whether the training should end for want of patience. */
  judge(evaluation: Evaluation, step: number): boolean {
    const { metricForBestModel, earlyStoppingThreshold, earlyStoppingPatience } = this.#options;
    const value = (evaluation as unknown as Readonly<Record<string, number>>)[metricForBestModel]!;
    const gain = this.#gain(value);
    // The difference and not the better value decides of patience: a creeping metric runs out of it.
    this.#patience = gain > earlyStoppingThreshold ? 0 : this.#patience + 1;
    if (gain > 0) {
      this.#metric = value;
      this.#step = step;
    }
    return this.#patience >= earlyStoppingPatience;
  }

  /** By how much a value is better than the best one; NaN or an infinity never is. */
  #gain(value: number): number {
    if (!Number.isFinite(value)) return Number.NaN;
    if (this.#metric === null) return Number.POSITIVE_INFINITY;
    return this.#options.greaterIsBetter ? value - this.#metric : this.#metric - value;
  }

  /** Says that a checkpoint of that step is about to be written. */
  isSaved(step: number, path: string): void {
    if (step === this.#step) this.#checkpoint = path;
  }

  get state(): BestState {
    const { earlyStoppingPatience, earlyStoppingThreshold } = this.#options;
    const isUsed = Number.isFinite(earlyStoppingPatience);
    return {
      best_global_step: this.#step,
      best_metric: this.#metric,
      best_model_checkpoint: this.#checkpoint,
      stateful_callbacks: isUsed
        ? {
            EarlyStoppingCallback: {
              args: {
                early_stopping_patience: earlyStoppingPatience,
                early_stopping_threshold: earlyStoppingThreshold,
              },
              attributes: { early_stopping_patience_counter: this.#patience },
            },
          }
        : {},
    };
  }
}

/**
 * Where the best checkpoint is now. Beside the one that was found comes first: the folder may have been
 * renamed since its path was written down, or be named from another working folder.
 */
async function findBest({ path, state }: FoundCheckpoint): Promise<string | null> {
  const recorded = state.best_model_checkpoint;
  if (recorded === null) return null;
  const name = /[^\\/]*$/.exec(recorded)![0];
  const beside = join(dirname(path), name);
  // The one that was found was verified already, all of it read.
  if (name === basename(path) || (await isComplete(beside))) return beside;
  return (await isComplete(recorded)) ? recorded : null;
}

/** @throws LokoError ERR_FILE_NOT_FOUND when there was a best checkpoint. */
function requireNone({ path, state }: FoundCheckpoint): void {
  const recorded = state.best_model_checkpoint;
  if (recorded === null) return;
  throw new LokoError(
    "ERR_FILE_NOT_FOUND",
    `${recorded}: the best checkpoint until ${path} is missing or damaged, and loadBestModelAtEnd would load ` +
      "it in the end. Put it back beside that one, or go on without loadBestModelAtEnd.",
  );
}
