import type { LearningRateSchedule } from "./trainer-options.js";

/** A schedule whose steps are known. */
export interface Schedule {
  readonly type: LearningRateSchedule;
  readonly warmupSteps: number;
  /** Of the whole training. */
  readonly totalSteps: number;
}

/** Steps of the warm-up, where a number below 1 is a share of all steps, rounded up. */
export function warmupStepsOf(warmupSteps: number, totalSteps: number): number {
  return warmupSteps < 1 ? Math.ceil(warmupSteps * totalSteps) : warmupSteps;
}

/**
 * The factor of the learning rate in a step, as `get_scheduler` of transformers gives it.
 *
 * @param step - steps that were done before it, from 0.
 */
export function learningRateFactor(
  { type, warmupSteps, totalSteps }: Schedule,
  step: number,
): number {
  if (type === "constant") return 1;
  if (step < warmupSteps) return step / Math.max(1, warmupSteps);
  if (type === "constant_with_warmup") return 1;
  const rest = Math.max(1, totalSteps - warmupSteps);
  if (type === "linear") return Math.max(0, (totalSteps - step) / rest);
  const progress = (step - warmupSteps) / rest;
  return Math.max(0, 0.5 * (1 + Math.cos(Math.PI * progress)));
}
