// An AbortSignal at many moments of everything that takes long: it ends with the reason, or it was over;
// nothing is half done, and the model goes on.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Model } from "../../../lib/model.js";
import { LoKO } from "../../../lib/optim/loko.js";
import type { Optimizer } from "../../../lib/optim/optimizer.js";
import { evaluate } from "../../../lib/train/evaluate.js";
import { trainOnline } from "../../../lib/train/online.js";
import { Trainer } from "../../../lib/train/trainer.js";
import { vitFolder } from "../../parity/fixtures.js";
import { sampleOf, samplesOf, temporaryFolder } from "./trainer-fixtures.js";

/** How many moments are tried, spread evenly over the time that the work takes and a little more. */
const MOMENTS = 16;

// Of a kind that other code would take for an error of the file system.
const reason = Object.assign(new Error("stop here"), { code: "ENOENT" });

type Work = (signal: AbortSignal) => Promise<unknown>;

/** Begins the work and aborts it after so many milliseconds, to the turn of the event loop. */
async function abortAfter(milliseconds: number, work: Work): Promise<"done" | "aborted"> {
  const controller = new AbortController();
  const start = performance.now();
  const running = work(controller.signal).then(
    () => "done" as const,
    (error: unknown) => {
      expect(error).toBe(reason);
      return "aborted" as const;
    },
  );
  while (performance.now() - start < milliseconds) await setImmediate();
  controller.abort(reason);
  return running;
}

/** Tries every moment; `check` is told how each ended. */
async function atAnyMoment(
  work: Work,
  check: (outcome: "done" | "aborted") => Promise<void>,
): Promise<void> {
  // The shortest of a few: other work on the machine delays any of them.
  let duration = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 4; i++) {
    const start = performance.now();
    await work(new AbortController().signal);
    duration = Math.min(duration, performance.now() - start);
    await check("done");
  }
  let aborted = 0;
  for (let moment = 0; moment < MOMENTS; moment++) {
    const outcome = await abortAfter((1.2 * duration * moment) / MOMENTS, work);
    if (outcome === "aborted") aborted++;
    await check(outcome);
  }
  expect(aborted).toBeGreaterThan(MOMENTS / 4);
}

let model: Model;
let optimizer: Optimizer;
let folder: ReturnType<typeof temporaryFolder>;
beforeAll(async () => {
  folder = temporaryFolder();
  model = await Model.fromPretrained(vitFolder("odd"), { threads: 1 });
  await model.addAdapter({ r: 4, targetModules: "all-linear" });
  optimizer = new LoKO(model, { noise: "ema" });
});
afterAll(() => {
  model.dispose();
  folder[Symbol.dispose]();
});

/** Rejects where the model is busy or broken. */
async function expectUsable(of = model): Promise<void> {
  using logits = await of.forward(sampleOf(of, 0).inputs);
  expect(logits.dataSync().every(Number.isFinite)).toBe(true);
}

/** θ, p, R and counters, bit by bit. */
async function stateOf(): Promise<string> {
  const path = join(folder.path, "state");
  await optimizer.saveState(path);
  return readFileSync(path, "latin1");
}

describe("an abort at any moment", () => {
  test("of loading a model leaves nothing that keeps another from loading", async () => {
    await atAnyMoment(
      async (signal) => (await Model.fromPretrained(vitFolder("odd"), { signal })).dispose(),
      async () => {},
    );
    await expectUsable();
  });

  test("of a training leaves the state after a whole number of steps", async () => {
    const samples = Array.from({ length: 6 }, (_, i) => sampleOf(model, i));
    const start = join(folder.path, "start");
    await optimizer.saveState(start);
    const states = new Set([await stateOf()]);
    for (const { inputs, labels } of samples) {
      await optimizer.step(inputs, labels);
      states.add(await stateOf());
    }
    expect(states.size).toBe(7);
    const check = async () => {
      expect(states.has(await stateOf())).toBe(true);
      await expectUsable();
      await optimizer.loadState(start);
    };
    await optimizer.loadState(start);
    await atAnyMoment(async (signal) => {
      for await (const _ of trainOnline(model, optimizer, samples, { signal }));
    }, check);
    const options = { epochs: 1, shuffle: false, reportTo: [], progressBar: false };
    await atAnyMoment(
      (signal) => new Trainer(model, optimizer, options).train(samples, { signal }),
      check,
    );
  });

  test("of a training with checkpoints leaves whole ones, of the step where it stands", async () => {
    const outputDir = join(folder.path, "run");
    const trainer = new Trainer(model, optimizer, {
      ...{ epochs: 1, reportTo: [], progressBar: false, overwriteOutputDir: true, outputDir },
      ...{ saveSteps: 2, evalStrategy: "steps", evalSteps: 3, evalDataset: samplesOf(model, 2) },
    });
    await atAnyMoment(
      (signal) => trainer.train(samplesOf(model, 6), { signal }),
      async () => {
        const found = existsSync(outputDir) ? readdirSync(outputDir) : [];
        expect(found.filter((name) => !/^checkpoint-\d$/.test(name))).toEqual([]);
        const steps = found.map((name) => Number(name.slice(-1)));
        if (steps.length === 0) return;
        const path = join(outputDir, `checkpoint-${Math.max(...steps)}`, "optimizer.safetensors");
        expect(readFileSync(path, "latin1")).toBe(await stateOf());
        await expectUsable();
      },
    );
  });

  test("of an evaluation leaves the model as it was", async () => {
    const before = await stateOf();
    await atAnyMoment(
      (signal) => evaluate(model, samplesOf(model, 5), { signal }),
      async () => {
        expect(await stateOf()).toBe(before);
        await expectUsable();
      },
    );
  });

  test("of saving leaves the whole of the old or of the new", async () => {
    using merged = await Model.fromPretrained(vitFolder("odd"));
    const saves: [string, Work, Model][] = [
      [
        "model",
        (signal) => merged.save(join(out.path, "model"), { overwrite: true, signal }),
        merged,
      ],
      [
        "adapter",
        (signal) => model.saveAdapter(join(out.path, "adapter"), { overwrite: true, signal }),
        model,
      ],
    ];
    using out = temporaryFolder();
    for (const [name, save, of] of saves) {
      await atAnyMoment(save, async () => {
        // The folder beside which the new one is made: no hidden rest of it.
        expect(readdirSync(out.path).sort()).toContain(name);
        expect(readdirSync(out.path).filter((entry) => entry.startsWith("."))).toEqual([]);
        expect(readdirSync(join(out.path, name)).length).toBeGreaterThanOrEqual(2);
        await expectUsable(of);
      });
    }
    using loaded = await Model.fromPretrained(join(out.path, "model"));
    await loaded.loadAdapter(join(out.path, "adapter"));
  });

  test("of saving and loading a state leaves the old or the new", async () => {
    using out = temporaryFolder();
    const path = join(out.path, "state");
    await atAnyMoment(
      async (signal) => {
        writeFileSync(path, "former");
        await optimizer.saveState(path, { signal });
      },
      async (outcome) => {
        expect(readdirSync(out.path)).toEqual(["state"]);
        const text = readFileSync(path, "latin1");
        expect(text).toBe(outcome === "done" ? await stateOf() : "former");
      },
    );
    const { inputs, labels } = sampleOf(model, 3);
    await optimizer.saveState(path);
    const saved = readFileSync(path, "latin1");
    let moved = "";
    await atAnyMoment(
      async (signal) => {
        await optimizer.step(inputs, labels);
        moved = await stateOf();
        signal.throwIfAborted();
        await optimizer.loadState(path, { signal });
      },
      async (outcome) => {
        expect(await stateOf()).toBe(outcome === "done" ? saved : moved);
        await expectUsable();
      },
    );
  });

  test("of loading an adapter leaves the model with all of it or without", async () => {
    using out = temporaryFolder();
    const dir = join(out.path, "adapter");
    await model.saveAdapter(dir);
    let loading = await Model.fromPretrained(vitFolder("odd"));
    try {
      await atAnyMoment(
        (signal) => loading.loadAdapter(dir, { signal }),
        async (outcome) => {
          expect(loading.parameters().length > 0).toBe(outcome === "done");
          await expectUsable(loading);
          loading.dispose();
          loading = await Model.fromPretrained(vitFolder("odd"));
        },
      );
    } finally {
      loading.dispose();
    }
  });
});

describe("an abort of opening a training", () => {
  test("ends the counting of a dataset that never ends", async () => {
    const controller = new AbortController();
    const endless = {
      async *[Symbol.asyncIterator]() {
        for (let i = 0; ; i++) {
          if (i === 10) controller.abort(reason);
          await setImmediate();
          yield sampleOf(model, 0);
        }
      },
    };
    const trainer = new Trainer(model, optimizer, { reportTo: [], progressBar: false });
    const { signal } = controller;
    await expect(trainer.train(endless, { signal })).rejects.toBe(reason);
    await expectUsable();
  });
});
