import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { LoKO, type LoKOOptions } from "../../lib/optim/loko.js";
import {
  DEVICES,
  type ExpectedTensor,
  FIXTURES,
  loadAdapted,
  maxAbsError,
  readTensors,
  readVit,
  relativeError,
  type TensorFile,
} from "./fixtures.js";

// 30 steps of the filter in plain PyTorch, float64, from its definition (test/fixtures/README.md). The
// reference backend computes in double too; what is compared was rounded to float32 (6e-8 relative), and
// theta is stored so between steps. On "cpu" Jacobian, theta and p are float32: a few 1e-7 per step; after
// 30 steps 2e-6 were measured for most runs and 3e-5 for the one with the largest steps. The bars leave a
// factor of 10 for other instruction sets, and GPUs.
const BARS = {
  ref: { logits: 1e-6, theta: 1e-6, scalar: 1e-6 },
  cpu: { logits: 3e-4, theta: 3e-4, scalar: 3e-4 },
  cuda: { logits: 3e-4, theta: 3e-4, scalar: 3e-4 },
} as const;

interface ReferenceOptions {
  observation?: "softmax" | "categorical" | "logits";
  noise?: "ema" | "model" | "fixed";
  covariance?: "fdekf" | "vdekf";
  tau?: number;
  trust?: number | "infinity";
  p0?: number;
  gamma?: number;
  q?: number;
  p_max?: number;
}

function optionsOf(options: ReferenceOptions): LoKOOptions {
  const { trust = 1, q, p_max: pMax, ...same } = options;
  return {
    // The defaults of the reference, which are not ours.
    observation: "softmax",
    // The reference is the textbook filter, which linearises at the prediction.
    update: options.observation === "categorical" ? "linear" : undefined,
    tau: 1,
    ...same,
    trustRegion: trust === "infinity" ? Number.POSITIVE_INFINITY : trust,
    processNoise: q,
    pMax,
    observationRank: options.observation === "logits" ? undefined : "exact",
  };
}

function row(tensor: ExpectedTensor, index: number): Float32Array | Float64Array {
  const size = tensor.values.length / tensor.shape[0]!;
  return tensor.values.subarray(index * size, (index + 1) * size);
}

const runs = JSON.parse(readFileSync(join(FIXTURES, "filter/trajectory.json"), "utf8")) as Record<
  string,
  { options: ReferenceOptions; p0: number }
>;

describe.each(DEVICES)("LoKO on device %s", (device) => {
  test.each(Object.entries(runs))(
    "follows the reference run %s for 30 steps",
    async (run, { options, p0 }) => {
      const bars = BARS[device];
      const fixture = await readVit("odd");
      const file = await readTensors(join(FIXTURES, "filter/trajectory.safetensors"));
      const pixels = file.get("pixel_values")!;
      const labels = file.get("labels")!.values as unknown as Int32Array;
      const at = (key: string): ExpectedTensor => file.get(`${run}/${key}`)!;
      using model = await loadAdapted("odd", fixture, { device }, true);
      const optimizer = new LoKO(model, optionsOf(options));

      for (let t = 0; t < labels.length; t++) {
        const result = await optimizer.step(
          { pixelValues: row(pixels, t) as Float32Array, shape: [1, ...pixels.shape.slice(1)] },
          labels.subarray(t, t + 1),
        );
        const where = `step ${t + 1}`;
        expect(result.skipped, where).toBeNull();
        expect(maxAbsError(result.logits, row(at("logits"), t)), where).toBeLessThan(bars.logits);
        if (options.observation !== "logits") {
          expect(maxAbsError([result.loss], row(at("loss"), t)), where).toBeLessThan(bars.logits);
        }
        expect(relativeError([result.kalman!.traceR], row(at("trace_r"), t)), where).toBeLessThan(
          bars.scalar,
        );
        expect(relativeError([result.kalman!.trustScale], row(at("scale"), t)), where).toBeLessThan(
          bars.scalar,
        );
        expect(relativeError([result.kalman!.p0], [p0]), where).toBeLessThan(bars.scalar);
        await expectTheta(file, `${run}/theta.${t + 1}/`, model, bars.theta);
      }
    },
  );
});

/** Compares theta, block by block, where the fixture recorded it. */
async function expectTheta(
  file: TensorFile,
  prefix: string,
  model: Awaited<ReturnType<typeof loadAdapted>>,
  bar: number,
): Promise<void> {
  const theta = await model.readParameters();
  for (const { name, offset, size } of model.parameters()) {
    const expected = file.get(prefix + name);
    if (expected === undefined) continue;
    const block = theta.subarray(offset, offset + size);
    expect(relativeError(block, expected.values), prefix + name).toBeLessThan(bar);
  }
}
