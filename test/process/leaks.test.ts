// Long runs: the resident memory of a process must not grow with the number of steps or of tensors.
import { describe, expect, test } from "vitest";
import { textFolder } from "../parity/fixtures.js";
import { runChild } from "./child.js";

const COUNT = 20_000;
// Of ten samples: until then the heaps grow to what a step needs.
const WARM_UP = 3;

// What a step or a tensor leaves behind if it leaves anything: a promise, a reference of Node-API, a job, or
// an array with its memory, each of some 50 to some hundred bytes.
const LIMITS = {
  // Measured without a leak: up to 30 bytes a step, from pages that the heap of V8 takes and gives back.
  resident: 64,
  // Measured: up to 5, from what V8 learns of the code.
  javascript: 16,
} as const;

/**
 * The lower quartile of the differences between neighbouring values. Heaps, as glibc's and V8's, grow by a megabyte
 * now and then, later on a busy machine; a leak grows from each value to the next.
 */
function slopeOf(values: readonly number[]): number {
  const differences = values.slice(1).map((value, i) => value - values[i]!);
  return differences.sort((a, b) => a - b)[Math.floor(differences.length / 4)]!;
}

describe.runIf(process.platform === "linux")("the memory of a process", () => {
  test.each([
    ["steps of LoKO", "loko"],
    ["steps of a first-order optimizer", "adamw"],
    ["tensors, disposed or forgotten", "tensors"],
  ])(
    `is flat over ${COUNT} %s`,
    async (_, kind) => {
      const { code, signal, stdout, stderr } = await runChild(
        "steps.mjs",
        [kind, textFolder("bert_small"), String(COUNT)],
        { nodeArgs: ["--expose-gc", "--max-semi-space-size=1"], timeout: 110_000 },
      );
      expect({ code, signal, stderr }).toEqual({ code: 0, signal: null, stderr: "" });
      const memory = JSON.parse(stdout) as Record<keyof typeof LIMITS, number>[];
      for (const [what, limit] of Object.entries(LIMITS) as [keyof typeof LIMITS, number][]) {
        const values = memory.slice(WARM_UP).map((sample) => sample[what]);
        const bytesEach = slopeOf(values) / (COUNT / memory.length);
        expect(bytesEach, `${what} bytes: ${values}`).toBeLessThan(limit);
      }
    },
    120_000,
  );
});
