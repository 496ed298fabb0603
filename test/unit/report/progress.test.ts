import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { duration, logProgress, renderProgress } from "../../../lib/report/progress.js";

const STATE = {
  label: "epoch 1/3",
  done: 500,
  total: 2000,
  seconds: 5,
  loss: 0.4567,
  accuracy: 0.8,
};

describe("the progress bar", () => {
  test("shows loss, online accuracy, rate and what is left", () => {
    const line = renderProgress(STATE, 100);
    expect(line).toBe(
      `epoch 1/3 ${"█".repeat(8)}${"░".repeat(22)} 500/2000 loss 0.457 | acc  80.0 % | 100 it/s | ETA 0:15`,
    );
  });

  test("fits its terminal, 80 columns with a bar", () => {
    const large = { ...STATE, label: "epoch 12/99", done: 6_712_345, total: 6_734_900, loss: 12.5 };
    expect(renderProgress(large, 80).length).toBeLessThan(80);
    expect(renderProgress(STATE, 80)).toContain("█");
    const state = fc.record({
      label: fc.constantFrom("evaluating", "epoch 1/1"),
      done: fc.nat(1e7),
      total: fc.nat(1e7),
      seconds: fc.double({ min: 0, max: 1e6, noNaN: true }),
      loss: fc.option(fc.double(), { nil: undefined }),
      accuracy: fc.option(fc.double({ min: 0, max: 1, noNaN: true }), { nil: undefined }),
    });
    fc.assert(
      fc.property(state, fc.integer({ min: 1, max: 200 }), (some, columns) => {
        expect(renderProgress(some, columns).length).toBeLessThan(columns);
      }),
    );
  });

  test("is a plain line in a log", () => {
    expect(logProgress(STATE)).toBe(
      "epoch 1/3: 500 of 2,000, loss 0.457, acc  80.0 %, 100 it/s, ETA 0:15",
    );
    expect(logProgress({ label: "evaluating", done: 0, total: 3, seconds: 0 })).toContain("ETA ?");
  });
});

test.each([
  [0, "0:00"],
  [0.2, "0:01"],
  [65, "1:05"],
  [7207, "2:00:07"],
])("%d seconds are written as %s", (seconds, text) => {
  expect(duration(seconds)).toBe(text);
});
