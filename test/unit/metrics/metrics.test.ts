import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  accuracy,
  ConfusionMatrix,
  type F1Average,
  f1Score,
  matthewsCorrelation,
} from "../../../lib/metrics/confusion.js";
import { meanSquaredError, RunningMean } from "../../../lib/metrics/mean.js";
import { FIXTURES } from "../../parity/fixtures.js";
import { expectError } from "../model/checkpoints.js";

type Averages = Record<F1Average, number | null>;
interface Fixture {
  classification: Record<
    string,
    Averages & {
      labels: number[];
      predictions: number[];
      accuracy: number;
      matthewsCorrelation: number;
    }
  >;
  regression: Record<
    string,
    { targets: number[]; predictions: number[]; meanSquaredError: number }
  >;
}

const fixture = JSON.parse(readFileSync(join(FIXTURES, "metrics/metrics.json"), "utf8")) as Fixture;

/** The bar of the issue; scikit-learn divides and multiplies in another order. */
const TOLERANCE = 1e-12;

function expectClose(actual: number, expected: number): void {
  expect(Math.abs(actual - expected)).toBeLessThanOrEqual(TOLERANCE * Math.max(1, expected));
}

describe("the metrics of classification", () => {
  test.each(Object.entries(fixture.classification))("are scikit-learn's for %s", (_, expected) => {
    const labels = Int32Array.from(expected.labels);
    const predictions = Int32Array.from(expected.predictions);
    expectClose(accuracy(labels, predictions), expected.accuracy);
    expectClose(matthewsCorrelation(labels, predictions), expected.matthewsCorrelation);
    for (const average of ["macro", "micro", "weighted"] as const) {
      expectClose(f1Score(labels, predictions, { average }), expected[average]!);
    }
    if (expected.binary === null) return;
    expectClose(f1Score(labels, predictions), expected.binary);
  });

  test.each(
    Object.entries(fixture.classification).filter(
      ([, { binary, predictions }]) => binary === null && !predictions.includes(-1),
    ),
  )("have no binary F1 score for %s, as in scikit-learn", async (_, { labels, predictions }) => {
    await expectError(() => f1Score(labels, predictions), "ERR_OPTION", '"binary"', '"macro"');
  });

  test("count a missing prediction as wrong and not as a third class of the binary F1 score", () => {
    // TP = 1, FN = 1, FP = 0: 2 / 3.
    expectClose(f1Score([1, 1, 0], [1, -1, 0]), 2 / 3);
    expectClose(accuracy([1, 1, 0], [1, -1, 0]), 2 / 3);
  });

  test("do not depend on how the samples are cut into batches, nor on their order", () => {
    const pairs = fc.array(fc.tuple(fc.nat(4), fc.integer({ min: -1, max: 4 })), { minLength: 1 });
    fc.assert(
      fc.property(pairs, fc.nat(), (samples, cut) => {
        const split = (list: typeof samples) =>
          [list.map(([l]) => l), list.map(([, p]) => p)] as const;
        const matrix = new ConfusionMatrix();
        const at = cut % (samples.length + 1);
        matrix.add(...split(samples.slice(at)));
        matrix.add(...split(samples.slice(0, at)));
        const whole = split(samples);
        expect(matrix.samples).toBe(samples.length);
        expect(matrix.accuracy()).toBe(accuracy(...whole));
        expectClose(matrix.f1Score("weighted"), f1Score(...whole, { average: "weighted" }));
        expect(matrix.matthewsCorrelation()).toBe(matthewsCorrelation(...whole));
      }),
    );
  });
});

describe("ConfusionMatrix", () => {
  test("tells how often each label met each prediction", () => {
    const matrix = new ConfusionMatrix();
    matrix.add([0, 0, 2, 10], Int32Array.of(0, 2, 2, 1));
    expect([matrix.count(0, 0), matrix.count(0, 2), matrix.count(2, 0)]).toEqual([1, 1, 0]);
    expect(matrix.classes).toEqual([0, 1, 2, 10]);
  });

  test("counts nothing of a batch that it refuses", async () => {
    const matrix = new ConfusionMatrix();
    await expectError(
      () => matrix.add([0, 1], [0, 0.5]),
      "ERR_LABEL_RANGE",
      "predictions[1]",
      "0.5",
    );
    await expectError(() => matrix.add([0, Number.NaN], [0, 0]), "ERR_LABEL_RANGE", "labels[1]");
    expect(matrix.samples).toBe(0);
  });

  test("refuses an unknown average", async () => {
    const matrix = new ConfusionMatrix();
    matrix.add([0], [0]);
    await expectError(
      () => matrix.f1Score("samples" as "macro"),
      "ERR_OPTION",
      '"weighted"',
      '"samples"',
    );
  });
});

describe("meanSquaredError", () => {
  test.each(Object.entries(fixture.regression))("is scikit-learn's for %s", (_, expected) => {
    const { targets, predictions } = expected;
    const actual = meanSquaredError(Float64Array.from(targets), Float64Array.from(predictions));
    expect(Math.abs(actual / expected.meanSquaredError - 1)).toBeLessThanOrEqual(TOLERANCE);
  });

  test("loses nothing over a million small numbers beside a large one", () => {
    const mean = new RunningMean();
    mean.add(1);
    // Each is below half an ulp of 1: a plain sum would stay at 1.
    for (let i = 0; i < 1e6; i++) mean.add(1e-16);
    mean.add(-1);
    // The compensation itself is a plain sum of 1e6 terms of like size.
    expect(Math.abs((mean.mean() * 1_000_002) / 1e-10 - 1)).toBeLessThan(1e-9);
  });

  test("is NaN where a value is not finite", () => {
    expect(meanSquaredError([1, 2], [Number.NaN, 2])).toBeNaN();
    expect(meanSquaredError([1, 2], [Number.POSITIVE_INFINITY, 2])).toBeNaN();
  });
});

describe.each<[string, (a: ArrayLike<number>, b: ArrayLike<number>) => number]>([
  ["accuracy", accuracy],
  ["f1Score", f1Score],
  ["matthewsCorrelation", matthewsCorrelation],
  ["meanSquaredError", meanSquaredError],
])("%s", (_, metric) => {
  test("refuses no samples, different lengths and what is no array", async () => {
    await expectError(() => metric([], []), "ERR_SHAPE_MISMATCH", "at least one sample");
    await expectError(() => metric([1, 0], Int32Array.of(1)), "ERR_SHAPE_MISMATCH", "2 and 1");
    await expectError(() => metric(undefined as never, [1]), "ERR_INPUT_TYPE", "undefined");
    await expectError(() => metric([1], { length: 1 } as never), "ERR_INPUT_TYPE", "predictions");
  });
});
