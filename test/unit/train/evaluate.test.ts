import { setTimeout } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { MetricAccumulator } from "../../../lib/metrics/accumulator.js";
import type { Model } from "../../../lib/model.js";
import { AdamW } from "../../../lib/optim/gradient.js";
import { LoKO } from "../../../lib/optim/loko.js";
import { evaluate } from "../../../lib/train/evaluate.js";
import { type OnlineSample, trainOnline } from "../../../lib/train/online.js";
import { loadAdapted, readVit } from "../../parity/fixtures.js";
import { expectError } from "../model/checkpoints.js";
import { images } from "../optim/samples.js";

const LABELS = Int32Array.of(3, 0, 6, 3, 1, 5);

/** The same six samples in batches of any size. */
function batchesOf(size: number): OnlineSample[] {
  const { pixelValues } = images(6);
  const length = pixelValues.length / 6;
  return Array.from({ length: 6 / size }, (_, i) => ({
    inputs: {
      pixelValues: pixelValues.slice(i * size * length, (i + 1) * size * length),
      shape: [size, 3, 16, 16],
    },
    labels: LABELS.slice(i * size, (i + 1) * size),
  }));
}

describe("evaluate", () => {
  let model: Model;
  beforeEach(async () => {
    model = await loadAdapted("odd", await readVit("odd"));
  });
  afterEach(() => model.dispose());

  test("gives the loss and the metrics of the logits, whatever the batches", async () => {
    using logits = await model.forward(images(6));
    const expected = new MetricAccumulator({ metrics: ["accuracy", "f1Macro"] });
    expected.add({ logits: await logits.data(), labels: LABELS });
    const options = { metrics: ["accuracy", "f1Macro"] } as const;
    const { loss, ...rest } = await evaluate(model, batchesOf(6), options);
    const whole = expected.result();
    expect({ loss, ...rest }).toEqual(whole);
    const halves = await evaluate(model, batchesOf(3), options);
    // A sample's logits do not depend on its batch; the order of the sum is the same too.
    expect(halves).toEqual(whole);
  });

  test("reports the loss that a step of an optimizer reports", async () => {
    const { loss } = await evaluate(model, batchesOf(6));
    const step = await new AdamW(model).step(images(6), LABELS);
    // Both are float64 sums of the same six terms from logits that differ by their rounding to float32.
    expect(Math.abs(loss - step.loss)).toBeLessThan(1e-6);
  });

  test("learns nothing", async () => {
    const before = await model.readParameters();
    await evaluate(model, batchesOf(2));
    expect(await model.readParameters()).toEqual(before);
  });

  test("takes float targets", async () => {
    const labels = new Float32Array(7).fill(0.5);
    const result = await evaluate(model, [{ inputs: images(1), labels }]);
    using logits = await model.forward(images(1));
    const errors = Array.from(logits.dataSync(), (z) => (z - 0.5) ** 2);
    const mean = errors.reduce((sum, error) => sum + error, 0) / 7;
    expect(result.samples).toBe(1);
    expect(Math.abs(result.loss - mean)).toBeLessThan(1e-14);
    expect(result.meanSquaredError).toBe(result.loss);
  });

  test("rejects with the signal's reason between batches, and while it waits for one", async () => {
    const controller = new AbortController();
    const reason = new Error("stop");
    let closed = false;
    async function* endless() {
      try {
        for (let i = 0; ; i++) {
          if (i === 3) controller.abort(reason);
          yield batchesOf(1)[0]!;
        }
      } finally {
        closed = true;
      }
    }
    const { signal } = controller;
    await expect(evaluate(model, endless(), { signal })).rejects.toBe(reason);
    await setTimeout(0);
    expect(closed).toBe(true);

    const silent: AsyncIterable<OnlineSample> = {
      [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => {}) }),
    };
    const timeout = AbortSignal.timeout(5);
    const waiting = evaluate(model, silent, { signal: timeout });
    await expect(waiting).rejects.toMatchObject({ name: "TimeoutError" });
  });

  test.each<[string, unknown, object, string, string]>([
    ["a stream that is none", 5, {}, "ERR_INPUT_TYPE", "evaluate"],
    ["an item that is none", [{ inputs: images(1) }], {}, "ERR_INPUT_TYPE", "item 0"],
    ["no samples", [], {}, "ERR_SHAPE_MISMATCH", "at least one"],
    ["an unknown option", [], { metric: [] }, "ERR_OPTION", '"metrics"'],
    ["an unknown metric", [], { metrics: ["acuracy"] }, "ERR_OPTION", '"accuracy"'],
    ["metrics that are no array", [], { metrics: "accuracy" }, "ERR_OPTION", "array"],
    [
      "labels of another number of samples",
      [{ inputs: images(1), labels: new Int32Array(7) }],
      {},
      "ERR_SHAPE_MISMATCH",
      "7",
    ],
    [
      "a label out of range",
      [{ inputs: images(1), labels: Int32Array.of(7) }],
      {},
      "ERR_LABEL_RANGE",
      "[0, 7)",
    ],
  ])("refuses %s", async (_, stream, options, code, words) => {
    await expectError(() => evaluate(model, stream as OnlineSample[], options), code, words);
  });

  test("refuses a model that is none", async () => {
    await expectError(() => evaluate({} as Model, []), "ERR_INPUT_TYPE", "Model");
  });
});

describe("MetricAccumulator", () => {
  test("makes online metrics of the events of trainOnline", async () => {
    using model = await loadAdapted("odd", await readVit("odd"));
    const online = new MetricAccumulator({ metrics: ["accuracy", "f1Micro"] });
    let accuracy = 0;
    const losses: number[] = [];
    for await (const event of trainOnline(model, new LoKO(model), batchesOf(1))) {
      online.add(event);
      accuracy = event.onlineAccuracy;
      losses.push(event.loss);
    }
    const result = online.result();
    expect(result).toMatchObject({ samples: 6, accuracy, f1Micro: accuracy });
    const mean = losses.reduce((sum, loss) => sum + loss, 0) / 6;
    // The events' losses are of float64 logits, the accumulator's of their float32 copies.
    expect(Math.abs(result.loss - mean)).toBeLessThan(1e-6);
  });
});
