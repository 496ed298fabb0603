import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { parseTrials, readTrials } from "../../../benchmarks/trials.js";

const TRIALS = resolve(import.meta.dirname, "../../../benchmarks/trials");
const dir = mkdtempSync(join(tmpdir(), "loko-trials-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const valid = {
  name: "a",
  model: "roberta-base",
  tokens: 128,
  contenders: ["loko adamw", "torch adamw"],
};
const bar = { metric: "time", of: "loko adamw", against: "torch adamw", most: 0.6 };

function failure(act: () => unknown): { code?: string; message: string } {
  try {
    act();
  } catch (error) {
    return error as { code?: string; message: string };
  }
  throw new Error("nothing was thrown");
}

describe.each(["bars", "extra", "quick", "gpu"])("the set %s", (set) => {
  test("can be read", () => {
    expect(readTrials(join(TRIALS, `${set}.json`)).length).toBeGreaterThan(2);
  });
});

test("a trial takes what it does not say from its file, and the file from the program", () => {
  const [first, second] = parseTrials(
    { defaults: { threads: 1 }, trials: [valid, { ...valid, name: "b", threads: 4 }] },
    "f",
  );
  expect(first).toMatchObject({ threads: 1, batch: 1, rank: 8, targetModules: ["query", "value"] });
  expect(second).toMatchObject({ threads: 4 });
});

describe("a bad trial is refused with the place, what was expected and what came", () => {
  test.each([
    ["a list for an object", [], /f must be an object, got \[\]/],
    ["an unknown key of the file", { trial: [] }, /f: unknown key "trial"; known are defaults/],
    ["no trials", { trials: [] }, /trials must be a list of at least one trial, got \[\]/],
    ["two of one name", { trials: [valid, valid] }, /another name for each trial, got "a"/],
    ["a trial that is none", { trials: [3] }, /trials\[0\] must be an object, got 3/],
    ["bad defaults", { defaults: { cores: 1 }, trials: [valid] }, /defaults: unknown key "cores"/],
  ])("%s", (_, content, message) => {
    expect(failure(() => parseTrials(content, "f"))).toMatchObject({
      code: "ERR_CONFIG",
      message: expect.stringMatching(message),
    });
  });

  test.each([
    ["a name that is no file name", { name: "../a" }, /name must be lower-case .* got "\.\.\/a"/],
    ["an unknown key", { rnak: 8 }, /unknown key "rnak"/],
    ["an unknown device", { device: "tpu" }, /device must be of cpu, cuda, got "tpu"/],
    ["a precision without a GPU", { precision: "bfloat16" }, /precision must be of float32, got/],
    [
      "a contender of another device",
      { device: "cuda", contenders: ["torch loko loop"] },
      /contenders must be of device "cuda", got "torch loko loop"/,
    ],
    ["an unknown model", { model: "gpt" }, /model must be one of roberta-base, .* got "gpt"/],
    ["a text without a length", { tokens: undefined }, /tokens must be .* got nothing/],
    ["a text longer than the model's", { tokens: 513 }, /tokens must be .*512\], got 513/],
    ["an image with a length", { model: "vit-base" }, /tokens must be nothing .* got 128/],
    ["a text that has begun", { begun: true }, /begun must be false .* got true/],
    ["begun that is no flag", { begun: 1 }, /begun must be true or false, got 1/],
    ["no threads", { threads: 0 }, /threads must be an integer in \[1, 1024\], got 0/],
    ["half a batch", { batch: 1.5 }, /batch must be an integer .* got 1\.5/],
    ["a text for a number", { rank: "8" }, /rank must be an integer .* got "8"/],
    ["no time", { seconds: 0 }, /seconds must be a number in \[0\.1, 3600\], got 0/],
    ["negative steps", { steps: -1 }, /steps must be an integer .* got -1/],
    [
      "an uncounted module",
      { targetModules: ["dense"] },
      /targetModules must be of .* got "dense"/,
    ],
    ["nobody", { contenders: [] }, /contenders must be a list of different names, got \[\]/],
    ["someone twice", { contenders: ["loko adamw", "loko adamw"] }, /a list of different names/],
    ["a stranger", { contenders: ["jax"] }, /contenders must be of loko adamw, .* got "jax"/],
    ["LoKO with a batch", { contenders: ["loko exact"], batch: 8 }, /batch must be 1, .* got 8/],
    ["LoKO with a class", { contenders: ["loko auto"], classes: 1 }, /classes must be .* got 1/],
    ["bars that are no list", { bars: {} }, /bars must be a list, got \{\}/],
    ["a bar that is none", { bars: [null] }, /bars\[0\] must be an object, got null/],
    ["an unknown metric", { bars: [{ ...bar, metric: "joy" }] }, /metric must be of .* got "joy"/],
    ["a bar of one who is absent", { bars: [{ ...bar, of: "loko auto" }] }, /of must be of loko/],
    [
      "a ratio of one",
      { bars: [{ ...bar, against: undefined }] },
      /against must be of .* got nothing/,
    ],
    ["a figure of two", { bars: [{ ...bar, metric: "floor" }] }, /against must be nothing/],
    ["a bar without a limit", { bars: [{ ...bar, most: 0 }] }, /most must be a number .* got 0/],
  ])("%s", (_, change, message) => {
    const content = { trials: [{ ...valid, ...change }] };
    const { code, message: text } = failure(() => parseTrials(content, "f"));
    expect(code).toBe("ERR_CONFIG");
    expect(text).toMatch(message);
    expect(text).toContain("f: trials[0]");
  });

  test("a file that does not exist, and one that is no JSON", () => {
    const missing = join(dir, "missing.json");
    expect(failure(() => readTrials(missing))).toMatchObject({
      code: "ERR_FILE_NOT_FOUND",
      message: expect.stringContaining(missing),
    });
    const torn = join(dir, "torn.json");
    writeFileSync(torn, '{ "trials": [');
    expect(failure(() => readTrials(torn))).toMatchObject({
      code: "ERR_CONFIG",
      message: expect.stringContaining(torn),
    });
  });
});
