import { LokoError } from "../errors.js";
import { type Evaluation, MetricAccumulator } from "../metrics/accumulator.js";
import type { SkipReason } from "../optim/optimizer.js";
import { startProgress } from "../report/progress.js";
import { type StepEvent, trainOnline } from "../train/online.js";
import type { Interrupt } from "./interrupt.js";
import type { TrainPlan } from "./training.js";

/** Metrics of one pass over the examples, each predicted before it was learned from. */
export interface OnlineEvaluation extends Evaluation {
  /** From 1. */
  readonly epoch: number;
}

/** What the steps of a run came to. */
export interface Learned {
  readonly steps: number;
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
  const { options, session, optimizer, metrics, train } = plan;
  const { model, task } = session;
  const { batchSize, epochs, seed } = options;
  const online: OnlineEvaluation[] = [];
  const skipped: Partial<Record<SkipReason, number>> = {};
  const started = performance.now();
  let steps = 0;
  let loss = 0;
  let losses = 0;
  let outputsAreFinite = true;
  const isOver = () => steps >= plan.steps || interrupt.signal.aborted;

  using progress = startProgress(plan.steps, { quiet: options.json ?? false });
  interrupt.onAsk = () =>
    progress.note("Stopping after this step to save the adapter; Ctrl-C again ends at once.");
  const follow = (event: StepEvent, epoch: number) => {
    steps++;
    outputsAreFinite = event.skipped !== "non-finite-logits";
    if (event.skipped !== null) skipped[event.skipped] = (skipped[event.skipped] ?? 0) + 1;
    if (Number.isFinite(event.loss)) {
      loss += (1 - SMOOTHING) * (event.loss - loss);
      losses++;
    }
    progress.update({
      label: `epoch ${epoch}/${epochs}`,
      done: steps,
      // Undoes the pull of the zero that it began with; 0 / 0 before there is one.
      loss: loss / (1 - SMOOTHING ** losses),
      accuracy: task === "classification" ? event.onlineAccuracy : undefined,
    });
  };

  const runEpoch = async (epoch: number) => {
    const accumulator = new MetricAccumulator({ metrics });
    const batches = train.encode({ batchSize, order: { seed, epoch } });
    try {
      for await (const event of trainOnline(model, optimizer, batches)) {
        accumulator.add(event);
        follow(event, epoch);
        if (isOver()) break;
      }
    } finally {
      if (accumulator.samples > 0) online.push({ epoch, ...accumulator.result() });
    }
  };
  let failure: unknown;
  try {
    for (let epoch = 1; epoch <= epochs && !isOver(); epoch++) await runEpoch(epoch);
  } catch (error) {
    if (steps === 0) throw error;
    failure = error;
  }
  if (!outputsAreFinite) failure ??= diverged(plan);
  const seconds = (performance.now() - started) / 1000;
  return { learned: { steps, seconds, skipped, online }, failure };
}
