// Trainings that end where they should not: nothing that was learned or measured may be lost.
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { setImmediate, setTimeout } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { Dataset } from "../../../lib/data/dataset.js";
import { writeManifest } from "../../../lib/io/manifest.js";
import type { Model } from "../../../lib/model.js";
import { SGD } from "../../../lib/optim/gradient.js";
import { Trainer } from "../../../lib/train/trainer.js";
import type { TrainerCallback, TrainerEvent } from "../../../lib/train/trainer-events.js";
import type { TrainerOptions } from "../../../lib/train/trainer-options.js";
import { expectError } from "../model/checkpoints.js";
import {
  checkpointsOf,
  MODELS,
  OPTIMIZERS,
  readState,
  sampleOf,
  samplesOf,
  stack,
  temporaryFolder,
  timelessLog,
  withWarnings,
} from "./trainer-fixtures.js";

const load = MODELS.ViT;
const adamw = (model: Model, options: TrainerOptions = {}) =>
  new Trainer(model, OPTIMIZERS.AdamW(model), { reportTo: ["jsonl"], ...options });
const resume = { resumeFromCheckpoint: true } as const;

type Moment = TrainerEvent["type"];

/** A callback that throws at the event of a step. */
const throwsAt =
  (moment: Moment, step: number): TrainerCallback =>
  ({ type, globalStep }) => {
    if (type === moment && globalStep === step) throw new Error(`at ${moment}`);
  };

/** The whole state, without what depends on the clock or the name of the folder. */
function comparable(outputDir: string, step: number) {
  const state = readState(outputDir, step);
  const best = state.best_model_checkpoint;
  return {
    ...state,
    log_history: timelessLog(state),
    best_model_checkpoint: best && basename(best),
  };
}

const linesOf = (outputDir: string) =>
  readFileSync(join(outputDir, "log.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { event: string; step: number });

describe("the last stretch of a training is saved", () => {
  // No checkpoint is due before the end, and the log entry of the end comes before it.
  const options = (outputDir: string): TrainerOptions => ({
    maxSteps: 5,
    saveSteps: 500,
    outputDir,
  });

  test("when a callback throws at its last log entry", async () => {
    using folder = temporaryFolder();
    using model = await load();
    const trainer = adamw(model, { ...options(folder.path), callbacks: [throwsAt("log", 5)] });
    await expect(trainer.train(samplesOf(model, 5))).rejects.toThrow("at log");
    expect(checkpointsOf(folder.path)).toEqual(["checkpoint-5"]);
  });

  test("when the loop over the events is left there", async () => {
    using folder = temporaryFolder();
    using model = await load();
    for await (const { type } of adamw(model, options(folder.path)).run(samplesOf(model, 5))) {
      if (type === "log") break;
    }
    expect(checkpointsOf(folder.path)).toEqual(["checkpoint-5"]);
  });

  test("when the log cannot be written there", async () => {
    using folder = temporaryFolder();
    using model = await load();
    const log = join(folder.path, "log.jsonl");
    const spoil: TrainerCallback = ({ type, globalStep }) => {
      if (type !== "step" || globalStep !== 5) return;
      rmSync(log);
      mkdirSync(log);
    };
    const trainer = adamw(model, { ...options(folder.path), callbacks: [spoil] });
    await expectError(() => trainer.train(samplesOf(model, 5)), "ERR_FILE_WRITE", "log.jsonl");
    expect(checkpointsOf(folder.path)).toEqual(["checkpoint-5"]);
  });
});

describe("what was due when a training was interrupted is made up for, bit by bit:", () => {
  // Both strategies come together at step 8, the last one of the first pass.
  const steps: TrainerOptions = {
    ...({ evalStrategy: "steps", saveStrategy: "steps" } as const),
    ...{ evalSteps: 4, saveSteps: 4 },
  };
  const epoch: TrainerOptions = { evalStrategy: "epoch", saveStrategy: "epoch" };
  const options = (model: Model, outputDir: string): TrainerOptions => ({
    ...{ epochs: 2, outputDir, loggingSteps: 4, evalDataset: samplesOf(model, 3) },
    ...{ loadBestModelAtEnd: true, earlyStoppingPatience: 50 },
  });
  const entriesOf = (outputDir: string) =>
    linesOf(outputDir)
      .filter(({ event }) => event === "log" || event === "evaluate")
      .map(({ event, step }) => `${event} ${step}`);

  test.each([
    ["step", steps],
    ["log", steps],
    ["evaluate", steps],
    ["save", steps],
    ["step", epoch],
    ["epochEnd", epoch],
    ["evaluate", epoch],
  ] satisfies [Moment, TrainerOptions][])(
    "a throw at the event %s of the last step of a pass, with %o",
    async (moment, when) => {
      using whole = temporaryFolder();
      using parts = temporaryFolder();
      using model = await load();
      using other = await load();
      const expected = await adamw(model, { ...options(model, whole.path), ...when }).train(
        samplesOf(model, 8),
      );
      const own = { ...options(other, parts.path), ...when };
      const failing = adamw(other, { ...own, callbacks: [throwsAt(moment, 8)] });
      await expect(failing.train(samplesOf(other, 8))).rejects.toThrow(`at ${moment}`);
      const output = await adamw(other, own).train(samplesOf(other, 8), resume);
      expect(await other.readParameters()).toEqual(await model.readParameters());
      expect(basename(output.bestModelCheckpoint!)).toBe(basename(expected.bestModelCheckpoint!));
      expect(checkpointsOf(parts.path)).toEqual(checkpointsOf(whole.path));
      for (const step of when === steps ? [8, 12, 16] : [8, 16]) {
        expect(comparable(parts.path, step), `step ${step}`).toEqual(comparable(whole.path, step));
      }
      expect(entriesOf(parts.path)).toEqual(entriesOf(whole.path));
    },
  );

  test.each([{ epochs: 2 }, { maxSteps: 11 }])(
    "a throw at the last step of all, before the end of its pass, of %o",
    async (length) => {
      using whole = temporaryFolder();
      using parts = temporaryFolder();
      using model = await load();
      using other = await load();
      const create = (of: Model, outputDir: string, callbacks: TrainerCallback[]) =>
        adamw(of, {
          ...{ outputDir, evalDataset: samplesOf(of, 3), loadBestModelAtEnd: true },
          ...{ ...epoch, ...length, callbacks },
        });
      const { globalStep } = await create(model, whole.path, []).train(samplesOf(model, 8));
      const failing = create(other, parts.path, [throwsAt("step", globalStep)]);
      await expect(failing.train(samplesOf(other, 8))).rejects.toThrow("at step");
      await create(other, parts.path, []).train(samplesOf(other, 8), resume);
      expect(comparable(parts.path, globalStep)).toEqual(comparable(whole.path, globalStep));
      expect(entriesOf(parts.path)).toEqual(entriesOf(whole.path));
    },
  );

  test("an abort during the evaluation", async () => {
    using whole = temporaryFolder();
    using parts = temporaryFolder();
    using model = await load();
    using other = await load();
    await adamw(model, { ...options(model, whole.path), ...steps }).train(samplesOf(model, 8));
    const own = { ...options(other, parts.path), ...steps };
    const controller = new AbortController();
    const abort: TrainerCallback = ({ type, globalStep }) => {
      if (type === "log" && globalStep === 8) controller.abort(new Error("enough"));
    };
    const { signal } = controller;
    const aborted = adamw(other, { ...own, callbacks: [abort] });
    await expect(aborted.train(samplesOf(other, 8), { signal })).rejects.toThrow("enough");
    await adamw(other, own).train(samplesOf(other, 8), resume);
    expect(comparable(parts.path, 16)).toEqual(comparable(whole.path, 16));
  });

  test("an evaluation that ends the training for want of patience", async () => {
    using folder = temporaryFolder();
    using model = await load();
    // A rate of 0: the evaluations of steps 4, 6 and 8 are no better than that of step 2.
    const create = (more: TrainerOptions) =>
      new Trainer(model, new SGD(model, { lr: 0 }), {
        ...{ maxSteps: 40, evalDataset: samplesOf(model, 2), evalStrategy: "steps", evalSteps: 2 },
        ...{ earlyStoppingPatience: 3, outputDir: folder.path, reportTo: [], ...more },
      });
    for (const step of [4, 8]) {
      const failing = create({ callbacks: [throwsAt("step", step)] });
      const options = { resumeFromCheckpoint: step === 8 };
      await expect(failing.train(samplesOf(model, 8), options)).rejects.toThrow("at step");
    }
    const { globalStep } = await create({}).train(samplesOf(model, 8), resume);
    expect(globalStep).toBe(8);
  });

  test("and nothing is made up for after a checkpoint that does not say so, as older ones", async () => {
    using folder = temporaryFolder();
    using model = await load();
    const own = { ...options(model, folder.path), ...steps, epochs: 1 };
    await adamw(model, own).train(samplesOf(model, 8));
    const { stateful_callbacks, loko, ...rest } = readState(folder.path, 8);
    const { TrainerControl, ...callbacks } = stateful_callbacks;
    expect(TrainerControl).toEqual({
      args: {
        ...{ should_training_stop: false, should_epoch_stop: false },
        ...{ should_save: false, should_evaluate: false, should_log: false },
      },
      attributes: {},
    });
    const { last: _, ends_pass: __, ...older } = loko;
    const checkpoint = join(folder.path, "checkpoint-8");
    writeFileSync(
      join(checkpoint, "trainer_state.json"),
      JSON.stringify({ ...rest, stateful_callbacks: callbacks, loko: older }),
    );
    rmSync(join(checkpoint, "manifest.json"));
    await writeManifest(checkpoint);
    const types: string[] = [];
    for await (const { type } of adamw(model, own).run(samplesOf(model, 8), resume)) {
      types.push(type);
    }
    expect(types).toEqual(["trainBegin", "log", "trainEnd"]);
  });
});

describe("stop()", () => {
  const slow = (model: Model) =>
    Dataset.from(async function* () {
      for (let i = 0; i < 6; i++) {
        await setTimeout(2);
        yield sampleOf(model, i);
      }
    });

  test("ends a training before its first step while its data are still counted", async () => {
    using folder = temporaryFolder();
    using model = await load();
    const trainer = adamw(model, { epochs: 2, outputDir: folder.path });
    const theta = await model.readParameters();
    for (const delay of [0, 5]) {
      const training = trainer.train(slow(model));
      if (delay > 0) await setTimeout(delay);
      trainer.stop();
      expect(await training).toMatchObject({ globalStep: 0, stopped: true });
      expect(await model.readParameters()).toEqual(theta);
      expect(checkpointsOf(folder.path)).toEqual([]);
    }
    const whole = await trainer.train(slow(model));
    expect(whole).toMatchObject({ globalStep: 12, stopped: false });
  });

  test("ends a training while its checkpoint is still verified, and is forgotten afterwards", async () => {
    using folder = temporaryFolder();
    using model = await load();
    const trainer = adamw(model, { maxSteps: 6, saveSteps: 3, outputDir: folder.path });
    const failing = adamw(model, {
      ...{ maxSteps: 6, saveSteps: 3, outputDir: folder.path, callbacks: [throwsAt("step", 4)] },
    });
    await expect(failing.train(samplesOf(model, 6))).rejects.toThrow("at step");
    const training = trainer.train(samplesOf(model, 6), resume);
    await setImmediate();
    trainer.stop();
    expect(await training).toMatchObject({ globalStep: 4, steps: 0, stopped: true });
    trainer.stop();
    const rest = await trainer.train(samplesOf(model, 6), resume);
    expect(rest).toMatchObject({ globalStep: 6, steps: 2, stopped: false });
  });

  test("in the middle of a pass makes no evaluation and no save of its end", async () => {
    using folder = temporaryFolder();
    using model = await load();
    const types: string[] = [];
    const trainer: Trainer = adamw(model, {
      ...{ epochs: 2, outputDir: folder.path, evalDataset: samplesOf(model, 2) },
      ...{ evalStrategy: "epoch", saveStrategy: "epoch" },
      callbacks: [
        ({ type, globalStep }) => {
          if (type !== "step") types.push(`${type} ${globalStep}`);
          if (type === "step" && globalStep === 3) trainer.stop();
        },
      ],
    });
    await trainer.train(samplesOf(model, 5));
    await trainer.train(samplesOf(model, 5), resume);
    expect(types).toEqual([
      ...["trainBegin 0", "epochBegin 0", "epochEnd 3", "log 3", "save 3", "log 3", "trainEnd 3"],
      ...["trainBegin 3", "epochBegin 3", "epochEnd 5", "evaluate 5", "save 5"],
      ...["epochBegin 5", "epochEnd 10", "evaluate 10", "save 10", "log 10", "log 10"],
      ...["trainEnd 10"],
    ]);
  });

  test("ends with the best model where that is asked for, and an abort with the current one", async () => {
    using model = await load();
    for (const how of ["stop", "abort"] as const) {
      using folder = temporaryFolder();
      const controller = new AbortController();
      const seen = new Map<number, Float32Array>();
      // The rate is far too high: the first evaluation stays the best one.
      const trainer: Trainer = new Trainer(model, new SGD(model, { lr: 30 }), {
        ...{ outputDir: folder.path, maxSteps: 20, evalSteps: 2, saveSteps: 2, reportTo: [] },
        ...{ evalDataset: samplesOf(model, 4), evalStrategy: "steps", loadBestModelAtEnd: true },
        ...{ lrSchedulerType: "constant", maxGradNorm: 0 },
        callbacks: [
          async ({ type, globalStep }) => {
            if (type !== "step") return;
            seen.set(globalStep, await model.readParameters());
            if (globalStep !== 7) return;
            if (how === "stop") trainer.stop();
            else controller.abort(new Error("enough"));
          },
        ],
      });
      await trainer.train(samplesOf(model, 8), { signal: controller.signal }).catch(() => {});
      const best = Number(basename(readState(folder.path, 7).best_model_checkpoint!).slice(11));
      expect(best).toBeLessThan(7);
      const step = how === "stop" ? best : 7;
      expect(await model.readParameters(), how).toEqual(seen.get(step));
      await model.writeParameters(seen.get(1)!);
    }
  });
});

describe("calls of the model from outside", () => {
  test("may end a training, but what it has learned is saved once the model is free", async () => {
    using folder = temporaryFolder();
    using model = await load();
    const { inputs } = stack(Array.from({ length: 64 }, (_, i) => sampleOf(model, i)));
    let calls: Promise<void> | undefined;
    let isOver = false;
    const callFromOutside = async () => {
      while (!isOver) {
        await model.forward(inputs).catch(() => {});
        await setTimeout(2);
      }
    };
    const callback: TrainerCallback = ({ type, globalStep }) => {
      if (type === "step" && globalStep === 2) calls = callFromOutside();
    };
    const trainer = adamw(model, {
      maxSteps: 100_000,
      outputDir: folder.path,
      callbacks: [callback],
    });
    const { codes } = await withWarnings(() =>
      expectError(() => trainer.train(samplesOf(model, 8)), "ERR_MODEL_BUSY"),
    );
    isOver = true;
    await calls;
    expect(codes).toEqual([]);
    expect(checkpointsOf(folder.path)).toHaveLength(1);
  });
});

describe("what callbacks do to the logs", () => {
  test.each([
    ["a text", "host-1"],
    ["NaN", Number.NaN],
    ["a number", 3],
  ])("is not part of a checkpoint (%s)", async (_, value) => {
    using folder = temporaryFolder();
    using model = await load();
    const seen: unknown[] = [];
    const create = (maxSteps: number) =>
      adamw(model, {
        ...{ maxSteps, saveSteps: 2, loggingSteps: 2, outputDir: folder.path },
        ...{ evalDataset: samplesOf(model, 2), evalStrategy: "steps" },
        callbacks: [
          (event) => {
            if (event.type !== "log" && event.type !== "evaluate") return;
            (event.logs as Record<string, unknown>).mine = value;
          },
          (event) => void (event.type === "log" && seen.push(event.logs.mine)),
        ],
      });
    await create(4).train(samplesOf(model, 4));
    expect(seen[0]).toBe(value);
    expect(readState(folder.path, 4).log_history.map(({ mine }) => mine)).not.toContain(value);
    expect(await create(6).train(samplesOf(model, 4), resume)).toMatchObject({ globalStep: 6 });
  });
});

describe("a training that diverges", () => {
  test("is saved, says so in its output, and rejects where it is awaited", async () => {
    using folder = temporaryFolder();
    using model = await load();
    using other = await load();
    const { AdamW } = await import("../../../lib/optim/gradient.js");
    const create = (of: Model, outputDir: string) =>
      new Trainer(of, new AdamW(of, { lr: 1e30 }), { maxSteps: 4, outputDir, reportTo: [] });
    const failing = create(model, join(folder.path, "awaited"));
    await expectError(() => failing.train(samplesOf(model, 4)), "ERR_DIVERGED", "learning rate");
    expect(checkpointsOf(join(folder.path, "awaited"))).toEqual(["checkpoint-4"]);
    const outputs: boolean[] = [];
    const streamed = create(other, join(folder.path, "streamed"));
    for await (const event of streamed.run(samplesOf(other, 4))) {
      if (event.type === "trainEnd") outputs.push(event.output.diverged);
    }
    expect(outputs).toEqual([true]);
  });

  test("and one that does not says that", async () => {
    using model = await load();
    const output = await adamw(model, { maxSteps: 3, reportTo: [] }).train(samplesOf(model, 3));
    expect(output).toMatchObject({ diverged: false, steps: 3 });
  });

  test("has no best evaluation among those that are not finite", async () => {
    using folder = temporaryFolder();
    using model = await load();
    const { AdamW } = await import("../../../lib/optim/gradient.js");
    const trainer = new Trainer(model, new AdamW(model, { lr: 1e30 }), {
      ...{ maxSteps: 4, outputDir: folder.path, reportTo: [], saveSteps: 2, evalSteps: 2 },
      ...{ evalDataset: samplesOf(model, 2), evalStrategy: "steps", loadBestModelAtEnd: true },
    });
    await expectError(() => trainer.train(samplesOf(model, 4)), "ERR_DIVERGED");
    expect(readState(folder.path, 4)).toMatchObject({ best_metric: null, best_global_step: null });
    expect(existsSync(join(folder.path, "checkpoint-4/manifest.json"))).toBe(true);
  });
});
