import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Model } from "../../../lib/model.js";
import { LoKO, type LoKOOptions } from "../../../lib/optim/loko.js";
import { loadAdapted, readVit } from "../../parity/fixtures.js";
import { expectError } from "../model/checkpoints.js";
import { images } from "./samples.js";

// The filter is tested in native/test (exact algebra) and test/parity (trajectories); this is its facade.

const LABEL = Int32Array.of(4);

async function load(): Promise<Model> {
  return loadAdapted("odd", await readVit("odd"));
}

/** θ after three steps. */
async function thetaAfter(create: (model: Model) => LoKO): Promise<Float32Array> {
  using model = await load();
  const optimizer = create(model);
  for (let i = 0; i < 3; i++) await optimizer.step(images(1, i), LABEL);
  return model.readParameters();
}

describe("LoKO", () => {
  let model: Model;
  beforeEach(async () => {
    model = await load();
  });
  afterEach(() => model.dispose());

  test.each(["r0", "gamma", "processNoise", "pMax", "p0", "tau"])(
    "refuses a %s that is infinite in float32",
    async (name) => {
      await expectError(() => new LoKO(model, { [name]: 1e39 }), "ERR_OPTION", name, "float32");
    },
  );

  test("learns what it is shown, with every observation", async () => {
    const values = Float32Array.from({ length: 7 }, (_, i) => (i === 4 ? 2 : 0));
    for (const observation of ["softmax", "categorical", "logits", "regression"] as const) {
      using fresh = await load();
      const optimizer = new LoKO(fresh, { observation });
      const losses: number[] = [];
      for (let i = 0; i < 20; i++) {
        const target = observation === "regression" ? values : LABEL;
        const { loss, skipped } = await optimizer.step(images(1), target);
        expect(skipped, observation).toBeNull();
        losses.push(loss);
      }
      expect(losses[19], observation).toBeLessThan(losses[0]! / 2);
    }
  });

  test("reports the numbers of the filter", async () => {
    const optimizer = new LoKO(model, { observationRank: "exact", covariance: "fdekf" });
    const first = await optimizer.step(images(1), LABEL);
    expect(first.rows).toBe(6); // m - 1 informative directions
    const { p0, pMin, pMean, pMax, jitter, floored, trustScale, nis, traceR } = first.kalman!;
    expect(p0).toBeGreaterThan(0);
    expect(pMin).toBeLessThanOrEqual(pMean);
    expect(pMean).toBeLessThanOrEqual(pMax);
    expect(pMax).toBeLessThanOrEqual(p0); // without process noise a variance only shrinks
    expect({ jitter, floored }).toEqual({ jitter: 0, floored: 0 });
    expect(trustScale).toBeGreaterThan(0);
    expect(trustScale).toBeLessThanOrEqual(1);
    expect(nis).toBeGreaterThan(0);
    expect(traceR).toBeGreaterThan(0);
    const second = await optimizer.step(images(1), LABEL);
    expect(second.kalman!.pMean).toBeLessThan(pMean);
  });

  test("propagates as many rows as it was told", async () => {
    for (const rank of [1, 3, 6]) {
      const { rows } = await new LoKO(model, { observationRank: rank }).step(images(1), LABEL);
      expect(rows).toBe(rank);
    }
    for (const observation of ["softmax", "categorical"] as const) {
      const all = new LoKO(model, { observation, rankEpsilon: 0 });
      const few = new LoKO(model, { observation, rankEpsilon: 0.9 });
      expect((await all.step(images(1), LABEL)).rows).toBe(6);
      // The categorical basis always holds the direction of the innovation as well.
      expect((await few.step(images(1), LABEL)).rows).toBe(observation === "softmax" ? 1 : 2);
    }
  });

  test("in the preset of the paper equals the same options one by one, to the bit", async () => {
    const explicit: LoKOOptions = {
      observation: "softmax",
      observationRank: "exact",
      noise: "ema",
      processNoise: 0,
      trustRegion: Number.POSITIVE_INFINITY,
    };
    const expected = await thetaAfter((fresh) => new LoKO(fresh, explicit));
    expect(await thetaAfter((fresh) => new LoKO(fresh, { preset: "paper" }))).toEqual(expected);
    expect(await thetaAfter((fresh) => LoKO.paper(fresh))).toEqual(expected);
    const other = await thetaAfter((fresh) => LoKO.paper(fresh, { p0: 0.01 }));
    expect(other).not.toEqual(expected);
    expect(await thetaAfter((fresh) => new LoKO(fresh, { ...explicit, p0: 0.01 }))).toEqual(other);
  });

  test("observes the categorical likelihood, or the softmax where an option says so", async () => {
    const defaults = await thetaAfter((fresh) => new LoKO(fresh));
    const { POSITIVE_INFINITY: none } = Number;
    for (const same of [
      { observation: "categorical", update: "iterated", gain: "adaptive", covariance: "lofi" },
      { covarianceRank: 16, tau: 1 },
      { gain: "adaptive", trustRegion: none },
      { trustRegion: none, processNoise: 0, processNoiseRatio: 0, gamma: 1 }, // as they are anyway
    ] as const) {
      expect(await thetaAfter((fresh) => new LoKO(fresh, same))).toEqual(defaults);
    }
    const linear = await thetaAfter((fresh) => new LoKO(fresh, { update: "linear" }));
    expect(linear).not.toEqual(defaults);
    for (const same of [
      { observation: "categorical", update: "linear", gain: "fixed", covariance: "fdekf" },
      { tau: 3, trustRegion: 2 },
      { gain: "fixed", covariance: "fdekf", update: "linear" },
    ] as const) {
      expect(await thetaAfter((fresh) => new LoKO(fresh, same))).toEqual(linear);
    }
    const softmax = await thetaAfter((fresh) => new LoKO(fresh, { p0: "auto", beta: 0.9 }));
    expect(softmax).not.toEqual(linear);
    expect(
      await thetaAfter(
        (fresh) =>
          new LoKO(fresh, { observation: "softmax", beta: 0.9, tau: 1, trustRegion: 1, r0: 0.1 }),
      ),
    ).toEqual(softmax);
  });

  test("keeps a diagonal covariance where it is asked for, and any rank of a low-rank one", async () => {
    const seen = new Set<string>();
    for (const options of [
      { covariance: "fdekf" },
      { covariance: "vdekf" },
      { covarianceRank: 1 },
      { covarianceRank: 40 },
      { gain: "fixed", update: "iterated", covarianceRank: 2 },
      { processNoiseRatio: 1e-3, update: "iterated" },
      { observation: "logits", covariance: "lofi" },
      { observation: "softmax", covariance: "lofi", noise: "residual" },
    ] as const) {
      seen.add(String(await thetaAfter((fresh) => new LoKO(fresh, options))));
    }
    expect(seen.size).toBe(8);
  });

  test("keeps what it saw in the low-rank part while its rank suffices, not in p", async () => {
    const optimizer = new LoKO(model, { update: "iterated", gain: "fixed" });
    const { p0, pMean } = (await optimizer.step(images(1), LABEL)).kalman!;
    expect(pMean).toBe(p0);
    for (let i = 0; i < 20; i++) await optimizer.step(images(1, i), LABEL);
    expect((await optimizer.step(images(1), LABEL)).kalman!.pMean).toBeLessThan(p0);
  });

  test("learns from a batch as one observation, with every observation", async () => {
    for (const observation of ["softmax", "categorical", "logits"] as const) {
      using fresh = await load();
      const optimizer = new LoKO(fresh, { observation });
      const labels = Int32Array.of(4, 1, 2);
      const losses: number[] = [];
      for (let i = 0; i < 20; i++) {
        const { loss, skipped, predictions } = await optimizer.step(images(3), labels);
        expect(skipped, observation).toBeNull();
        expect(predictions).toHaveLength(3);
        losses.push(loss);
      }
      expect(losses[19], observation).toBeLessThan(losses[0]! / 2);
    }
    await expectError(
      () => new LoKO(model).step(images(2), LABEL),
      "ERR_SHAPE_MISMATCH",
      "2 samples, got 1",
    );
  });

  test("says by how much its gain has changed", async () => {
    const optimizer = new LoKO(model, { p0: 1e-6 });
    let last = await optimizer.step(images(1), LABEL);
    expect(last.kalman!.gain).toBe(1);
    for (let i = 0; i < 30; i++) last = await optimizer.step(images(1), LABEL);
    // Far too small a p0 for a sample that comes again and again.
    expect(last.kalman!.gain).toBeGreaterThan(2);
    const fixed = new LoKO(model, { update: "linear" });
    expect((await fixed.step(images(1), LABEL)).kalman!.gain).toBe(1);
  });

  test("keeps a parameter group whose initial variance is zero", async () => {
    const before = await model.readParameters();
    const optimizer = new LoKO(model, { p0: { loraA: 0, loraB: 0.02, head: 0 } });
    await optimizer.step(images(1), LABEL);
    const after = await model.readParameters();
    for (const { name, offset, size, group } of model.parameters()) {
      const [was, is] = [before, after].map((theta) => theta.slice(offset, offset + size));
      if (group === "loraB") expect(is, name).not.toEqual(was);
      else expect(is, name).toEqual(was);
    }
  });

  test("skips a sample whose numbers overflow, and changes nothing", async () => {
    const optimizer = new LoKO(model);
    const head = model.parameters().find(({ name }) => name.endsWith("classifier.weight"))!;
    const theta = await model.readParameters();
    theta.fill(3e38, head.offset, head.offset + head.size);
    await model.writeParameters(theta);
    const { skipped, logits } = await optimizer.step(images(1), LABEL);
    expect(skipped).toBe("non-finite-logits");
    expect(logits.some((z) => !Number.isFinite(z))).toBe(true);
    expect(await model.readParameters()).toEqual(theta);
  });

  test("predicts only, where the loss is below minLoss", async () => {
    const theta = await model.readParameters();
    const optimizer = new LoKO(model, { minLoss: 100 });
    const { rows, skipped, loss, kalman } = await optimizer.step(images(1), LABEL);
    expect([rows, skipped, kalman!.p0]).toEqual([0, null, 0]);
    expect(loss).toBeLessThan(100);
    expect(await model.readParameters()).toEqual(theta);
  });

  test("does not look at its input again after the call", async () => {
    using other = await load();
    const kept = await new LoKO(other).step(images(1), LABEL);
    const [inputs, labels] = [images(1), LABEL.slice()];
    const running = new LoKO(model).step(inputs, labels);
    inputs.pixelValues.fill(7);
    labels.fill(1);
    const result = await running;
    expect(result.logits).toEqual(kept.logits);
    expect(result.loss).toBe(kept.loss);
  });

  test("takes turns with a second optimizer on the same model", async () => {
    const [a, b] = [new LoKO(model), new LoKO(model, { observation: "softmax" })];
    for (let i = 0; i < 3; i++) {
      expect((await a.step(images(1, i), LABEL)).skipped).toBeNull();
      expect((await b.step(images(1, i), LABEL)).skipped).toBeNull();
    }
  });

  test.each<[string, object, string[]]>([
    ["an unknown option", { betta: 0.9 }, ['"betta"', '"beta"']],
    ["a forgetting factor of 1", { beta: 1 }, ["LoKO: beta", "[0, 1)", "got 1"]],
    ["a rank of 0", { observationRank: 0 }, ["observationRank", '"exact", "auto"', "got 0"]],
    ["a negative variance", { p0: -1 }, ["p0", '"auto"', ">= 0", "got -1"]],
    ["a variance for some groups only", { p0: { head: 1 } }, ["p0", "{ loraA, loraB, head }"]],
    ["a trust region of 0", { trustRegion: 0 }, ["trustRegion", "Infinity", "got 0"]],
    ["a negative loss", { minLoss: -1 }, ["minLoss", ">= 0", "got -1"]],
    [
      "a loss in nats where there is none",
      { observation: "logits", minLoss: 0.1 },
      ["minLoss", "softmax"],
    ],
    ["an unknown observation", { observation: "probit" }, ["observation", '"categorical"']],
    ["an unknown preset", { preset: "papers" }, ["preset", '"paper"']],
    ["a forgetting factor for fixed noise", { noise: "fixed", beta: 0.9 }, ["beta"]],
    [
      "a noise mode beside the categorical one",
      { observation: "categorical", noise: "ema" },
      ["noise"],
    ],
    [
      "an iterated update of another likelihood",
      { observation: "softmax", update: "iterated" },
      ["update", "categorical"],
    ],
    [
      "an adaptive gain without the evidence of an iterated update",
      { update: "linear", gain: "adaptive" },
      ["gain", "iterated"],
    ],
    [
      "process noise of a low-rank covariance",
      { covariance: "lofi", processNoise: 1e-4, update: "iterated" },
      ["noise", "fdekf"],
    ],
    [
      "process noise beside an adaptive gain",
      { covariance: "fdekf", processNoiseRatio: 1e-4, gain: "adaptive" },
      ["noise", "adaptive", "fixed"],
    ],
    [
      "a rank of a diagonal covariance",
      { covariance: "vdekf", covarianceRank: 3 },
      ["covarianceRank", "lofi"],
    ],
    [
      "a share of the trace beside an exact rank",
      { rankEpsilon: 0.1, observationRank: "exact" },
      ["rankEpsilon", '"auto"'],
    ],
    [
      "a rank for regression",
      { observation: "regression", observationRank: 2 },
      ["observationRank"],
    ],
    ["options that are no object", [] as object, ["must be an object", "an array of 0"]],
  ])("refuses %s when it is created", async (_, options, words) => {
    await expectError(() => new LoKO(model, options), "ERR_OPTION", ...words);
  });
});
