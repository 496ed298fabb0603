// Text beside the progress bar: whatever is printed stays as it was printed, and the terminal as it was.
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { LOKO } from "./loko.js";
import { writeSentences, writeSyntheticBert } from "./synthetic-bert.js";
import { COLUMNS, otherEscapes, runInTerminal, screenOf } from "./terminal.js";

const SCRIPT = fileURLToPath(new URL("children/print-beside-bar.mjs", import.meta.url));

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "loko-terminal-"));
  const labels = ["negative", "positive"];
  writeSyntheticBert(join(dir, "bert"), { hidden: 64, layers: 2, heads: 4, labels });
  writeSyntheticBert(join(dir, "slow"), { hidden: 256, layers: 6, heads: 4, labels });
  writeSentences(join(dir, "train.tsv"), 1000, 1);
});
afterAll(() => rmSync(dir, { recursive: true }));

const isBar = (line: string) => /^(?:epoch|evaluating) .*it\/s \| ETA/.test(line);

describe.runIf(process.platform !== "win32")("in a terminal", () => {
  test("what a program prints while it trains stays as it is, and the bar is below it", async () => {
    const { code, output } = await runInTerminal([SCRIPT, "bert", "1", "400"], dir);
    expect(code).toBe(0);
    expect(otherEscapes(output)).toEqual([]);
    const lines = screenOf(output);
    expect(lines[0]).toBe("begin");
    expect(lines.slice(-4, -1).map((line) => (isBar(line) ? "bar" : line))).toEqual([
      "bar",
      "saved adapter",
      "bye",
    ]);
    // Four log entries and that of the end, each from its brace to its brace.
    const text = lines.join("\n");
    expect(text.match(/^\{\n(?: {2}\w+: .+\n){6,}\}$/gm)).toHaveLength(5);
    for (const step of [400, 800]) expect(text).toMatch(new RegExp(`(?:^| {2})at ${step}$`, "m"));
    // Of the bar nothing is left but its last state, and where a step printed behind it.
    expect(lines.filter(isBar).length).toBeLessThanOrEqual(3);
    // The terminal itself prints ^C behind it, which must not be in the next line.
    const bars = lines.filter((line) => /it\/s \| ETA [\d:?]+$/.test(line));
    expect(bars.length).toBeGreaterThan(0);
    for (const line of bars) expect(`${line}  ^C`.length).toBeLessThan(COLUMNS);
  });

  test("so does what it prints at steps that are slow enough to clear the bar for each", async () => {
    const { code, output } = await runInTerminal([SCRIPT, "slow", "50", "2"], dir);
    expect(code).toBe(0);
    const lines = screenOf(output);
    const printed = lines.filter((line) => line.includes("at "));
    expect(printed).toEqual(Array.from({ length: 10 }, (_, i) => `at ${2 * (i + 1)}`));
    expect(lines.filter(isBar)).toHaveLength(1);
  });

  test("a warning is printed whole, above the bar", async () => {
    const args = ["train", "--model", "bert", "--train", "train.tsv", "--output", "warned"];
    const warn =
      "setTimeout(() => process.emitWarning('x'.repeat(200), { code: 'LONG' }), 700).unref();";
    const { code, output } = await runInTerminal(
      [`--import=data:text/javascript,${encodeURI(warn)}`, LOKO, ...args, "--epochs", "3"],
      dir,
    );
    expect(code).toBe(0);
    expect(otherEscapes(output)).toEqual([]);
    const lines = screenOf(output);
    expect(lines.filter((line) => line.includes("[LONG]"))).toEqual([
      expect.stringMatching(/^\(node:\d+\) \[LONG\] Warning: x{200}$/),
    ]);
    expect(lines.filter(isBar)).toHaveLength(1);
    expect(lines.findIndex(isBar)).toBeGreaterThan(
      lines.findIndex((line) => line.includes("LONG")),
    );
  });

  test("a command that is killed leaves cursor and wrapping as they were", async () => {
    const args = ["eval", "--model", "slow", "--data", "train.tsv"];
    const { signal, output } = await runInTerminal([LOKO, ...args], dir, (text) =>
      text.includes("evaluating") ? "SIGINT" : undefined,
    );
    expect(signal).toBe("SIGINT");
    expect(otherEscapes(output)).toEqual([]);
  });

  test("a training that is stopped says so above the bar, which goes on to the end", async () => {
    const args = ["train", "--model", "slow", "--train", "train.tsv", "--output", "stopped"];
    let asked = false;
    const { code, output } = await runInTerminal([LOKO, ...args], dir, (text) => {
      if (asked || !text.includes("epoch 1/1")) return undefined;
      asked = true;
      return "SIGINT";
    });
    expect(code).toBe(130);
    const lines = screenOf(output);
    const note = lines.findIndex((line) => line.startsWith("Stopping after this step"));
    expect(note).toBeGreaterThan(0);
    expect(isBar(lines[note + 1]!)).toBe(true);
    expect(lines.filter(isBar)).toHaveLength(1);
    expect(readdirSync(join(dir, "stopped"))).toContain("results.json");
  });
});

test("an error before the first step comes without a bar", async () => {
  const args = ["train", "--model", "bert", "--train", "train.tsv", "--output", "o"];
  const { code, output } = await runInTerminal([LOKO, ...args, "--resume", "nowhere"], dir);
  expect(code).toBe(1);
  expect(screenOf(output).filter((line) => /it\/s/.test(line))).toEqual([]);
});
