import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { learningRateFactor, type Schedule, warmupStepsOf } from "../../../lib/train/schedule.js";
import { FIXTURES } from "../../parity/fixtures.js";

const cases = JSON.parse(
  readFileSync(join(FIXTURES, "schedules/schedules.json"), "utf8"),
) as readonly (Schedule & { factors: readonly number[] })[];

describe("learningRateFactor", () => {
  test.each(cases)("is that of transformers: $type, $warmupSteps of $totalSteps", (schedule) => {
    const factors = schedule.factors.map((_, step) => learningRateFactor(schedule, step));
    // Both are float64 with a few operations: 1e-15 is four roundings of values up to 1.
    for (const [step, factor] of factors.entries()) {
      expect(Math.abs(factor - schedule.factors[step]!), `step ${step}`).toBeLessThan(1e-15);
    }
  });
});

test("a warm-up below 1 is a share of all steps, rounded up as transformers does", () => {
  expect([0.06, 0, 7].map((warmup) => warmupStepsOf(warmup, 110))).toEqual([7, 0, 7]);
});
