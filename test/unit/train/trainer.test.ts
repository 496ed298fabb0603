import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { describe, expect, test, vi } from "vitest";
import { Dataset } from "../../../lib/data/dataset.js";
import type { Model } from "../../../lib/model.js";
import { AdamW, SGD } from "../../../lib/optim/gradient.js";
import { LoKO } from "../../../lib/optim/loko.js";
import { evaluate } from "../../../lib/train/evaluate.js";
import type { OnlineSample } from "../../../lib/train/stream.js";
import { Trainer } from "../../../lib/train/trainer.js";
import type { TrainerEvent } from "../../../lib/train/trainer-events.js";
import type { TrainerOptions } from "../../../lib/train/trainer-options.js";
import { expectError } from "../model/checkpoints.js";
import { readEvents } from "../report/event-reader.js";
import {
  MODELS,
  OPTIMIZERS,
  sampleOf,
  samplesOf,
  stack,
  temporaryFolder,
  withWarnings,
} from "./trainer-fixtures.js";

const load = MODELS.ViT;
const adamw = (model: Model, options: TrainerOptions = {}) =>
  new Trainer(model, OPTIMIZERS.AdamW(model), options);

async function eventsOf(
  trainer: Trainer,
  dataset: AsyncIterable<OnlineSample>,
  signal?: AbortSignal,
) {
  const events: TrainerEvent[] = [];
  for await (const event of trainer.run(dataset, signal === undefined ? {} : { signal })) {
    events.push(event);
  }
  return events;
}
const only = <T extends TrainerEvent["type"]>(events: TrainerEvent[], type: T) =>
  events.filter((event) => event.type === type) as Extract<TrainerEvent, { type: T }>[];

describe("Trainer", () => {
  test("says how many steps changed nothing, and warns where that was all of them", async () => {
    using model = await load();
    const before = await model.readParameters();
    const train = (p0: number) =>
      withWarnings(() =>
        new Trainer(model, new LoKO(model, { p0 }), { epochs: 1 }).train(samplesOf(model, 4)),
      );
    const useless = await train(1e30);
    expect(useless.result).toMatchObject({ steps: 4, skippedSteps: 4, diverged: false });
    expect(useless.codes).toEqual(["LOKO_NOTHING_LEARNED"]);
    expect(await model.readParameters()).toEqual(before);
    const useful = await train(0.01);
    expect(useful.result.skippedSteps).toBe(0);
    expect(useful.codes).toEqual([]);
  });

  test("does the steps of the optimizer, in an order that each pass draws from the seed", async () => {
    using model = await load();
    using other = await load();
    const data = samplesOf(model, 5);
    const trainer = new Trainer(model, new LoKO(model), { epochs: 2, seed: 3 });
    const events = await eventsOf(trainer, data);
    const byHand = new LoKO(other);
    const losses: number[] = [];
    for (const epoch of [0, 1]) {
      const order = data.shuffle({ seed: 3, epoch, bufferSize: 5 });
      for await (const { inputs, labels } of order) {
        losses.push((await byHand.step(inputs, labels)).loss);
      }
    }
    expect(only(events, "step").map(({ results }) => results[0]!.loss)).toEqual(losses);
    expect(await model.readParameters()).toEqual(await other.readParameters());
    expect(events.map(({ type }) => type)).toEqual([
      ...["trainBegin"],
      ...["epochBegin", "step", "step", "step", "step", "step", "epochEnd"],
      ...["epochBegin", "step", "step", "step", "step", "step", "epochEnd"],
      ...["log", "log", "trainEnd"],
    ]);
    const [{ output }] = only(events, "trainEnd") as [Extract<TrainerEvent, { type: "trainEnd" }>];
    const mean = losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
    expect(output.trainingLoss).toBeCloseTo(mean, 12);
    expect(output).toMatchObject({ globalStep: 10, stopped: false, bestModelCheckpoint: null });
    expect(Object.keys(output.metrics)).toEqual([
      "train_runtime",
      "train_samples_per_second",
      "train_steps_per_second",
      "train_loss",
      "epoch",
    ]);
  });

  test("logs with the keys of the Hugging Face Trainer, of the steps since the last entry", async () => {
    using model = await load();
    const trainer = adamw(model, { ...{ epochs: 1, loggingSteps: 2, shuffle: false } });
    const events = await eventsOf(trainer, samplesOf(model, 5));
    const steps = only(events, "step").map(({ results }) => results[0]!);
    const logs = only(events, "log").map((event) => event.logs);
    expect(logs.map(({ step }) => step)).toEqual([2, 4, 5, 5]);
    expect(logs.map(({ epoch }) => epoch)).toEqual([0.4, 0.8, 1, 1]);
    expect(logs[1]!.loss).toBeCloseTo((steps[2]!.loss + steps[3]!.loss) / 2, 12);
    expect(logs[2]!.loss).toBe(steps[4]!.loss);
    expect(logs[1]!.grad_norm).toBe(steps[3]!.gradientNorm);
    // transformers' linear schedule of 5 steps: factors 1, 0.8, 0.6, 0.4, 0.2; lr is 1e-3.
    expect(logs[0]!.learning_rate).toBeCloseTo(0.8e-3, 12);
    expect(logs[2]!.learning_rate).toBeCloseTo(0.2e-3, 12);
    const correct = steps.reduce((sum, step) => sum + step.correct, 0);
    expect(logs[2]!.online_accuracy).toBe(correct / 5);
  });

  test("learns from a processed batch as from one large one where gradients accumulate", async () => {
    using model = await load();
    using other = await load();
    const options = { dataCollator: stack, shuffle: false, epochs: 1, maxGradNorm: 0 } as const;
    const sgd = (model: Model) => new SGD(model, { lr: 1, momentum: 0.9 });
    const big = await new Trainer(model, sgd(model), { ...options, batchSize: 6 }).train(
      samplesOf(model, 15),
    );
    const small = { ...options, batchSize: 2, gradientAccumulationSteps: 3 };
    const parts = await new Trainer(other, sgd(other), small).train(samplesOf(other, 15));
    // The last step has a batch of two and one of one.
    expect([big.globalStep, parts.globalStep]).toEqual([3, 3]);
    // The sums of three gradients are rounded to float32 in another order: 1e-6 relative to θ's largest.
    const [a, b] = [await model.readParameters(), await other.readParameters()];
    const worst = a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
    expect(worst).toBeLessThan(1e-5);
    expect(parts.trainingLoss).toBeCloseTo(big.trainingLoss, 5);
  });

  test("evaluates, keeps the best and stops early", async () => {
    using model = await load();
    const held = samplesOf(model, 4);
    // A rate of 0: every evaluation is the same, so none after the first is better.
    const trainer = new Trainer(model, new SGD(model, { lr: 0 }), {
      ...{ maxSteps: 100, evalDataset: held, evalStrategy: "steps", evalSteps: 3 },
      ...{ earlyStoppingPatience: 2, metricForBestModel: "eval_accuracy" },
    });
    const events = await eventsOf(trainer, samplesOf(model, 5));
    const evaluations = only(events, "evaluate");
    expect(evaluations.map(({ globalStep }) => globalStep)).toEqual([3, 6, 9]);
    const expected = await evaluate(model, held);
    for (const { metrics, logs } of evaluations) {
      expect(metrics).toEqual(expected);
      expect(logs).toMatchObject({ eval_loss: expected.loss, eval_accuracy: expected.accuracy });
      expect(logs.eval_samples_per_second).toBeCloseTo(4 / logs.eval_runtime!, 6);
    }
    expect(only(events, "trainEnd")[0]!.output).toMatchObject({ globalStep: 9, stopped: true });
    expect(await trainer.evaluate()).toEqual(expected);
  });

  test("obeys callbacks, which see every event in turn", async () => {
    using folder = temporaryFolder();
    using model = await load();
    const types: string[] = [];
    const trainer = adamw(model, {
      ...{ epochs: 3, outputDir: folder.path, saveStrategy: "epoch", reportTo: [] },
      evalDataset: samplesOf(model, 2),
      evalStrategy: "no",
      callbacks: [
        async ({ type }) => {
          await setTimeout(0);
          types.push(type);
        },
        ({ type, globalStep }, control) => {
          if (type !== "step") return;
          if (globalStep === 1) control.shouldLog = control.shouldEvaluate = true;
          if (globalStep === 2) control.shouldEpochStop = true;
          if (globalStep === 5) control.shouldTrainingStop = control.shouldSave = true;
        },
      ],
    });
    const output = await trainer.train(samplesOf(model, 4));
    expect(types.join(" ")).toBe(
      "trainBegin epochBegin step log evaluate step epochEnd save epochBegin step step step save " +
        "epochEnd log log trainEnd",
    );
    expect(output).toMatchObject({ globalStep: 5, stopped: true });
    expect(readdirSync(folder.path).sort()).toEqual(["checkpoint-2", "checkpoint-5"]);
    const failing = adamw(model, { callbacks: [() => Promise.reject(new Error("of a callback"))] });
    await expect(failing.train(samplesOf(model, 4))).rejects.toThrow("of a callback");
  });

  test("writes what the Hugging Face Trainer writes, and a report", async () => {
    using folder = temporaryFolder();
    using model = await load();
    const trainer = new Trainer(model, new LoKO(model), {
      ...{ epochs: 1, outputDir: folder.path, loggingSteps: 2, evalDataset: samplesOf(model, 2) },
    });
    await trainer.train(samplesOf(model, 6));
    const entries = readdirSync(folder.path).sort();
    expect(entries).toEqual(["checkpoint-6", "log.jsonl", "report.html", "runs"]);
    expect(readdirSync(join(folder.path, "checkpoint-6")).sort()).toEqual([
      ...["README.md", "adapter_config.json", "adapter_model.safetensors", "manifest.json"],
      ...["optimizer.safetensors", "trainer_state.json", "training_args.json"],
    ]);
    const lines = readFileSync(join(folder.path, "log.jsonl"), "utf8").trim().split("\n");
    const logged = lines.map((line) => JSON.parse(line) as Record<string, number>);
    expect(logged.map(({ event }) => event)).toEqual([
      ...["trainBegin", "log", "log", "log", "evaluate", "save", "log"],
    ]);
    const [run] = readdirSync(join(folder.path, "runs"));
    const [file] = readdirSync(join(folder.path, "runs", run!));
    const events = readEvents(readFileSync(join(folder.path, "runs", run!, file!)));
    const [, first] = events;
    expect(Object.keys(first!.scalars)).toContain("train/rows");
    expect(first!.scalars["train/loss"]).toBe(Math.fround(logged[1]!.loss!));
    expect(events.some(({ scalars }) => "eval/accuracy" in scalars)).toBe(true);
    const state = JSON.parse(
      readFileSync(join(folder.path, "checkpoint-6/trainer_state.json"), "utf8"),
    );
    expect(state).toMatchObject({ global_step: 6, max_steps: 6, epoch: 1, best_global_step: 6 });
    expect(state.best_model_checkpoint).toBe(join(folder.path, "checkpoint-6"));
    expect(state.log_history).toHaveLength(4);
    const report = readFileSync(join(folder.path, "report.html"), "utf8");
    for (const title of ["Loss", "Accuracy", "Rows used", "Covariance p", "trace(R)"]) {
      expect(report).toContain(title);
    }
    expect(report).not.toMatch(/(?:src|href)=|<script|@import|url\(|https?:/);
    // A checkpoint is a PEFT adapter as well.
    using fresh = await (await import("../../../lib/model.js")).Model.fromPretrained(
      model.directory,
    );
    await fresh.loadAdapter(join(folder.path, "checkpoint-6"));
    expect(await fresh.readParameters()).toEqual(await model.readParameters());
  });

  test("shows nothing where there is no terminal", async () => {
    using model = await load();
    const write = vi.spyOn(process.stderr, "write");
    await adamw(model, { epochs: 1 }).train(samplesOf(model, 3));
    expect(write).not.toHaveBeenCalled();
    write.mockRestore();
  });
});

describe("Trainer refuses", () => {
  test("options that contradict each other, and what LoKO has not, by name", async () => {
    using model = await load();
    const refuses = (options: object, ...words: string[]) =>
      expectError(() => adamw(model, options as TrainerOptions), "ERR_OPTION", ...words);
    const evalDataset = samplesOf(model, 2);
    await refuses({ epochs: 1, maxSteps: 1 }, "epochs or maxSteps");
    await refuses({ epoch: 1 }, 'unknown option "epoch"', '"epochs"');
    await refuses({ lrSchedulerType: "constant", warmupSteps: 5 }, "constant_with_warmup");
    await refuses({ warmupSteps: 1.5 }, "warmupSteps");
    await refuses({ evalStrategy: "steps" }, "needs an evalDataset");
    await refuses({ evalDataset, evalSteps: 5 }, 'evalSteps needs evalStrategy "steps"');
    await refuses({ saveStrategy: "epoch" }, "needs an outputDir");
    await refuses({ reportTo: ["html"] }, "need an outputDir");
    await refuses({ reportTo: ["tensorboard"] }, "outputDir or a loggingDir");
    await refuses({ reportTo: ["wandb"] }, "reportTo");
    await refuses({ loadBestModelAtEnd: true }, "loadBestModelAtEnd needs evaluations");
    await refuses({ earlyStoppingThreshold: 1 }, "needs earlyStoppingPatience");
    await refuses({ metricForBestModel: "f1", evalDataset }, "metricForBestModel", '"f1"');
    await refuses({ metrics: ["f1"] }, '"f1" is of two labels');
    await refuses({ metrics: ["acuracy"] }, "acuracy", '"accuracy"');
    await refuses({ metrics: ["meanSquaredError"] }, "does not fit classification");
    const best = { loadBestModelAtEnd: true, evalDataset, outputDir: "x" };
    await refuses(best, "to be the same");
    const steps = { evalStrategy: "steps", evalSteps: 3, saveStrategy: "steps", saveSteps: 4 };
    await refuses({ ...best, ...steps }, "multiple of evalSteps");
    for (const option of [
      { lrSchedulerType: "linear" },
      { warmupSteps: 1 },
      { maxGradNorm: 1 },
      { gradientAccumulationSteps: 2 },
    ]) {
      const create = () => new Trainer(model, new LoKO(model), option as TrainerOptions);
      await expectError(create, "ERR_OPTION", Object.keys(option)[0]!, "LoKO has none");
    }
    using other = await load();
    const foreign = () => new Trainer(other, OPTIMIZERS.AdamW(model));
    await expectError(foreign, "ERR_OPTION", "another model");
  });

  test("what is no dataset, an empty one, and one that can be read only once", async () => {
    using model = await load();
    const trainer = adamw(model, { epochs: 1 });
    const refuses = (dataset: unknown, code: string, ...words: string[]) =>
      expectError(() => trainer.train(dataset as never), code, ...words);
    await refuses(3, "ERR_INPUT_TYPE", "dataset must be", "3");
    await refuses([], "ERR_DATA_FORMAT", "empty");
    await refuses(samplesOf(model, 0), "ERR_DATA_FORMAT", "empty");
    const once = samplesOf(model, 2)[Symbol.asyncIterator]();
    await refuses(once, "ERR_INPUT_TYPE", "Dataset.from(generatorFunction)");
    await refuses({ open: () => [] }, "ERR_OPTION", "does not say its size");
    await refuses([1, 2], "ERR_INPUT_TYPE", "item 0 of the stream");
    const batched = adamw(model, { batchSize: 4 });
    await expectError(
      () => batched.train(samplesOf(model, 2)),
      "ERR_OPTION",
      "consists of batches",
    );
    const gone = adamw(model, { maxSteps: 3 });
    const action = () => gone.train({ open: () => [] });
    await expectError(action, "ERR_DATA_FORMAT", "no batch in pass 1");
  });

  test("a folder with checkpoints of an earlier training, unless it may delete them", async () => {
    using folder = temporaryFolder();
    using model = await load();
    const options = { outputDir: folder.path, epochs: 1, reportTo: [] } as const;
    await adamw(model, options).train(samplesOf(model, 3));
    const theta = await model.readParameters();
    const again = () => adamw(model, options).train(samplesOf(model, 2));
    await expectError(again, "ERR_OUTPUT_EXISTS", "checkpoint-3", "resumeFromCheckpoint: true");
    expect(await model.readParameters()).toEqual(theta);
    await adamw(model, { ...options, overwriteOutputDir: true }).train(samplesOf(model, 2));
    expect(readdirSync(folder.path)).toEqual(["checkpoint-2"]);
  });

  test("a folder that cannot be written, before the first step", async () => {
    using folder = temporaryFolder();
    using model = await load();
    writeFileSync(join(folder.path, "file"), "");
    const theta = await model.readParameters();
    const trainer = adamw(model, { outputDir: join(folder.path, "file/run") });
    await expectError(() => trainer.train(samplesOf(model, 2)), "ERR_FILE_WRITE", "file/run");
    expect(await model.readParameters()).toEqual(theta);
    if (process.getuid?.() === 0) return; // nothing is forbidden to root
    chmodSync(folder.path, 0o555);
    const locked = adamw(model, { outputDir: join(folder.path, "run") });
    await expectError(() => locked.train(samplesOf(model, 2)), "ERR_FILE_WRITE");
    chmodSync(folder.path, 0o755);
  });

  test("a second training while one runs, and any after dispose", async () => {
    using model = await load();
    const trainer = adamw(model, { epochs: 1 });
    const first = trainer.train(samplesOf(model, 4));
    await expectError(() => trainer.train(samplesOf(model, 4)), "ERR_MODEL_BUSY", "already");
    await first;
    await trainer.train(samplesOf(model, 4));
    model.dispose();
    await expectError(() => trainer.train(samplesOf(model, 4)), "ERR_DISPOSED");
  });
});

describe("a training that ends in the middle keeps what it has learned in a checkpoint", () => {
  const options = (outputDir: string): TrainerOptions => ({
    ...{ epochs: 2, outputDir, shuffle: false, reportTo: [] },
  });
  const good = (model: Model, i: number) => sampleOf(model, i);

  test("when the dataset throws", async () => {
    using folder = temporaryFolder();
    using model = await load();
    const broken = Dataset.from(function* () {
      for (let i = 0; i < 6; i++) yield good(model, i);
      throw new Error("the disk is gone");
    });
    const source = { size: 10, open: () => broken };
    const trainer = adamw(model, { ...options(folder.path), batchSize: 1 });
    await expect(trainer.train(source)).rejects.toThrow("the disk is gone");
    expect(readdirSync(folder.path)).toEqual(["checkpoint-6"]);
  });

  test("when a batch is not finite, or has a wrong label, also among accumulated ones", async () => {
    using folder = temporaryFolder();
    using model = await load();
    const bad = good(model, 3);
    (bad.inputs as { pixelValues: Float32Array }).pixelValues[7] = Number.NaN;
    const items = [good(model, 0), good(model, 1), good(model, 2), bad];
    const trainer = adamw(model, { ...options(folder.path), gradientAccumulationSteps: 2 });
    await expectError(() => trainer.train(items), "ERR_INPUT_NOT_FINITE");
    expect(readdirSync(folder.path)).toEqual(["checkpoint-1"]);
    const wrong = [good(model, 0), { ...good(model, 1), labels: Int32Array.of(7) }];
    await expectError(() => adamw(model, { epochs: 1 }).train(wrong), "ERR_LABEL_RANGE");
  });

  test("when it is aborted, at any moment", async () => {
    using model = await load();
    const whole = ["trainBegin", "epochBegin", "step", "log", "evaluate", "save", "epochEnd"];
    for (const moment of whole) {
      using folder = temporaryFolder();
      const controller = new AbortController();
      const reason = new Error(`at ${moment}`);
      const trainer = adamw(model, {
        ...options(folder.path),
        ...{ evalDataset: samplesOf(model, 2), evalStrategy: "steps", evalSteps: 2 },
        ...{ loggingSteps: 2, saveSteps: 2 },
        callbacks: [
          ({ type, globalStep }) => {
            const isLate = globalStep >= 2 || type === "trainBegin" || type === "epochBegin";
            if (type === moment && isLate) controller.abort(reason);
          },
        ],
      });
      const { signal } = controller;
      await expect(trainer.train(samplesOf(model, 4), { signal }), moment).rejects.toBe(reason);
      const isBefore = moment === "trainBegin" || moment === "epochBegin";
      const expected = moment === "epochEnd" ? ["checkpoint-2", "checkpoint-4"] : ["checkpoint-2"];
      expect(readdirSync(folder.path), moment).toEqual(isBefore ? [] : expected);
    }
    const aborted = AbortSignal.abort(new Error("before"));
    const trainer = adamw(model);
    await expect(trainer.train(samplesOf(model, 4), { signal: aborted })).rejects.toThrow("before");
  });

  test("when it is aborted while the dataset is waited for", async () => {
    using folder = temporaryFolder();
    using model = await load();
    const controller = new AbortController();
    const stuck = Dataset.from(async function* () {
      yield good(model, 0);
      globalThis.setTimeout(() => controller.abort(new Error("enough")), 10);
      await new Promise(() => {});
    });
    const source = { size: 4, open: () => stuck };
    const trainer = adamw(model, { ...options(folder.path), batchSize: 1 });
    const run = trainer.train(source, { signal: controller.signal });
    await expect(run).rejects.toThrow("enough");
    expect(readdirSync(folder.path)).toEqual(["checkpoint-1"]);
  });

  test("when the reader of the events leaves, or asks it to stop", async () => {
    using folder = temporaryFolder();
    using model = await load();
    const trainer = adamw(model, options(folder.path));
    for await (const { type, globalStep } of trainer.run(samplesOf(model, 4))) {
      if (type === "step" && globalStep === 3) break;
    }
    expect(readdirSync(folder.path)).toEqual(["checkpoint-3"]);
    const signal = AbortSignal.timeout(60_000);
    for await (const event of trainer.run(samplesOf(model, 4), {
      resumeFromCheckpoint: true,
      signal,
    })) {
      if (event.type === "step") trainer.stop();
      if (event.type === "trainEnd") expect(event.output.stopped).toBe(true);
    }
    expect(readdirSync(folder.path)).toEqual(["checkpoint-3", "checkpoint-4"]);
  });

  test("but for a model that was disposed of, which has nothing left to save", async () => {
    using model = await load();
    const trainer = adamw(model, {
      callbacks: [({ type }) => void (type === "step" && model.dispose())],
    });
    await expectError(() => trainer.train(samplesOf(model, 4)), "ERR_DISPOSED");
  });

  test("and says so where that fails as well", async () => {
    using folder = temporaryFolder();
    using model = await load();
    const { rmSync } = await import("node:fs");
    const warnings: Error[] = [];
    const listener = (warning: Error) => warnings.push(warning);
    process.on("warning", listener);
    const out = join(folder.path, "run");
    const trainer = adamw(model, {
      ...options(out),
      callbacks: [
        ({ type, globalStep }) => {
          if (type !== "step" || globalStep !== 2) return;
          rmSync(out, { recursive: true });
          writeFileSync(out, "in its place");
          throw new Error("the first reason");
        },
      ],
    });
    await expect(trainer.train(samplesOf(model, 4))).rejects.toThrow("the first reason");
    await setTimeout(0);
    process.off("warning", listener);
    expect(warnings.map((warning) => (warning as { code?: string }).code)).toEqual([
      "LOKO_CHECKPOINT_LOST",
    ]);
    expect(existsSync(join(folder.path, "run/checkpoint-2"))).toBe(false);
  });
});

test("AdamW of the Trainer equals AdamW by hand under a constant rate", async () => {
  using model = await load();
  using other = await load();
  const options = {
    lrSchedulerType: "constant",
    maxGradNorm: 0,
    shuffle: false,
    epochs: 1,
  } as const;
  await new Trainer(model, new AdamW(model), options).train(samplesOf(model, 5));
  const byHand = new AdamW(other);
  for (let i = 0; i < 5; i++) {
    const { inputs, labels } = sampleOf(other, i);
    await byHand.step(inputs, labels);
  }
  expect(await model.readParameters()).toEqual(await other.readParameters());
});
