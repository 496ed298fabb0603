import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type RunOptions, runLoko } from "./loko.js";
import { writeSentences, writeSyntheticBert } from "./synthetic-bert.js";

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "loko-cli-checkpoints-"));
  const labels = ["negative", "positive"];
  writeSyntheticBert(join(dir, "bert"), { hidden: 64, layers: 2, heads: 4, labels });
  writeSentences(join(dir, "train.tsv"), 500, 1);
  writeSentences(join(dir, "dev.tsv"), 60, 99);
});
afterAll(() => rmSync(dir, { recursive: true }));

const train = (output: string, args: string[], options: RunOptions = {}) =>
  runLoko(["train", "--model", "bert", "--train", "train.tsv", "--output", output, ...args], {
    cwd: dir,
    ...options,
  });
const results = (output: string) =>
  JSON.parse(readFileSync(join(dir, output, "results.json"), "utf8"));
const adapter = (output: string) => readFileSync(join(dir, output, "adapter_model.safetensors"));

describe("loko train --save-every", () => {
  test.each([
    ["loko", []],
    ["adamw", ["--lr", "0.001", "--batch-size", "4", "--lr-scheduler-type", "cosine"]],
  ])("goes on with --resume after it was killed, to the same adapter (%s)", async (name, more) => {
    const args = ["--optimizer", name, "--epochs", "3", "--save-every", "50", ...more];
    const whole = await train(`whole-${name}`, [...args, "--save-total-limit", "1"]);
    expect(whole).toMatchObject({ code: 0 });
    const killed = await train(`parts-${name}`, args, {
      onProgress: (stderr, child) => {
        // Lines come at each tenth of 1,500 or 375 steps; the first checkpoint is there by then.
        if (/epoch 1\/3: 1\d\d of/.test(stderr)) child.kill("SIGKILL");
      },
    });
    expect(killed.signal).toBe("SIGKILL");
    expect(existsSync(join(dir, `parts-${name}`))).toBe(false);
    const resumed = await train(`parts-${name}`, [...args, "--resume"]);
    expect(resumed).toMatchObject({ code: 0 });
    const { resumedFrom, steps, status } = results(`parts-${name}`);
    expect({ steps, status }).toEqual({
      steps: results(`whole-${name}`).steps,
      status: "completed",
    });
    expect(resumedFrom.step).toBeGreaterThanOrEqual(50);
    expect(adapter(`parts-${name}`).equals(adapter(`whole-${name}`))).toBe(true);
    const checkpoints = readdirSync(join(dir, `whole-${name}-checkpoints`));
    expect(checkpoints.filter((entry) => entry.startsWith("checkpoint-"))).toEqual([
      `checkpoint-${steps}`,
    ]);
    expect(checkpoints).toContain("report.html");
  });

  test.runIf(process.platform !== "win32")(
    "leaves a checkpoint of the step where Ctrl-C stopped it, which goes on to the same adapter",
    async () => {
      // No checkpoint is due before the end: the one that is found is that of Ctrl-C.
      const args = ["--epochs", "3", "--save-every", "1000000"];
      let asked = false;
      const stopped = await train("stopped", args, {
        onProgress: (stderr, child) => {
          if (!asked && /epoch 1\/3: \d+ of/.test(stderr)) asked = child.kill("SIGINT");
        },
      });
      expect({ code: stopped.code, signal: stopped.signal }).toEqual({ code: 130, signal: null });
      const { steps, status } = results("stopped");
      expect(status).toBe("interrupted");
      expect(readdirSync(join(dir, "stopped-checkpoints"))).toContain(`checkpoint-${steps}`);
      const resumed = await train("stopped", [...args, "--resume"]);
      expect(resumed).toMatchObject({ code: 0 });
      expect(results("stopped").resumedFrom.step).toBe(steps);
      expect(adapter("stopped").equals(adapter("whole-loko"))).toBe(true);
    },
  );

  test("refuses what does not fit, and a new run in the folder of an old one", async () => {
    const args = ["--save-every", "100", "--max-steps", "200"];
    expect(await train("first", args)).toMatchObject({ code: 0 });
    rmSync(join(dir, "first"), { recursive: true });
    const again = await train("first", args);
    expect(again).toMatchObject({ code: 1 });
    expect(again.stderr).toMatch(
      /^error ERR_OUTPUT_EXISTS: first-checkpoints: .*checkpoint-200.* with --resume, set --overwrite, or choose another --checkpoint-dir\.$/m,
    );
    const other = await train("first", [...args, "--resume", "--seed", "5"]);
    expect(other.stderr).toMatch(
      /^error ERR_CHECKPOINT_MISMATCH: .*checkpoint-200.* seed 0, and now/m,
    );
    truncateSync(join(dir, "first-checkpoints/checkpoint-200/optimizer.safetensors"), 9);
    const path = "first-checkpoints/checkpoint-200";
    const damaged = await train("first", [...args, "--resume", path]);
    expect(damaged.stderr).toMatch(
      /^error ERR_CHECKPOINT_FORMAT: .*optimizer\.safetensors has 9 of/m,
    );
    const passed = await train("first", [...args, "--resume"]);
    expect(passed).toMatchObject({ code: 0 });
    expect(passed.stderr).toContain("LOKO_CHECKPOINT_DAMAGED");
    expect(results("first").resumedFrom.checkpoint).toMatch(/checkpoint-100$/);
    expect(passed.stdout).toMatch(/^time +\d+\.\d s for 100 steps, going on from step 100$/m);
    const done = await train("first", [...args, "--resume"]);
    expect(done.stdout).toMatch(/^time +0\.\d s for 0 steps, going on from step 200$/m);
    const none = await train("nothing", [...args, "--resume"]);
    expect(none.stderr).toMatch(
      /^error ERR_FILE_NOT_FOUND: nothing-checkpoints: .* Check --checkpoint-dir, or start without --resume\.$/m,
    );
    const clipped = await train("nothing", ["--max-grad-norm", "1"]);
    expect(clipped.stderr).toMatch(/^error ERR_OPTION: --max-grad-norm .*LoKO has none/m);
    expect(existsSync(join(dir, "nothing"))).toBe(false);
  });
});

describe.runIf(process.platform !== "win32")("Ctrl-C during --eval-every", () => {
  const stopAt = async (output: string, line: string, ...args: string[]) => {
    let asked = false;
    const run = await train(output, ["--eval", "held-out.tsv", ...args], {
      onProgress: (stderr, child) => {
        if (!asked && stderr.includes(line)) asked = child.kill("SIGINT");
      },
    });
    expect({ code: run.code, signal: run.signal }).toEqual({ code: 130, signal: null });
    return run;
  };
  beforeAll(() => writeSentences(join(dir, "held-out.tsv"), 5000, 7));

  test("says that it waits for the evaluation, and not for a step", async () => {
    const args = ["--max-steps", "20", "--eval-every", "10"];
    const { stderr } = await stopAt("evaluated", "10 of 20", ...args);
    expect(stderr).toContain(
      "Stopping after this evaluation to save the adapter; Ctrl-C again ends at once.\n",
    );
    expect(results("evaluated")).toMatchObject({ status: "interrupted", steps: 10 });
  });

  test("says so during the step before it too", async () => {
    // A step of all sentences takes long enough.
    const args = ["--optimizer", "sgd", "--batch-size", "500", "--epochs", "4"];
    const { stderr } = await stopAt("before", "1 of 4", ...args, "--eval-every", "2");
    expect(stderr).toContain("Stopping after this step and its evaluation to save the adapter;");
  });

  test("after the last step is no interruption of the training", async () => {
    const args = ["--max-steps", "10", "--eval-every", "10"];
    const { stdout } = await stopAt("last", "10 of 10", ...args);
    expect(results("last")).toMatchObject({ status: "completed", steps: 10 });
    expect(stdout).toMatch(/^stopped +before the evaluation of --eval was over; the training is/m);
  });
});

test("loko train evaluates while it trains, logs for TensorBoard and ends with the best checkpoint", async () => {
  const run = await train("logged", [
    ...["--eval", "dev.tsv", "--eval-every", "100", "--save-every", "100", "--load-best"],
    ...["--log-dir", "logs", "--log-every", "20", "--max-steps", "300"],
  ]);
  expect(run).toMatchObject({ code: 0 });
  expect(readdirSync(join(dir, "logs"))[0]).toMatch(/^events\.out\.tfevents\./);
  const lines = readFileSync(join(dir, "logged-checkpoints/log.jsonl"), "utf8").trim().split("\n");
  const evaluations = lines
    .map((line) => JSON.parse(line) as { event: string; step: number; eval_loss: number })
    .filter(({ event }) => event === "evaluate");
  expect(evaluations.map(({ step }) => step)).toEqual([100, 200, 300]);
  const best = Math.min(...evaluations.map(({ eval_loss }) => eval_loss));
  expect(results("logged").eval.loss).toBe(best);
});
