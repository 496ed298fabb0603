import { cpSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { OnlineSample } from "../../../lib/train/stream.js";
import { Trainer } from "../../../lib/train/trainer.js";
import type { TrainerOptions } from "../../../lib/train/trainer-options.js";
import { expectError } from "../model/checkpoints.js";
import {
  MODELS,
  type ModelName,
  OPTIMIZERS,
  type OptimizerName,
  readState,
  samplesOf,
  stack,
  temporaryFolder,
  timelessLog,
} from "./trainer-fixtures.js";

/** Trains for 11 of 20 steps, and returns the model after it went on in another process's place. */
async function interrupted(
  load: (typeof MODELS)[ModelName],
  optimizer: OptimizerName,
  options: TrainerOptions,
  stopAt: number,
) {
  {
    using model = await load();
    const trainer = new Trainer(model, OPTIMIZERS[optimizer](model), options);
    for await (const event of trainer.run(samplesOf(model, 8))) {
      if (event.type === "step" && event.globalStep === stopAt) break;
    }
  }
  const model = await load();
  await model.writeParameters((await model.readParameters()).fill(0.25));
  const trainer = new Trainer(model, OPTIMIZERS[optimizer](model), options);
  const output = await trainer.train(samplesOf(model, 8), { resumeFromCheckpoint: true });
  return { model, output };
}

const CASES = (Object.keys(MODELS) as ModelName[]).flatMap((model) =>
  (Object.keys(OPTIMIZERS) as OptimizerName[]).map((optimizer) => [model, optimizer] as const),
);

describe("a training that is resumed in the middle of a pass equals one that never stopped, bit by bit:", () => {
  test.each(CASES)("%s with %s", async (name, optimizer) => {
    using whole = temporaryFolder();
    using parts = temporaryFolder();
    const load = MODELS[name];
    using model = await load();
    // 20 steps of 8 a pass: step 11 is in the middle of the second one.
    const options = (outputDir: string): TrainerOptions => ({
      ...{ maxSteps: 20, outputDir, saveSteps: 20, loggingSteps: 3, reportTo: ["jsonl"] },
      ...{ evalDataset: samplesOf(model, 3), evalStrategy: "steps", evalSteps: 7 },
      progressBar: false,
    });
    const trainer = new Trainer(model, OPTIMIZERS[optimizer](model), options(whole.path));
    const expected = await trainer.train(samplesOf(model, 8));
    const { model: resumed, output } = await interrupted(load, optimizer, options(parts.path), 11);
    using _ = resumed;
    expect(readdirSync(parts.path).sort()).toContain("checkpoint-11");
    expect(await resumed.readParameters()).toEqual(await model.readParameters());
    expect(output.trainingLoss).toBe(expected.trainingLoss);
    for (const file of ["optimizer.safetensors", "adapter_model.safetensors"]) {
      const [a, b] = [whole, parts].map(({ path }) =>
        readFileSync(join(path, "checkpoint-20", file)),
      );
      expect(b!.equals(a!), file).toBe(true);
    }
    expect(timelessLog(readState(parts.path, 20))).toEqual(timelessLog(readState(whole.path, 20)));
  });

  test("with batches, accumulation, a schedule with warm-up, and clipping", async () => {
    using whole = temporaryFolder();
    using parts = temporaryFolder();
    const options = (outputDir: string): TrainerOptions => ({
      ...{ epochs: 3, batchSize: 2, gradientAccumulationSteps: 3, dataCollator: stack, outputDir },
      ...{ lrSchedulerType: "cosine", warmupSteps: 0.2, maxGradNorm: 0.5, saveSteps: 1 },
    });
    using model = await MODELS.ViT();
    const trainer = new Trainer(model, OPTIMIZERS.AdamW(model), options(whole.path));
    // Four batches a pass, of which the second step takes the last one alone: 6 steps.
    const { globalStep } = await trainer.train(samplesOf(model, 8));
    expect(globalStep).toBe(6);
    const { model: resumed } = await interrupted(MODELS.ViT, "AdamW", options(parts.path), 3);
    using _ = resumed;
    expect(await resumed.readParameters()).toEqual(await model.readParameters());
  });
});

describe("resumeFromCheckpoint", () => {
  async function trained(dir: string, options: TrainerOptions = {}) {
    const model = await MODELS.ViT();
    const trainer = new Trainer(model, OPTIMIZERS.AdamW(model), {
      ...{ outputDir: dir, epochs: 1, saveSteps: 2, reportTo: [], ...options },
    });
    await trainer.train(samplesOf(model, 8));
    return model;
  }
  const again = (
    model: Awaited<ReturnType<typeof trained>>,
    dir: string,
    options: TrainerOptions = {},
  ) =>
    new Trainer(model, OPTIMIZERS.AdamW(model), {
      ...{ outputDir: dir, epochs: 2, saveSteps: 2, reportTo: [], ...options },
    });
  const resume = { resumeFromCheckpoint: true } as const;

  test.each([
    ["cut short", (file: string) => truncateSync(file, 100), /has 100 of \d+ bytes/],
    ["changed", (file: string) => flip(file), /has other contents/],
  ])("passes over a checkpoint of which a file was %s, and names it", async (_, damage, reason) => {
    using folder = temporaryFolder();
    using model = await trained(folder.path);
    damage(join(folder.path, "checkpoint-8/optimizer.safetensors"));
    const warnings: Error[] = [];
    const listener = (warning: Error) => warnings.push(warning);
    process.on("warning", listener);
    const begun: unknown[] = [];
    for await (const event of again(model, folder.path).run(samplesOf(model, 8), resume)) {
      if (event.type === "trainBegin") begun.push(event.resumedFrom);
    }
    process.off("warning", listener);
    expect(begun).toEqual([join(folder.path, "checkpoint-6")]);
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatchObject({ code: "LOKO_CHECKPOINT_DAMAGED" });
    expect(warnings[0]!.message).toContain("checkpoint-8: is damaged");
    expect(warnings[0]!.message).toMatch(reason);
    // Step 8 was done again, and its checkpoint replaced.
    for (const step of [10, 12, 14, 16]) {
      rmSync(join(folder.path, `checkpoint-${step}`), { recursive: true });
    }
    await again(model, folder.path).train(samplesOf(model, 8), {
      resumeFromCheckpoint: join(folder.path, "checkpoint-8"),
    });
  });

  function flip(file: string) {
    const bytes = readFileSync(file);
    bytes[bytes.length - 1]! ^= 1;
    writeFileSync(file, bytes);
  }

  test("refuses a damaged checkpoint that is named, and a folder that has none or only such", async () => {
    using folder = temporaryFolder();
    using model = await trained(folder.path, { saveTotalLimit: 1 });
    const trainer = again(model, folder.path);
    expect(readdirSync(folder.path)).toEqual(["checkpoint-8"]);
    const path = join(folder.path, "checkpoint-8");
    truncateSync(join(path, "manifest.json"), 50);
    const run = (from: string | true) => () =>
      trainer.train(samplesOf(model, 8), { resumeFromCheckpoint: from });
    await expectError(run(path), "ERR_CHECKPOINT_FORMAT", "checkpoint-8", "manifest.json");
    await expectError(run(true), "ERR_CHECKPOINT_FORMAT", "checkpoint-8");
    await expectError(run(join(folder.path, "none")), "ERR_FILE_NOT_FOUND", "none");
    using empty = temporaryFolder();
    const other = again(model, empty.path);
    const action = () => other.train(samplesOf(model, 8), resume);
    await expectError(action, "ERR_FILE_NOT_FOUND", "no checkpoint-<step>");
    const nowhere = new Trainer(model, OPTIMIZERS.AdamW(model), {});
    await expectError(() => nowhere.train(samplesOf(model, 8), resume), "ERR_OPTION", "outputDir");
  });

  test("refuses other data, other options, another optimizer and another model, and changes nothing", async () => {
    using folder = temporaryFolder();
    using model = await trained(folder.path);
    const theta = await model.readParameters();
    const mismatch = "ERR_CHECKPOINT_MISMATCH";
    const refuses = (trainer: Trainer<never>, size: number, ...words: string[]) =>
      expectError(
        () => trainer.train(samplesOf(model, size) as never, resume),
        mismatch,
        "checkpoint-8",
        ...words,
      );
    await refuses(again(model, folder.path), 9, "dataset_size 8, and now it is 9");
    await refuses(again(model, folder.path, { seed: 1 }), 8, "seed 42, and now it is 1");
    await refuses(again(model, folder.path, { shuffle: false }), 8, "shuffle true");
    await refuses(again(model, folder.path, { maxGradNorm: 0 }), 8, "max_grad_norm 1");
    const sgd = new Trainer(model, OPTIMIZERS.SGD(model), { outputDir: folder.path });
    await refuses(sgd as Trainer<never>, 8, "is of another optimizer");
    expect(await model.readParameters()).toEqual(theta);
    using bert = await MODELS.BERT();
    const other = new Trainer(bert, OPTIMIZERS.AdamW(bert), { outputDir: folder.path });
    await expectError(() => other.train(samplesOf(bert, 8), resume), mismatch, "another type");
  });

  test("finds a checkpoint that a process has left complete under its hidden name", async () => {
    using folder = temporaryFolder();
    using model = await trained(folder.path, { saveTotalLimit: 1 });
    const id = "0b2ab4d0-0000-4000-8000-000000000000";
    const at = (name: string) => join(folder.path, name);
    cpSync(at("checkpoint-8"), at(`.checkpoint-6.${id}`), { recursive: true });
    cpSync(at("checkpoint-8"), at(`.checkpoint-8.${id}.former`), { recursive: true });
    cpSync(at("checkpoint-8"), at(`.checkpoint-4.${id}.deleted`), { recursive: true });
    cpSync(at("checkpoint-8"), at(`..checkpoint-2.${id}.${id}`), { recursive: true });
    truncateSync(at(`..checkpoint-2.${id}.${id}/README.md`), 3);
    await again(model, folder.path, { epochs: 1 }).train(samplesOf(model, 8), resume);
    expect(readdirSync(folder.path).sort()).toEqual(["checkpoint-6", "checkpoint-8"]);
  });
});

describe("saveTotalLimit", () => {
  test("keeps the newest and the best, whatever the limit", async () => {
    using folder = temporaryFolder();
    using model = await MODELS.ViT();
    const seen: string[][] = [];
    const list = () => readdirSync(folder.path).filter((name) => name.startsWith("checkpoint"));
    // The rate is far too high: the first evaluation stays the best one.
    const { SGD } = await import("../../../lib/optim/gradient.js");
    const trainer = new Trainer(model, new SGD(model, { lr: 30 }), {
      ...{ outputDir: folder.path, epochs: 1, saveTotalLimit: 1, saveSteps: 2, evalSteps: 2 },
      ...{ evalDataset: samplesOf(model, 4), evalStrategy: "steps", loadBestModelAtEnd: true },
      ...{ lrSchedulerType: "constant", maxGradNorm: 0, reportTo: [] },
      callbacks: [({ type }) => void (type === "save" && seen.push(list()))],
    });
    const evaluations: number[] = [];
    let best: Float32Array | undefined;
    for await (const event of trainer.run(samplesOf(model, 8) as AsyncIterable<OnlineSample>)) {
      if (event.type !== "evaluate") continue;
      evaluations.push(event.metrics.loss);
      if (event.globalStep === 2) best = await model.readParameters();
      if (event.type === "evaluate" && event.globalStep === 8) {
        expect(await model.readParameters()).not.toEqual(best);
      }
    }
    expect(Math.min(...evaluations)).toBe(evaluations[0]);
    expect(seen).toEqual([
      ["checkpoint-2"],
      ["checkpoint-2", "checkpoint-4"],
      ["checkpoint-2", "checkpoint-6"],
      ["checkpoint-2", "checkpoint-8"],
    ]);
    expect(await model.readParameters()).toEqual(best);
  });
});
