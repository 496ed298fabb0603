import { LokoError } from "../errors.js";
import { type Evaluation, MetricAccumulator } from "../metrics/accumulator.js";
import type { SkipReason } from "../optim/optimizer.js";
import { type Progress, startProgress } from "../report/progress.js";
import type { BatchResult, TrainerEvent } from "../train/trainer-events.js";
import type { Interrupt } from "./interrupt.js";
import { sourceOf } from "./trainer.js";
import type { TrainPlan } from "./training.js";

/** Metrics of one pass over the examples, each predicted before it was learned from. */
export interface OnlineEvaluation extends Evaluation {
  /** From 1. */
  readonly epoch: number;
}

/** What the steps of a run came to. */
export interface Learned {
  readonly steps: number;
  /** The checkpoint that the run went on from; its steps are counted in `steps`. */
  readonly resumedFrom?: { readonly checkpoint: string; readonly step: number };
  readonly seconds: number;
  /** Steps that changed nothing, by their reason. */
  readonly skipped: Readonly<Partial<Record<SkipReason, number>>>;
  readonly online: readonly OnlineEvaluation[];
}

/** How a run ended, with what it came to until then. */
export interface Outcome {
  readonly learned: Learned;
  /** What a step, or the reading of an example, threw after the model had learned something. */
  readonly failure?: unknown;
}

function diverged({ options: { optimizer } }: TrainPlan): LokoError {
  const advice =
    optimizer === "loko" ? "Report it, with the data if you can." : "Use a smaller --lr.";
  return new LokoError(
    "ERR_DIVERGED",
    `the outputs of the model are not finite any more: the training has diverged. ${advice}`,
  );
}

/** How much of the shown loss is that of earlier steps. */
const SMOOTHING = 0.98;

/**
 * Runs all epochs, until the steps are done, somebody asks to stop, or a step fails: hours of learning
 * before it are worth saving. What fails before anything was learned is thrown.
 */
export async function learn(plan: TrainPlan, interrupt: Interrupt): Promise<Outcome> {
  const { options, trainer } = plan;
  const started = performance.now();
  using progress = startProgress(plan.steps, { quiet: options.json ?? false });
  const record = new RunRecord(plan, progress);
  interrupt.onAsk = () => {
    trainer.stop();
    progress.note(`Stopping ${record.nextStop()}; Ctrl-C again ends at once.`);
  };
  let failure: unknown;
  try {
    const resumeFromCheckpoint = options.resume ?? false;
    for await (const event of trainer.run(sourceOf(plan.train), { resumeFromCheckpoint })) {
      record.add(event);
    }
  } catch (error) {
    if (record.stepsHere === 0) throw error;
    failure = error;
  }
  record.closeEpoch();
  if (!record.outputsAreFinite) failure ??= diverged(plan);
  const seconds = (performance.now() - started) / 1000;
  const { steps, skipped, online, resumedFrom } = record;
  return {
    learned: { steps, seconds, skipped, online, ...(resumedFrom && { resumedFrom }) },
    failure,
  };
}

/** Gathers the events of a run, and shows how far it is. */
class RunRecord {
  readonly online: OnlineEvaluation[] = [];
  readonly skipped: Partial<{ [reason in SkipReason]: number }> = {};
  steps = 0;
  stepsHere = 0;
  #hasBegun = false;
  #isEvaluating = false;
  outputsAreFinite = true;
  resumedFrom: Learned["resumedFrom"];
  readonly #plan: TrainPlan;
  readonly #progress: Progress;
  #epoch = 0;
  #accumulator: MetricAccumulator | undefined;
  #correct = 0;
  #loss = 0;
  #losses = 0;

  constructor(plan: TrainPlan, progress: Progress) {
    this.#plan = plan;
    this.#progress = progress;
  }

  add(event: TrainerEvent): void {
    this.steps = event.globalStep;
    switch (event.type) {
      case "trainBegin":
        this.#hasBegun = true;
        if (event.resumedFrom === undefined) return;
        this.resumedFrom = { checkpoint: event.resumedFrom, step: event.globalStep };
        return;
      case "epochBegin":
        this.#epoch = Math.floor(event.epoch) + 1;
        this.#accumulator = new MetricAccumulator({ metrics: this.#plan.metrics });
        this.#correct = 0;
        return;
      case "epochEnd":
        this.closeEpoch();
        return;
      case "evaluate":
        this.#isEvaluating = false;
        return;
      case "step":
        this.stepsHere++;
        this.#isEvaluating = this.#isEvaluatedAt(this.steps);
        for (const result of event.results) this.#addResult(result);
        this.#show();
        return;
      default:
        return;
    }
  }

  /** What a run that is asked to stop now waits for, and what it does then. */
  nextStop(): string {
    const { resume } = this.#plan.options;
    if (!this.#hasBegun && resume === undefined)
      return "before the first step, with nothing to save";
    let when = "after this step";
    if (!this.#hasBegun) when = "before the next step";
    else if (this.#isEvaluating) when = "after this evaluation";
    else if (this.#isEvaluatedAt(this.steps + 1)) when = "after this step and its evaluation";
    return `${when} to save the adapter`;
  }

  #isEvaluatedAt(step: number): boolean {
    const { evalEvery } = this.#plan.options;
    return evalEvery !== undefined && step % evalEvery === 0;
  }

  closeEpoch(): void {
    const accumulator = this.#accumulator;
    this.#accumulator = undefined;
    if (accumulator === undefined || accumulator.samples === 0) return;
    this.online.push({ epoch: this.#epoch, ...accumulator.result() });
  }

  #addResult(result: BatchResult): void {
    this.#accumulator!.add(result);
    this.#correct += result.correct;
    const { skipped, loss } = result;
    this.outputsAreFinite = skipped !== "non-finite-logits";
    if (skipped !== null) this.skipped[skipped] = (this.skipped[skipped] ?? 0) + 1;
    if (!Number.isFinite(loss)) return;
    this.#loss += (1 - SMOOTHING) * (loss - this.#loss);
    this.#losses++;
  }

  #show(): void {
    const { options, session } = this.#plan;
    this.#progress.update({
      label: `epoch ${this.#epoch}/${options.epochs}`,
      done: this.steps,
      begunAt: this.resumedFrom?.step,
      // Undoes the pull of the zero that it began with; 0 / 0 before there is one.
      loss: this.#loss / (1 - SMOOTHING ** this.#losses),
      accuracy:
        session.task === "classification" ? this.#correct / this.#accumulator!.samples : undefined,
    });
  }
}
