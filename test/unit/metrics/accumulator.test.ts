import { describe, expect, test } from "vitest";
import { MetricAccumulator, type MetricName } from "../../../lib/metrics/accumulator.js";
import { expectError } from "../model/checkpoints.js";

const LOGITS = Float32Array.of(2, -1, 0.5, 0.5, -3, 4); // predictions 0, 0 (the first of equals), 1

describe("MetricAccumulator", () => {
  test("computes loss and metrics of class indices over batches", () => {
    const accumulator = new MetricAccumulator({
      metrics: ["accuracy", "f1", "f1Macro", "f1Micro", "f1Weighted", "matthewsCorrelation"],
    });
    accumulator.add({ logits: LOGITS.subarray(0, 4), labels: Int32Array.of(0, 1) });
    accumulator.add({ logits: LOGITS.subarray(4), labels: Int32Array.of(1) });
    const { loss, ...rest } = accumulator.result();
    // -log softmax by hand: log(1 + e^-3), log 2, log(1 + e^-7).
    const expected = (Math.log1p(Math.exp(-3)) + Math.LN2 + Math.log1p(Math.exp(-7))) / 3;
    expect(Math.abs(loss - expected)).toBeLessThan(1e-15);
    // Labels 0, 1, 1 and predictions 0, 0, 1: F1 is 2/3 for both classes, MCC is 1/2.
    const { f1Weighted, ...others } = rest;
    expect(f1Weighted).toBeCloseTo(2 / 3, 15);
    expect(others).toEqual({
      samples: 3,
      accuracy: 2 / 3,
      f1: 2 / 3,
      f1Macro: 2 / 3,
      f1Micro: 2 / 3,
      matthewsCorrelation: 1 / 2,
    });
  });

  test("computes accuracy by default for class indices, and the squared error for floats", () => {
    const classes = new MetricAccumulator();
    classes.add({ logits: LOGITS, labels: Int32Array.of(0, 0, 0) });
    expect(classes.result()).toMatchObject({ samples: 3, accuracy: 2 / 3 });
    const values = new MetricAccumulator();
    values.add({ logits: LOGITS.subarray(0, 2), labels: Float32Array.of(1, 1) });
    expect(values.result()).toEqual({ samples: 2, loss: 2.5, meanSquaredError: 2.5 });
  });

  test("keeps the loss of logits that overflow exp", () => {
    const accumulator = new MetricAccumulator();
    accumulator.add({ logits: Float32Array.of(1000, 0), labels: Int32Array.of(1) });
    expect(accumulator.result().loss).toBe(1000);
  });

  test("counts logits that are not finite as no prediction, with a loss of NaN", () => {
    const accumulator = new MetricAccumulator({ metrics: ["accuracy", "f1"] });
    accumulator.add({ logits: Float32Array.of(Number.NaN, 0), labels: Int32Array.of(0) });
    accumulator.add({
      logits: Float32Array.of(0, Number.POSITIVE_INFINITY),
      labels: Int32Array.of(1),
    });
    accumulator.add({ logits: Float32Array.of(0, 1), labels: Int32Array.of(1) });
    expect(accumulator.result()).toEqual({
      samples: 3,
      loss: Number.NaN,
      accuracy: 1 / 3,
      f1: 2 / 3,
    });
  });

  test("refuses metrics that do not exist, naming the nearest, or that do not fit", async () => {
    const make = (...metrics: string[]) =>
      new MetricAccumulator({ metrics: metrics as MetricName[] });
    await expectError(() => make("f1macro"), "ERR_OPTION", '"f1macro"', '"f1Macro"');
    const labels = Int32Array.of(0);
    const logits = Float32Array.of(1, 2);
    await expectError(
      () => make("meanSquaredError").add({ logits, labels }),
      "ERR_OPTION",
      '"meanSquaredError"',
      "classification",
    );
    await expectError(
      () => make("accuracy").add({ logits, labels: Float32Array.of(1, 2) }),
      "ERR_OPTION",
      '"accuracy"',
      "regression",
    );
  });

  test.each<[string, unknown, string, string]>([
    [
      "logits that are no Float32Array",
      { logits: [1], labels: Int32Array.of(0) },
      "ERR_INPUT_TYPE",
      "logits",
    ],
    ["labels that are no typed array", { logits: LOGITS, labels: [0] }, "ERR_INPUT_TYPE", "labels"],
    [
      "labels that do not divide the logits",
      { logits: LOGITS, labels: new Int32Array(4) },
      "ERR_SHAPE_MISMATCH",
      "4 labels",
    ],
    ["no labels", { logits: LOGITS, labels: new Int32Array() }, "ERR_SHAPE_MISMATCH", "0 labels"],
    [
      "a label out of range",
      { logits: LOGITS, labels: Int32Array.of(0, 2, 0) },
      "ERR_LABEL_RANGE",
      "labels[1]",
    ],
    [
      "a target that is not finite",
      { logits: LOGITS.subarray(5), labels: Float32Array.of(Number.NaN) },
      "ERR_INPUT_NOT_FINITE",
      "targets[0]",
    ],
    [
      "targets of another length",
      { logits: LOGITS, labels: Float32Array.of(1) },
      "ERR_SHAPE_MISMATCH",
      "6",
    ],
  ])("refuses %s and adds nothing", async (_, batch, code, words) => {
    const accumulator = new MetricAccumulator();
    await expectError(() => accumulator.add(batch as never), code, words);
    expect(accumulator.samples).toBe(0);
    await expectError(() => accumulator.result(), "ERR_SHAPE_MISMATCH", "at least one sample");
  });

  test("refuses labels of two types in one run", async () => {
    const accumulator = new MetricAccumulator();
    accumulator.add({ logits: LOGITS, labels: Int32Array.of(0, 0, 0) });
    await expectError(
      () => accumulator.add({ logits: LOGITS, labels: new Float32Array(6) }),
      "ERR_INPUT_TYPE",
      "class indices",
    );
    expect(accumulator.samples).toBe(3);
  });
});
