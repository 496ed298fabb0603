import { rename, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { LokoError } from "../errors.js";
import { checkAdapterFolder } from "../lora/adapter-folder.js";
import type { Evaluation } from "../metrics/accumulator.js";
import type { Model } from "../model.js";
import type { Trainer } from "../train/trainer.js";
import { packageVersion } from "../version.js";
import { refuseTogether, requireNeeded, requireOutside } from "./checks.js";
import { Interrupt } from "./interrupt.js";
import { type Learned, learn } from "./learning.js";
import { measure } from "./measure.js";
import { checkOptimizer, createOptimizer } from "./optimizers.js";
import { printJson } from "./output.js";
import { printPlan, printResults } from "./report.js";
import { metricsFor, openSession, type Session } from "./session.js";
import type { TrainOptions } from "./train.js";
import { createTrainer, type TrainerPlan } from "./trainer.js";

/** Everything that is decided before the first step. */
export interface TrainPlan extends TrainerPlan {
  readonly trainer: Trainer;
}

/** What `results.json` holds and `--json` prints. */
export interface TrainResults extends Learned {
  readonly status: "completed" | "interrupted" | "failed";
  readonly version: string;
  readonly options: Partial<TrainOptions>;
  readonly model: {
    readonly modelType: string;
    readonly labels: readonly string[];
    readonly parameters: { readonly trainable: number; readonly all: number };
  };
  /** Names of the classes by the outputs of the model, where the data has names; only of images. */
  readonly classes?: readonly string[];
  readonly rows: { readonly train: number; readonly eval?: number };
  /** Of the held-out examples, after the training. */
  readonly eval?: Evaluation;
}

/** Examples that are evaluated at once; numbers do not depend on it beyond rounding. */
const EVAL_BATCH = 8;

/** Options that an adapter which is continued has already. */
const ADAPTER_OPTIONS = ["r", "loraAlpha", "targetModules", "modulesToSave", "bias", "useRslora"];

/**
 * `loko train`: learns, saves the adapter, then measures it on held-out examples. What can be refused is
 * refused before the first step, and the adapter is saved before anything else can fail.
 */
export async function train(given: TrainOptions): Promise<void> {
  // What is resumed has written its adapter there before.
  const options = given.resume === undefined ? given : { ...given, overwrite: true };
  checkOptimizer(options);
  refuseTogether(options, "adapter", ADAPTER_OPTIONS, "a loaded adapter has its own.");
  requireNeeded(options);
  requireOutside(options, ["checkpointDir", "logDir"]);
  await checkAdapterFolder(options.output, options);
  using session = await openSession(options, { seed: options.seed });
  const plan = await makePlan(options, session);
  if (!options.json) await printPlan(plan);

  using interrupt = new Interrupt();
  const { signal } = interrupt;
  const { learned, failure } = await learn(plan, interrupt);
  if (learned.steps === 0) signal.throwIfAborted();
  await saveAdapter(session.model, options);
  const isCut = signal.aborted && learned.steps < plan.steps;
  const status = failure !== undefined ? "failed" : isCut ? "interrupted" : "completed";
  let results = resultsOf(plan, learned, status);
  await writeResults(options.output, results);
  if (failure !== undefined) throw failure;
  if (plan.eval !== undefined && !signal.aborted) {
    const { metrics } = plan;
    const held = { metrics, batchSize: EVAL_BATCH };
    const evaluation = await measure(session.model, plan.eval, held, interrupt).catch((error) => {
      // What the training came to is printed all the same.
      if (!signal.aborted) throw error;
    });
    results = { ...results, eval: evaluation ?? undefined };
    await writeResults(options.output, results);
  }
  if (options.json) await printJson(results);
  else await printResults(results, plan);
  signal.throwIfAborted();
}

/**
 * Where it should go, or beside it when that has become impossible since it was tried: nothing that was
 * learned is lost.
 */
async function saveAdapter(model: Model, { output, overwrite }: TrainOptions): Promise<void> {
  try {
    await model.saveAdapter(output, { overwrite });
  } catch (error) {
    if (!(error instanceof LokoError)) throw error;
    const rescue = `${resolve(output)}-${Date.now()}`;
    await model.saveAdapter(rescue);
    throw new LokoError(
      error.code,
      `${error.message} The adapter was saved to ${rescue} instead.`,
      { cause: error },
    );
  }
}

async function makePlan(options: TrainOptions, session: Session): Promise<TrainPlan> {
  const { model, task, feed } = session;
  const metrics = metricsFor(options.metrics, session);
  const train = await feed.open(options.train, options, "train");
  const held =
    options.eval === undefined ? undefined : await feed.open(options.eval, options, "test", train);
  if (options.adapter === undefined) await addAdapter(model, options);
  const optimizer = createOptimizer(model, options, task);
  const { batchSize, gradientAccumulationSteps: passes = 1, epochs } = options;
  const whole = Math.ceil(Math.ceil(train.rows / batchSize) / passes) * epochs;
  const steps = Math.min(whole, options.maxSteps ?? whole);
  const plan = { options, session, metrics, train, eval: held, optimizer, steps };
  return { ...plan, trainer: createTrainer(plan) };
}

async function addAdapter(model: Model, options: TrainOptions): Promise<void> {
  const { r = 8, loraAlpha = 16, targetModules, modulesToSave, bias, useRslora } = options;
  await model.addAdapter({ r, loraAlpha, targetModules, modulesToSave, bias, useRslora });
}

function resultsOf(
  plan: TrainPlan,
  learned: Learned,
  status: TrainResults["status"],
): TrainResults {
  const { json: _, verbose: __, ...options } = plan.options;
  const { model, feed } = plan.session;
  return {
    status,
    version: packageVersion(),
    options: { ...options, maxLength: feed.maxLength },
    classes: plan.train.classes,
    model: {
      modelType: model.modelType,
      labels: model.id2label,
      parameters: model.parameterCounts(),
    },
    rows: { train: plan.train.rows, eval: plan.eval?.rows },
    ...learned,
  };
}

/** Beside the adapter, complete or not at all. */
async function writeResults(output: string, results: TrainResults): Promise<void> {
  const path = join(output, "results.json");
  const temporary = join(output, ".results.json.tmp");
  try {
    await writeFile(temporary, `${JSON.stringify(results, null, 2)}\n`);
    await rename(temporary, path);
  } catch (error) {
    throw new LokoError(
      "ERR_FILE_WRITE",
      `${path}: cannot be written: ${(error as Error).message}.`,
      {
        cause: error,
      },
    );
  }
}
