import type { Evaluation } from "../metrics/accumulator.js";
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

  static from(options: ResolvedOptions, state: BestState | undefined): BestModel {
    const best = new BestModel(options);
    if (state === undefined) return best;
    best.#step = state.best_global_step;
    best.#metric = state.best_metric;
    best.#checkpoint = state.best_model_checkpoint;
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

  /** By how much a value is better than the best one; NaN never is. */
  #gain(value: number): number {
    if (Number.isNaN(value)) return Number.NaN;
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
