import { describe, expect, test } from "vitest";
import { CONTENDERS } from "../../../benchmarks/contenders.js";
import {
  type Gpu,
  isBusy,
  type Machine,
  machineSlug,
  parseNvidiaSmi,
} from "../../../benchmarks/machine.js";
import { drawPlots } from "../../../benchmarks/plots.js";
import type { Race, Recording } from "../../../benchmarks/race.js";
import { isMet, type Results, runnable, summarise } from "../../../benchmarks/results.js";
import { summaryToMarkdown } from "../../../benchmarks/summary.js";
import {
  describeRun,
  formatTime,
  insertResults,
  printTrial,
  resultsToMarkdown,
  toThreeDigits,
  WIDTH,
} from "../../../benchmarks/table.js";
import { parseTrials, type Trial } from "../../../benchmarks/trials.js";

const OURS = "loko exact";
const THEIRS = "torch loko batched m-1";

function makeTrial(change: object = {}): Trial {
  const trial = {
    name: "roberta",
    model: "roberta-base",
    tokens: 128,
    contenders: [OURS, "loko adamw", THEIRS, "torch loko loop"],
    bars: [
      { metric: "time", of: OURS, against: THEIRS, most: 0.6 },
      { metric: "memory", of: OURS, against: THEIRS, most: 0.6 },
      { metric: "floor", of: OURS, most: 1.35 },
      { metric: "microseconds", of: OURS, most: 60 },
      { metric: "losses", of: OURS, against: THEIRS, most: 1e-4 },
      { metric: "time", of: OURS, against: "torch loko loop", most: 0.45 },
    ],
    ...change,
  };
  return parseTrials({ trials: [trial] }, "test")[0]!;
}

function record(name: string, turns: number[][], rest: Partial<Recording> = {}): Recording {
  return {
    name,
    kind: CONTENDERS.get(name)!,
    turns: turns.map((seconds, round) => ({ round, seconds, rows: seconds.map(() => 1) })),
    losses: [1, 2],
    stepPeakBytes: 2 ** 29,
    processPeakBytes: 2 ** 30,
    facts: { torch: "2.13" },
    ...rest,
  };
}

function makeRace(change: Partial<Race> = {}): Race {
  return {
    trial: makeTrial(),
    recordings: [
      record(OURS, [[0.1, 0.2, 0.3], [0.4]], { crossingsPerStep: 1 }),
      record(THEIRS, [[0.5], [0.5]], { losses: [1, 2.0002, 3], stepPeakBytes: 2 ** 30 }),
    ],
    skipped: { "torch loko loop": "no compiler" },
    peaks: [400, 200],
    ...change,
  };
}

const MACHINE: Machine = {
  cpu: "Intel(R) Xeon(R) Processor @ 2.60GHz",
  cores: 2,
  isa: "avx512",
  memoryGB: 24,
  system: "Linux 6.1 x64",
  node: "v20.20.2",
  loko: "0.1.0",
  commit: `${"0123456789abcdef".repeat(2)}+`,
  load: 0.1,
};
const makeResults = (race = makeRace()): Results => ({
  date: "2025-01-31",
  set: "bars",
  machine: MACHINE,
  python: { torch: "2.13", transformers: "5.18", peft: "0.21" },
  trials: [summarise(race)],
});

describe("the figures of a contender", () => {
  const [ours] = summarise(makeRace()).rows;

  test("are over all its steps", () => {
    expect(ours).toMatchObject({ steps: 4, rows: 1, stepPeakBytes: 2 ** 29 });
    expect(ours!.medianSeconds).toBeCloseTo(0.25, 12);
    expect(ours!.p95Seconds).toBeCloseTo(0.385, 12);
    expect(ours!.samplesPerSecond).toBeCloseTo(4, 12);
  });

  test("compare each round with the peak of the same round", () => {
    // 20.9 + 21.0 operations in units of 1e9: 0.2 s at a peak of 400, 0.4 s at one of 200
    expect(ours!.gflops).toBeCloseTo(41.9 / 0.25, 0);
    expect(ours!.shareOfPeak).toBeCloseTo(41.9 / 80, 2);
    expect(ours!.timeOverFloor).toBeCloseTo(80 / 41.9, 2);
  });

  test("count a batch as so many samples", () => {
    const trial = makeTrial({ batch: 8, contenders: ["loko adamw"], bars: [] });
    const [row] = summarise(makeRace({ trial, recordings: [record("loko adamw", [[2]])] })).rows;
    expect(row!.samplesPerSecond).toBe(4);
    expect(row!.gflops).toBeCloseTo((8 * 41.9) / 2, -1);
  });

  test("lack what needs a peak where none could be measured", () => {
    const [row] = summarise(makeRace({ peaks: [] })).rows;
    expect(row).toMatchObject({ shareOfPeak: null, timeOverFloor: null });
  });
});

test("bars are ratios or figures, and unknown where a contender took no part", () => {
  const { bars } = summarise(makeRace());
  const values = bars.map(({ value }) => value);
  expect(values[0]).toBeCloseTo(0.5, 12);
  expect(values[1]).toBe(0.5);
  expect(values[2]).toBeCloseTo(80 / 41.9, 2);
  expect(values[3]).toBeCloseTo(250_000, 6);
  expect(values[4]).toBeCloseTo(1e-4, 7);
  expect(values[5]).toBeNull();
  expect(bars.map(isMet)).toEqual([true, true, false, false, true, undefined]);
});

test("processor time is compared per step, whatever the lengths of the turns", () => {
  const bars = [{ metric: "cpu", of: OURS, against: "loko adamw", most: 1.25 }];
  const trial = makeTrial({ bars });
  const record2 = (name: string, cpuSeconds: number | undefined) => ({
    ...record(name, []),
    turns: [
      { round: 0, seconds: [9, 9], rows: [1, 1], cpuSeconds: cpuSeconds && 2 * cpuSeconds },
      { round: 1, seconds: [9], rows: [1], cpuSeconds },
    ],
  });
  const value = (cpuSeconds: number | undefined) => {
    const recordings = [record2(OURS, cpuSeconds), record2("loko adamw", 2)];
    return summarise(makeRace({ trial, recordings })).bars[0]!.value;
  };
  expect(value(3)).toBeCloseTo(1.5, 12);
  expect(value(undefined)).toBeNull();
});

test("losses are compared between contenders of the same work", () => {
  const { recordings } = makeRace();
  const other = record("torch adamw", [[1]], { losses: [9, 9] });
  const { lossDifferences } = summarise(makeRace({ recordings: [...recordings, other] }));
  expect(lossDifferences).toEqual([
    { of: OURS, against: THEIRS, steps: 2, largest: expect.closeTo(1e-4, 7) },
  ]);
});

test("without Python only our side runs", () => {
  expect(runnable(makeTrial(), false)).toEqual([OURS, "loko adamw"]);
  expect(runnable(makeTrial(), true)).toHaveLength(4);
});

describe("the table", () => {
  const text = printTrial(summarise(makeRace()));
  const lines = text.split("\n");

  test("fits a terminal of 100 columns with the longest names and figures", () => {
    const long = [record("torch predict compiled", [[12345.6]], { stepPeakBytes: 2 ** 47 })];
    const trial = makeTrial({ contenders: ["torch predict compiled"], bars: [] });
    const table = printTrial(summarise(makeRace({ trial, recordings: long, peaks: [1e4] })));
    expect(Math.max(...table.split("\n").map((line) => line.length))).toBeLessThanOrEqual(WIDTH);
  });

  test("has a line for each contender, with its figures below their titles", () => {
    const header = lines[1]!;
    const ours = lines[2]!;
    const end = (title: string) => header.indexOf(title) + title.length;
    expect(ours.slice(0, end("median")).endsWith("250 ms")).toBe(true);
    expect(ours.slice(0, end("peak MB")).endsWith(" 512")).toBe(true);
    expect(ours.slice(0, end("of peak")).endsWith(" 52 %")).toBe(true);
  });

  test("says who was left out, what was missed and what could not be measured", () => {
    expect(lines).toContain("torch loko loop left out: no compiler");
    expect(lines).toContain("calls into native code: 1 a step");
    expect(text).toContain(`${OURS}: time / ${THEIRS} = 0.50 (at most 0.60) met`);
    expect(text).toContain(`${OURS}: time over the floor = 1.91 (at most 1.35) MISSED`);
    expect(text).toContain("= ? (at most 0.45) not measured");
  });
});

test("numbers have three digits, and times the unit that suits them", () => {
  expect([0.123, 1.234, 12.34, 123.4, 12345].map(toThreeDigits)).toEqual([
    "0.12",
    "1.23",
    "12.3",
    "123",
    "12345",
  ]);
  expect([1.8e-5, 0.0421, 16.44].map(formatTime)).toEqual(["18.0 µs", "42.1 ms", "16.4 s"]);
});

test("a document gets the results between its markers and keeps the rest", () => {
  const document = "before\n<!-- results:begin -->\nold\n<!-- results:end -->\nafter\n";
  const once = insertResults(document, resultsToMarkdown(makeResults()));
  expect(once).toMatch(/^before\n<!-- results:begin -->\n\n2025-01-31, Intel/);
  expect(once).toContain(`| ${OURS} | 1 | 4 | 250 ms |`);
  expect(once).not.toContain("old");
  expect(once).toMatch(/<!-- results:end -->\nafter\n$/);
  expect(insertResults(once, resultsToMarkdown(makeResults()))).toBe(once);
  expect(() => insertResults("none", "")).toThrow("lacks <!-- results:begin -->");
});

test("the summary compares what the bars compare with PyTorch", () => {
  const lines = summaryToMarkdown(makeResults()).split("\n");
  expect(lines).toHaveLength(5);
  expect(lines[2]).toBe(
    "| roberta-base, 128 tokens, 2 classes, 2 threads: torch loko batched m-1 | 250 ms | 500 ms | 0.50 × | 0.50 × |",
  );
  expect(lines[4]).toContain("2025-01-31");
});

test("plots of time and memory are standalone SVGs that name everyone", () => {
  const plots = drawPlots(makeResults());
  expect([...plots.keys()]).toEqual(["roberta-time.svg", "roberta-memory.svg"]);
  const svg = plots.get("roberta-time.svg")!;
  expect(svg).toMatch(/^<\?xml .*\n<svg /);
  for (const text of [OURS, THEIRS, "250 ms", "measured 2025-01-31"]) expect(svg).toContain(text);
  // One bar each, ours in its own colour.
  for (const colour of ["#c2410c", "#6b7280"])
    expect(svg).toMatch(new RegExp(`<rect[^>]*fill="${colour}"`));
});

test("a machine is busy from half a core's load per core on, and names its files", () => {
  expect([0.9, 1.1].map((load) => isBusy({ ...MACHINE, load }))).toEqual([false, true]);
  expect(machineSlug(MACHINE)).toBe("intel-xeon-2-cores");
  expect(machineSlug({ cpu: "AMD EPYC 9B14 96-Core Processor", cores: 16 })).toBe(
    "amd-epyc-9b14-96-core-16-cores",
  );
  expect(machineSlug({ cpu: "", cores: 1 })).toBe("cpu-1-cores");
});

describe("a GPU", () => {
  const GPU: Gpu = {
    name: "NVIDIA H200",
    computeCapability: "9.0",
    memoryGB: 140,
    multiprocessors: 132,
    runtime: "13.0",
    cublasLt: "13.1.1",
    driver: "580.65.06",
    clocks: { smMHz: 1980, memoryMHz: 3201, powerLimitW: 700, temperatureC: 31 },
  };

  test("is described by what nvidia-smi says of it, as far as that goes", () => {
    const { driver, clocks } = GPU;
    expect(parseNvidiaSmi("580.65.06, 1980, 3201, 700.00, 31\n")).toEqual({ driver, clocks });
    expect(parseNvidiaSmi("580.65.06, 1980, 3201, [N/A], 31")).toEqual({ driver, clocks: null });
    expect(parseNvidiaSmi("")).toEqual({ driver: null, clocks: null });
  });

  test("names the files and the lines of what was measured on it", () => {
    const machine = { ...MACHINE, gpu: GPU };
    expect(machineSlug(machine, "cuda")).toBe("nvidia-h200");
    expect(machineSlug(machine, "cpu")).toBe("intel-xeon-2-cores");
    expect(describeRun({ ...makeResults(), machine })[1]).toBe(
      "NVIDIA H200, driver 580.65.06, cuBLASLt 13.1.1; 1980 and 3201 MHz at the start, limit 700 W",
    );
    const bare = { ...GPU, driver: null, clocks: null, cublasLt: null };
    expect(describeRun({ ...makeResults(), machine: { ...machine, gpu: bare } })[1]).toBe(
      "NVIDIA H200, driver unknown, cuBLASLt not found",
    );
    const trial = makeTrial({
      device: "cuda",
      precision: "bfloat16",
      contenders: ["loko adamw"],
      bars: [],
    });
    const race = makeRace({ trial, recordings: [record("loko adamw", [[2]])], peaks: [] });
    expect(printTrial(summarise(race))).toMatch(/^roberta-base, .*, batch 1, GPU in bfloat16\n/);
  });
});
