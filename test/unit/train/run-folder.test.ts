// What a training does to its folder, and to what was there before it.
import { spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { basename, join, relative } from "node:path";
import { describe, expect, test } from "vitest";
import { writeManifest } from "../../../lib/io/manifest.js";
import type { Model } from "../../../lib/model.js";
import { SGD } from "../../../lib/optim/gradient.js";
import { Trainer } from "../../../lib/train/trainer.js";
import type { TrainerOptions } from "../../../lib/train/trainer-options.js";
import { expectError } from "../model/checkpoints.js";
import {
  checkpointsOf,
  MODELS,
  OPTIMIZERS,
  readState,
  samplesOf,
  temporaryFolder,
  withWarnings,
} from "./trainer-fixtures.js";

const load = MODELS.ViT;
const adamw = (model: Model, outputDir: string, options: TrainerOptions = {}) =>
  new Trainer(model, OPTIMIZERS.AdamW(model), { outputDir, reportTo: [], ...options });
const resume = { resumeFromCheckpoint: true } as const;

async function trained(outputDir: string, maxSteps: number, saveSteps: number) {
  const model = await load();
  await adamw(model, outputDir, { maxSteps, saveSteps }).train(samplesOf(model, 4));
  return model;
}

describe("a training that goes on", () => {
  test("does not begin among the checkpoints of another training, nor deletes them", async () => {
    using folder = temporaryFolder();
    const [a, b] = [join(folder.path, "a"), join(folder.path, "b")];
    using _ = await trained(b, 8, 2);
    using model = await trained(a, 4, 2);
    const theta = await model.readParameters();
    for (const overwriteOutputDir of [false, true]) {
      const options = { maxSteps: 9, saveTotalLimit: 1, overwriteOutputDir };
      const action = () =>
        adamw(model, b, options).train(samplesOf(model, 4), {
          resumeFromCheckpoint: join(a, "checkpoint-2"),
        });
      await expectError(action, "ERR_OUTPUT_EXISTS", b, "checkpoint-8", join(a, "checkpoint-2"));
    }
    expect(checkpointsOf(b)).toEqual([2, 4, 6, 8].map((step) => `checkpoint-${step}`));
    expect(await model.readParameters()).toEqual(theta);
    const elsewhere = join(folder.path, "c");
    await adamw(model, elsewhere, { maxSteps: 6, saveSteps: 1, saveTotalLimit: 1 }).train(
      samplesOf(model, 4),
      { resumeFromCheckpoint: join(a, "checkpoint-2") },
    );
    expect(checkpointsOf(elsewhere)).toEqual(["checkpoint-6"]);
    expect(checkpointsOf(a)).toEqual(["checkpoint-2", "checkpoint-4"]);
  });

  test("from an older checkpoint does not begin while newer good ones are there", async () => {
    using folder = temporaryFolder();
    using model = await trained(folder.path, 6, 2);
    const from = { resumeFromCheckpoint: join(folder.path, "checkpoint-2") };
    const trainer = adamw(model, folder.path, { maxSteps: 6, saveSteps: 2 });
    const action = () => trainer.train(samplesOf(model, 4), from);
    await expectError(action, "ERR_OUTPUT_EXISTS", "checkpoint-6", "newer than", "checkpoint-2");
    // One that is damaged would be passed over, and is none to go on from.
    rmSync(join(folder.path, "checkpoint-6/README.md"));
    await expectError(action, "ERR_OUTPUT_EXISTS", "checkpoint-4", "newer than", "checkpoint-2");
    rmSync(join(folder.path, "checkpoint-4"), { recursive: true });
    const seen: string[][] = [];
    for await (const { type } of trainer.run(samplesOf(model, 4), from)) {
      if (type === "save") seen.push(checkpointsOf(folder.path));
    }
    expect(seen[0]).toEqual(["checkpoint-2", "checkpoint-4", "checkpoint-6"]);
  });

  test("deletes for its limit no folder that it has not written", async () => {
    using folder = temporaryFolder();
    using model = await trained(folder.path, 4, 2);
    mkdirSync(join(folder.path, "checkpoint-1"));
    writeFileSync(join(folder.path, "checkpoint-1/thesis.txt"), "precious");
    const options = { maxSteps: 8, saveSteps: 2, saveTotalLimit: 1 };
    await adamw(model, folder.path, options).train(samplesOf(model, 4), resume);
    expect(checkpointsOf(folder.path)).toEqual(["checkpoint-1", "checkpoint-8"]);
    expect(readdirSync(join(folder.path, "checkpoint-1"))).toEqual(["thesis.txt"]);
  });

  test.each([
    ["an empty folder", (path: string) => mkdirSync(path)],
    ["a file", (path: string) => writeFileSync(path, "mine")],
    ["a folder of something else", (path: string) => cpSync("docs", path, { recursive: true })],
  ])("passes over %s with the name of a checkpoint, with a warning", async (_, create) => {
    using folder = temporaryFolder();
    using model = await trained(folder.path, 4, 2);
    create(join(folder.path, "checkpoint-999"));
    const trainer = adamw(model, folder.path, { maxSteps: 6, saveSteps: 2 });
    const { result, codes } = await withWarnings(() => trainer.train(samplesOf(model, 4), resume));
    expect(result).toMatchObject({ globalStep: 6, steps: 2 });
    expect(codes).toEqual(["LOKO_CHECKPOINT_DAMAGED"]);
    const named = { resumeFromCheckpoint: join(folder.path, "checkpoint-999") };
    await expectError(() => trainer.train(samplesOf(model, 4), named), "ERR_CHECKPOINT_FORMAT");
  });

  test("passes over a newer one that is whole and cannot be read, and one that was renamed is itself", async () => {
    using folder = temporaryFolder();
    using model = await trained(folder.path, 6, 2);
    const newest = join(folder.path, "checkpoint-6");
    const state = readState(folder.path, 6);
    const log_history = [{ loss: null }];
    writeFileSync(join(newest, "trainer_state.json"), JSON.stringify({ ...state, log_history }));
    rmSync(join(newest, "manifest.json"));
    await writeManifest(newest);
    const create = () => adamw(model, folder.path, { maxSteps: 6, saveSteps: 3 });
    const first = await withWarnings(() => create().train(samplesOf(model, 4), resume));
    expect(first).toMatchObject({ result: { steps: 2 }, codes: ["LOKO_CHECKPOINT_DAMAGED"] });
    rmSync(newest, { recursive: true });
    renameSync(join(folder.path, "checkpoint-4"), join(folder.path, "checkpoint-9"));
    expect(await create().train(samplesOf(model, 4), resume)).toMatchObject({ steps: 2 });
  });

  test("leaves hidden names alone that are the user's", async () => {
    using folder = temporaryFolder();
    using model = await trained(folder.path, 6, 2);
    const at = (name: string) => join(folder.path, name);
    cpSync(at("checkpoint-4"), at(".checkpoint-4.bak"), { recursive: true });
    renameSync(at("checkpoint-6"), at(".checkpoint-6.bad"));
    const trainer = adamw(model, folder.path, { maxSteps: 5 });
    expect(await trainer.train(samplesOf(model, 4), resume)).toMatchObject({ steps: 1 });
    expect(readdirSync(folder.path).sort()).toEqual([
      ...[".checkpoint-4.bak", ".checkpoint-6.bad", "checkpoint-2", "checkpoint-4", "checkpoint-5"],
    ]);
  });
});

describe("the best checkpoint of a training that goes on", () => {
  // The rate is far too high: the first evaluation, of step 2, stays the best one.
  const create = (model: Model, outputDir: string, options: TrainerOptions) =>
    new Trainer(model, new SGD(model, { lr: 30 }), {
      ...{ outputDir, saveSteps: 2, evalSteps: 2, evalStrategy: "steps", reportTo: [] },
      ...{ evalDataset: samplesOf(model, 4), loadBestModelAtEnd: true },
      ...{ lrSchedulerType: "constant", maxGradNorm: 0, ...options },
    });

  test("is found again when the folder was renamed, and from another working folder", async () => {
    using folder = temporaryFolder();
    using model = await load();
    const [first, second] = [join(folder.path, "first"), join(folder.path, "second")];
    const named = relative(process.cwd(), first);
    const output = await create(model, named, { maxSteps: 4 }).train(samplesOf(model, 4));
    expect(output.bestModelCheckpoint).toBe(join(named, "checkpoint-2"));
    const best = await model.readParameters();
    renameSync(first, second);
    const cwd = process.cwd();
    process.chdir(folder.path);
    try {
      const rest = await create(model, "second", { maxSteps: 6 }).train(
        samplesOf(model, 4),
        resume,
      );
      expect(rest.bestModelCheckpoint).toBe(join("second", "checkpoint-2"));
    } finally {
      process.chdir(cwd);
    }
    expect(await model.readParameters()).toEqual(best);
  });

  test("is kept whatever the limit, however its path is spelled", async () => {
    using folder = temporaryFolder();
    using model = await load();
    await create(model, folder.path, { maxSteps: 4 }).train(samplesOf(model, 4));
    const named = relative(process.cwd(), folder.path);
    const trainer = create(model, folder.path, { maxSteps: 8, saveTotalLimit: 1 });
    const from = { resumeFromCheckpoint: join(named, "checkpoint-4") };
    const { bestModelCheckpoint } = await trainer.train(samplesOf(model, 4), from);
    expect(bestModelCheckpoint).toBe(join(named, "checkpoint-2"));
    expect(checkpointsOf(folder.path)).toEqual(["checkpoint-2", "checkpoint-8"]);
  });

  test("is asked for before the first step, and needed only by loadBestModelAtEnd", async () => {
    using folder = temporaryFolder();
    using model = await load();
    await create(model, folder.path, { maxSteps: 4 }).train(samplesOf(model, 4));
    rmSync(join(folder.path, "checkpoint-2"), { recursive: true });
    const theta = await model.readParameters();
    const trainer = create(model, folder.path, { maxSteps: 6 });
    const steps: number[] = [];
    const action = async () => {
      for await (const { globalStep } of trainer.run(samplesOf(model, 4), resume)) {
        steps.push(globalStep);
      }
    };
    await expectError(action, "ERR_FILE_NOT_FOUND", "checkpoint-2", "loadBestModelAtEnd");
    expect(steps).toEqual([]);
    expect(await model.readParameters()).toEqual(theta);
    const without = create(model, folder.path, { maxSteps: 6, loadBestModelAtEnd: false });
    const output = await without.train(samplesOf(model, 4), resume);
    expect(output).toMatchObject({ globalStep: 6, bestModelCheckpoint: null });
    expect(readState(folder.path, 6)).toMatchObject({ best_global_step: 2 });
  });
});

describe("two trainings in one folder", () => {
  const LOCK = ".training.lock";

  test("are refused while the first one runs, which goes on", async () => {
    using folder = temporaryFolder();
    using model = await load();
    using other = await load();
    const first = adamw(model, folder.path, { maxSteps: 6, saveSteps: 1, saveTotalLimit: 2 });
    const second = adamw(other, folder.path, { maxSteps: 4, overwriteOutputDir: true });
    for await (const { type, globalStep } of first.run(samplesOf(model, 4))) {
      if (type !== "step" || globalStep !== 3) continue;
      const action = () => second.train(samplesOf(other, 4));
      await expectError(action, "ERR_OUTPUT_BUSY", folder.path, String(process.pid));
    }
    expect(readdirSync(folder.path).sort()).toEqual(["checkpoint-5", "checkpoint-6"]);
    await second.train(samplesOf(other, 4));
    expect(readdirSync(folder.path)).toEqual(["checkpoint-4"]);
  });

  test("are possible after one that failed, and after one that was refused", async () => {
    using folder = temporaryFolder();
    using model = await load();
    const failing = adamw(model, folder.path, {
      maxSteps: 4,
      callbacks: [({ type }) => Promise.reject(new Error(type))],
    });
    await expect(failing.train(samplesOf(model, 4))).rejects.toThrow("trainBegin");
    expect(readdirSync(folder.path)).toEqual([]);
    const trainer = adamw(model, folder.path, { maxSteps: 4 });
    const resumed = () => trainer.train(samplesOf(model, 4), resume);
    await expectError(resumed, "ERR_FILE_NOT_FOUND");
    expect(readdirSync(folder.path)).toEqual([]);
    await trainer.train(samplesOf(model, 4));
    expect(readdirSync(folder.path)).toEqual(["checkpoint-4"]);
  });

  test("are refused for a live process, and not for one that has ended or gives no sign of life", async () => {
    using folder = temporaryFolder();
    using model = await load();
    const lock = join(folder.path, LOCK);
    const child = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"]);
    try {
      const write = (holder: object) => writeFileSync(lock, JSON.stringify(holder));
      const action = () =>
        adamw(model, folder.path, { maxSteps: 2, overwriteOutputDir: true }).train(
          samplesOf(model, 4),
        );
      const live = { pid: child.pid, thread: 0, host: hostname(), id: "a" };
      write(live);
      await expectError(action, "ERR_OUTPUT_BUSY", String(child.pid), hostname(), LOCK);
      expect(JSON.parse(readFileSync(lock, "utf8"))).toEqual(live);
      // Of another machine nothing is known but when it was last heard of.
      write({ ...live, host: "elsewhere" });
      await expectError(action, "ERR_OUTPUT_BUSY", "elsewhere");
      const longAgo = Date.now() / 1000 - 60;
      utimesSync(lock, longAgo, longAgo);
      await action();
      expect(existsSync(lock)).toBe(false);
      // Of this very thread, which knows that it holds none: the number of a process that was before it.
      write({ ...live, pid: process.pid });
      await action();
      symlinkSync("nowhere", lock);
      await expectError(action, "ERR_OUTPUT_BUSY", LOCK);
      rmSync(lock);
      writeFileSync(lock, "cut sho");
      utimesSync(lock, longAgo, longAgo);
      await action();
      write(live);
      child.kill("SIGKILL");
      await new Promise((resolve) => child.once("exit", resolve));
      await action();
      expect(readdirSync(folder.path)).toEqual(["checkpoint-2"]);
    } finally {
      child.kill("SIGKILL");
    }
  });
});

describe("a folder that cannot take what a training writes is refused before the first step:", () => {
  test.each(["report.html", "log.jsonl"])("a folder in place of %s", async (name) => {
    using folder = temporaryFolder();
    using model = await load();
    mkdirSync(join(folder.path, name));
    const types: string[] = [];
    const trainer = adamw(model, folder.path, {
      ...{ maxSteps: 2, reportTo: ["html", "jsonl"] },
      callbacks: [({ type }) => void types.push(type)],
    });
    const action = () => trainer.train(samplesOf(model, 4));
    await expectError(action, "ERR_FILE_WRITE", name, "is a folder");
    expect(types).toEqual([]);
    expect(readdirSync(folder.path)).toEqual([name]);
  });

  test("a link to nothing", async () => {
    using folder = temporaryFolder();
    using model = await load();
    const path = join(folder.path, "link");
    symlinkSync(join(folder.path, "nowhere"), path);
    const action = () => adamw(model, path, { maxSteps: 2 }).train(samplesOf(model, 4));
    await expectError(action, "ERR_FILE_WRITE", path, "is a link to a folder that does not exist");
    expect(basename(path)).toBe("link");
  });
});
