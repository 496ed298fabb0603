import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { Child } from "../../../benchmarks/child.js";
import { parsePeak } from "../../../benchmarks/peak.js";
import { race } from "../../../benchmarks/race.js";
import { parseTrials, type Trial } from "../../../benchmarks/trials.js";

const dir = mkdtempSync(join(tmpdir(), "loko-race-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
let log = "";
let run = 0;
beforeEach(() => {
  log = join(dir, `log-${run++}`);
});

const FAKE = join(import.meta.dirname, "fake-contender.mjs");
const fake = (name: string, behaviour: string) => [process.execPath, FAKE, log, name, behaviour];
const turns = () => readFileSync(log, "utf8").trim().split("\n");

function trial(change: Partial<Trial>): Trial {
  const contenders = ["loko adamw", "torch adamw", "torch predict"];
  const given = { name: "a", model: "tiny", tokens: 8, contenders, ...change };
  return parseTrials({ trials: [given] }, "test")[0]!;
}

function start(trial: Trial, behaviours: Record<string, string> = {}) {
  const lines: string[] = [];
  const options = {
    command: (name: string) => ({ command: fake(name, behaviours[name] ?? "0.1"), env: {} }),
    starters: 2,
    report: (line: string) => lines.push(line),
  };
  return race(trial, trial.contenders, options).then((outcome) => ({ ...outcome, lines }));
}

describe("a race", () => {
  test("warms everyone up and then lets them take turns", async () => {
    const { recordings } = await start(trial({ rounds: 2, steps: 6 }));
    const warmUp = ["loko adamw 1", "torch adamw 1", "torch predict 1"].flatMap((x) => [x, x]);
    const first = ["loko adamw 3 reset", "torch adamw 3 reset", "torch predict 3 reset"];
    const second = ["loko adamw 3", "torch adamw 3", "torch predict 3"];
    expect(turns()).toEqual([...warmUp, ...first, ...second]);
    // The warm-up counts for losses alone.
    expect(recordings[0]!.losses).toHaveLength(8);
    expect(recordings[0]!.turns.map((turn) => turn.seconds.length)).toEqual([3, 3]);
  });

  test("gives everyone the same time, and two steps to whom one is too long", async () => {
    const slow = { "torch adamw": "8", "torch predict": "0.5" };
    const { recordings } = await start(trial({ rounds: 4, seconds: 4 }), slow);
    const steps = recordings.map(({ turns }) => turns.map(({ seconds }) => seconds.length));
    expect(steps).toEqual([
      [10, 10, 10, 10],
      [1, 1],
      [2, 2, 2, 2],
    ]);
    expect(recordings[1]!.turns.map(({ round }) => round)).toEqual([0, 3]);
  });

  test("goes on without those who cannot start, end, or fail in the middle", async () => {
    const outcome = await start(trial({ rounds: 3, steps: 3 }), {
      "loko adamw": "fails later",
      "torch adamw": "refuses",
    });
    expect(outcome.skipped).toEqual({ "loko adamw": "not finite", "torch adamw": "no compiler" });
    expect(outcome.recordings.map(({ name }) => name)).toEqual(["torch predict"]);
    expect(outcome.recordings[0]!.turns).toHaveLength(3);
    expect(outcome.lines).toContain("  torch adamw is out: no compiler");
  });
});

describe("a child", () => {
  test("that says nothing is given up and ended", async () => {
    await expect(Child.start(fake("a", "silent"), {}, 0.5)).rejects.toThrow(
      "no answer within 0.5 s",
    );
  });

  test("that ends is reported with the last line of its stderr", async () => {
    await expect(Child.start(fake("a", "dies"), {}, 30)).rejects.toThrow(
      "the process ended: out of memory",
    );
  });

  test("that cannot be started is reported", async () => {
    await expect(Child.start(["/no/such/program"], {}, 30)).rejects.toThrow(/ended: .*ENOENT/);
  });
});

test("the peak is read from the part for as many threads", () => {
  const output = [
    "Load of the machine: 0.1.",
    "avx512, 1 thread: FMA peak 185.9 GFLOP/s",
    "128 x 768 x 768    141.4",
    "avx512, 2 threads: FMA peak 371.2 GFLOP/s",
  ].join("\n");
  expect(parsePeak(output, 1)).toBe(185.9);
  expect(parsePeak(output, 2)).toBe(371.2);
  expect(parsePeak(output, 4)).toBeUndefined();
});
