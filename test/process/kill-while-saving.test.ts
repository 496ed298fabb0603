import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Random } from "../../lib/data/random.js";
import { vitFolder } from "../parity/fixtures.js";

// LOKO_KILLS=500 (npm run test:faults) kills that many times in all.
const KILLS = Number(process.env.LOKO_KILLS ?? 24);
const KINDS = ["loko", "adamw"] as const;
const CHILD = fileURLToPath(new URL("children/train-and-save.mjs", import.meta.url));

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "loko-kill-"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

interface Life {
  /** The step that it went on from. */
  readonly begun: number;
  /** The last one of which it said that it was on the disk. */
  readonly saved: number;
  readonly warnings: string;
}

/** Lets a child train and save until `delay` milliseconds after it has begun, then kills it. */
function liveAndDie(output: string, kind: string, delay: number): Promise<Life> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [CHILD, vitFolder("odd"), output, kind]);
    let stdout = "";
    let stderr = "";
    let isDying = false;
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
      if (isDying || !stdout.includes("begun")) return;
      isDying = true;
      setTimeout(() => child.kill("SIGKILL"), delay);
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    child.on("error", reject);
    child.on("close", (_, signal) => {
      const begun = /begun (\d+)/.exec(stdout)?.[1];
      if (signal !== "SIGKILL" || begun === undefined) {
        reject(new Error(`ended with ${signal}: ${stderr}`));
        return;
      }
      const saved = Number([...stdout.matchAll(/saved (\d+)\n/g)].at(-1)?.[1] ?? begun);
      resolve({ begun: Number(begun), saved, warnings: stderr });
    });
  });
}

describe.runIf(process.platform !== "win32")("a training that is killed while it saves", () => {
  test.each(KINDS)(
    "goes on from the last checkpoint that was reported, every time (%s)",
    async (kind) => {
      const output = join(dir, kind);
      const random = new Random(7, KINDS.indexOf(kind));
      let expected = 0;
      for (let kill = 0; kill < KILLS / KINDS.length; kill++) {
        // A save takes some tens of milliseconds: the moments spread over several of them.
        const { begun, saved, warnings } = await liveAndDie(output, kind, random.below(150));
        expect(warnings).toBe("");
        expect(begun, `after kill ${kill}`).toBeGreaterThanOrEqual(expected);
        // One more may have reached the disk before it could be reported.
        expect(begun).toBeLessThanOrEqual(expected + 1);
        expected = saved;
        // A kill before the old ones are removed leaves one more; who saves twice has removed what was left.
        const visible = readdirSync(output).filter((name) => name.startsWith("checkpoint-"));
        if (saved >= begun + 2) expect(visible.length).toBeLessThanOrEqual(3);
      }
      expect(expected).toBeGreaterThan(0);
    },
    60_000 + 3_000 * KILLS,
  );
});
