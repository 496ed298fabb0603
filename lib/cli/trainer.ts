import type { MetricName } from "../metrics/accumulator.js";
import type { Optimizer } from "../optim/optimizer.js";
import { Trainer } from "../train/trainer.js";
import type { EpochSource } from "../train/trainer-data.js";
import type { TrainerOptions } from "../train/trainer-options.js";
import type { CheckedData } from "./feed.js";
import type { Session } from "./session.js";
import type { TrainOptions } from "./train.js";

/** What the Trainer of a run is made from. */
export interface TrainerPlan {
  readonly options: TrainOptions;
  readonly session: Session;
  readonly metrics: readonly MetricName[] | undefined;
  readonly train: CheckedData;
  readonly eval: CheckedData | undefined;
  readonly optimizer: Optimizer;
  /** Steps of all epochs, or as many as were asked for. */
  readonly steps: number;
}

/** Where checkpoints go: beside the adapter, whose folder is replaced as a whole. */
export function checkpointDirOf({ checkpointDir, output }: TrainOptions): string {
  return checkpointDir ?? `${output.replace(/[\\/]+$/, "")}-checkpoints`;
}

/**
 * The Trainer of the command line: unlike the class it neither schedules nor clips unless it is told to, and
 * writes nothing but what it is asked for.
 *
 * @throws LokoError ERR_OPTION for options that contradict each other.
 */
export function createTrainer(plan: TrainerPlan): Trainer {
  const { options, session, optimizer, metrics } = plan;
  const { saveEvery, evalEvery, resume, maxSteps, epochs, logDir } = options;
  const writes =
    saveEvery !== undefined || resume !== undefined || options.checkpointDir !== undefined;
  const trainerOptions: TrainerOptions = {
    // The fewer of both; an epoch may turn out shorter than planned where images are left out.
    ...(maxSteps === plan.steps ? { maxSteps } : { epochs }),
    batchSize: options.batchSize,
    seed: options.seed,
    ...(optimizer.hasLearningRate && {
      lrSchedulerType: options.lrSchedulerType ?? "constant",
      maxGradNorm: options.maxGradNorm ?? 0,
    }),
    ...pick(options, ["gradientAccumulationSteps", "warmupSteps", "earlyStoppingPatience"]),
    ...(!optimizer.hasLearningRate && pick(options, ["lrSchedulerType", "maxGradNorm"])),
    ...(plan.eval && { evalDataset: sourceOf(plan.eval, false) }),
    ...(evalEvery === undefined
      ? { evalStrategy: "no" }
      : { evalStrategy: "steps", evalSteps: evalEvery }),
    ...(metrics && { metrics }),
    ...(writes && {
      outputDir: checkpointDirOf(options),
      overwriteOutputDir: options.overwrite ?? false,
      ...(saveEvery === undefined
        ? { saveStrategy: "epoch" }
        : { saveStrategy: "steps", saveSteps: saveEvery }),
      ...pick(options, ["saveTotalLimit"]),
    }),
    ...(options.loadBest && { loadBestModelAtEnd: true }),
    ...(logDir !== undefined && { loggingDir: logDir }),
    loggingSteps: options.logEvery,
    progressBar: false,
  };
  return new Trainer(session.model, optimizer, trainerOptions);
}

/** Data that were looked over, as the Trainer passes over them. */
export function sourceOf(data: CheckedData, shuffles = true): EpochSource {
  return {
    size: data.rows,
    open: ({ batchSize, seed, epoch, skip }) =>
      data.encode({ batchSize, skip, ...(shuffles && { order: { seed, epoch: epoch + 1 } }) }),
  };
}

function pick<K extends keyof TrainOptions>(
  options: TrainOptions,
  names: readonly K[],
): Pick<Partial<TrainOptions>, K> {
  const given = names.filter((name) => options[name] !== undefined);
  const picked = Object.fromEntries(given.map((name) => [name, options[name]]));
  return picked as Pick<Partial<TrainOptions>, K>;
}
