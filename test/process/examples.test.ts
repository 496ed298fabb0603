import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, describe, expect, test } from "vitest";

const ROOT = resolve(import.meta.dirname, "../..");
const output = mkdtempSync(join(tmpdir(), "loko-quickstart-"));
afterAll(() => rmSync(output, { recursive: true }));

const node = (...args: string[]) =>
  execFileSync(process.execPath, args, { cwd: ROOT, encoding: "utf8" });

describe("the quickstart", () => {
  test("ends with LoKO 20 points above the frozen model, and writes what it says", () => {
    node("node_modules/typescript/bin/tsc", "-p", "tsconfig.examples.json");
    const script = "build/examples/quickstart/quickstart.js";
    const printed = node(script, "--samples", "600", "--output", output);
    const summary = JSON.parse(readFileSync(join(output, "summary.json"), "utf8"));
    expect(summary.loko.onlineAccuracy - summary.frozen.onlineAccuracy).toBeGreaterThan(0.2);
    expect(summary.loko.skipped).toBe(0);
    for (const run of [summary.frozen, summary.loko, summary.adamw]) {
      expect(run.samplesPerSecond).toBeGreaterThan(0);
      expect(run.lastQuarterAccuracy).toBeGreaterThanOrEqual(0);
    }
    expect(summary.config).toMatchObject({ samples: 600, shift: "rotate90", seed: 0 });
    // Not a terminal: plain lines, none of them rewritten.
    expect(printed).toContain("LoKO: 600/600, online accuracy");
    expect(printed).not.toContain("\u001b");
    const svg = readFileSync(join(output, "accuracy.svg"), "utf8");
    expect(svg).toMatch(/^<\?xml[^>]*>\n<svg /);
    for (const name of ["LoKO", "AdamW", "frozen"]) expect(svg).toContain(`>${name} `);
  });

  test("says how it is used when it is used wrongly", () => {
    let message = "";
    try {
      execFileSync(
        process.execPath,
        ["build/examples/quickstart/quickstart.js", "--smaples", "4"],
        {
          cwd: ROOT,
          encoding: "utf8",
          stdio: "pipe",
        },
      );
    } catch (error) {
      const { stderr, status } = error as { stderr: string; status: number };
      message = stderr;
      expect(status).toBe(2);
    }
    expect(message).toContain("--smaples");
    expect(message).toContain("Usage: npm run quickstart");
  });
});
