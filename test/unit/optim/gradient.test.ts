import { describe, expect, test } from "vitest";
import { Model } from "../../../lib/model.js";
import { AdaGrad, Adam, AdamW, AMSGrad, RMSProp, SGD } from "../../../lib/optim/gradient.js";
import type { Optimizer } from "../../../lib/optim/optimizer.js";
import { loadAdapted, maxAbsError, readVit, vitFolder } from "../../parity/fixtures.js";
import { expectError } from "../model/checkpoints.js";
import { images, lossGradient } from "./samples.js";

// The rules themselves are tested against traces of torch.optim in native/test. Here every option is set
// to a value that matters, and two steps on a batch of two must follow the formulas of PyTorch's
// documentation, with gradients made from the exact Jacobian.

/** One parameter's update: (θ, g, t) to the new θ, keeping what it needs between steps. */
type Rule = () => (theta: number, g: number, t: number) => number;

function adamRule(decoupled: boolean, amsgrad: boolean): Rule {
  const [lr, beta1, beta2, eps, decay] = [3e-3, 0.8, 0.95, 1e-6, 0.1];
  return () => {
    let [m, v, vMax] = [0, 0, 0];
    return (theta, g, t) => {
      if (decoupled) theta *= 1 - lr * decay;
      else g += decay * theta;
      m = beta1 * m + (1 - beta1) * g;
      v = beta2 * v + (1 - beta2) * g * g;
      vMax = Math.max(vMax, v);
      const root = Math.sqrt((amsgrad ? vMax : v) / (1 - beta2 ** t));
      return theta - ((lr / (1 - beta1 ** t)) * m) / (root + eps);
    };
  };
}
const ADAM = { lr: 3e-3, betas: [0.8, 0.95], eps: 1e-6, weightDecay: 0.1 } as const;

const CASES: [string, (model: Model) => Optimizer, Rule][] = [
  [
    "SGD with momentum and dampening",
    (model) => new SGD(model, { lr: 0.05, momentum: 0.8, dampening: 0.3, weightDecay: 0.1 }),
    () => {
      let buffer = 0;
      return (theta, g, t) => {
        g += 0.1 * theta;
        buffer = t === 1 ? g : 0.8 * buffer + (1 - 0.3) * g;
        return theta - 0.05 * buffer;
      };
    },
  ],
  [
    "SGD with Nesterov momentum",
    (model) => new SGD(model, { lr: 0.05, momentum: 0.8, nesterov: true }),
    () => {
      let buffer = 0;
      return (theta, g) => {
        buffer = 0.8 * buffer + g;
        return theta - 0.05 * (g + 0.8 * buffer);
      };
    },
  ],
  [
    "AdaGrad",
    (model) =>
      new AdaGrad(model, {
        lr: 0.05,
        lrDecay: 0.5,
        weightDecay: 0.1,
        initialAccumulatorValue: 0.2,
        eps: 1e-3,
      }),
    () => {
      let sum = 0.2;
      return (theta, g, t) => {
        g += 0.1 * theta;
        sum += g * g;
        return theta - ((0.05 / (1 + (t - 1) * 0.5)) * g) / (Math.sqrt(sum) + 1e-3);
      };
    },
  ],
  [
    "centred RMSProp with momentum",
    (model) =>
      new RMSProp(model, {
        lr: 0.01,
        alpha: 0.6,
        eps: 1e-2,
        weightDecay: 0.1,
        momentum: 0.5,
        centered: true,
      }),
    () => {
      let [square, average, buffer] = [0, 0, 0];
      return (theta, g) => {
        g += 0.1 * theta;
        square = 0.6 * square + 0.4 * g * g;
        average = 0.6 * average + 0.4 * g;
        buffer = 0.5 * buffer + g / (Math.sqrt(square - average * average) + 1e-2);
        return theta - 0.01 * buffer;
      };
    },
  ],
  ["Adam", (model) => new Adam(model, ADAM), adamRule(false, false)],
  [
    "Adam with amsgrad",
    (model) => new Adam(model, { ...ADAM, amsgrad: true }),
    adamRule(false, true),
  ],
  ["AMSGrad", (model) => new AMSGrad(model, ADAM), adamRule(false, true)],
  ["AdamW", (model) => new AdamW(model, ADAM), adamRule(true, false)],
  [
    "AdamW with amsgrad",
    (model) => new AdamW(model, { ...ADAM, amsgrad: true }),
    adamRule(true, true),
  ],
];

describe("first-order optimizers", () => {
  test.each(CASES)("%s follows its formula for two steps on a batch", async (_, create, rule) => {
    const fixture = await readVit("odd");
    // In double, so that what remains is float32 rounding of θ (6e-8 relative) and of the Jacobian
    // that the expected gradient is made from. Adam divides by |g|, which near g = 0 amplifies that to a
    // share of the rate: hence an absolute bar of 1e-3 of the largest change, and for AdaGrad and
    // RMSProp the same.
    using model = await loadAdapted("odd", fixture, { device: "ref" });
    const optimizer = create(model);
    const start = await model.readParameters();
    const rules = Array.from(start, rule);
    const labels = Int32Array.of(3, 5);
    for (let t = 1; t <= 2; t++) {
      const inputs = images(2, t);
      const before = await model.readParameters();
      const gradient = await lossGradient(model, inputs, labels);
      const result = await optimizer.step(inputs, labels);
      const after = await model.readParameters();

      expect(result).toMatchObject({ rows: 1, skipped: null });
      expect(result.kalman).toBeUndefined();
      let largest = 0;
      let worst = 0;
      for (let i = 0; i < before.length; i++) {
        const expected = rules[i]!(before[i]!, gradient[i]!, t);
        largest = Math.max(largest, Math.abs(expected - before[i]!));
        worst = Math.max(worst, Math.abs(expected - after[i]!));
      }
      expect(largest).toBeGreaterThan(1e-4);
      expect(worst / largest).toBeLessThan(1e-3);
    }
  });

  test("report the prediction from before the step", async () => {
    const fixture = await readVit("odd");
    using model = await loadAdapted("odd", fixture);
    using before = await model.forward(images(2));
    const [a, b] = [before.dataSync().subarray(0, 7), before.dataSync().subarray(7)];
    const predictions = [a.indexOf(Math.max(...a)), b.indexOf(Math.max(...b))];
    const labels = Int32Array.of(predictions[0]!, (predictions[1]! + 1) % 7);
    const result = await new SGD(model, { lr: 0.1 }).step(images(2), labels);

    expect(Array.from(result.predictions)).toEqual(predictions);
    expect(result.correct).toBe(1);
    // Training and inference may fuse differently; float32 rounding of values of order 1.
    expect(maxAbsError(result.logits, before.dataSync())).toBeLessThan(5e-6);
    const crossEntropy = [a, b].map((z, i) => {
      const sum = z.reduce((total, value) => total + Math.exp(value), 0);
      return Math.log(sum) - z[labels[i]!]!;
    });
    expect(result.loss).toBeCloseTo((crossEntropy[0]! + crossEntropy[1]!) / 2, 5);
  });

  test("minimise the squared error of float targets", async () => {
    const fixture = await readVit("odd");
    using model = await loadAdapted("odd", fixture);
    const optimizer = new AdamW(model, { lr: 1e-3 });
    const targets = Float32Array.from({ length: 7 }, (_, i) => Math.cos(i));
    const losses = [];
    for (let i = 0; i < 30; i++) losses.push((await optimizer.step(images(1), targets)).loss);
    expect(losses[29]).toBeLessThan(losses[0]! / 10);
  });

  test("refuse unknown and senseless options, naming what would be right", async () => {
    using model = await Model.fromPretrained(vitFolder("act"));
    await model.addAdapter();
    const lr = { learningRate: 1 } as object;
    await expectError(() => new SGD(model, lr), "ERR_OPTION", "SGD", '"learningRate"', '"lr"');
    await expectError(
      () => new Adam(model, { lr: -1 }),
      "ERR_OPTION",
      "Adam: lr",
      ">= 0",
      "got -1",
    );
    await expectError(() => new AdamW(model, { lr: Number.NaN }), "ERR_OPTION", "AdamW: lr", "NaN");
    await expectError(
      () => new Adam(model, { betas: [0.9, 1] }),
      "ERR_OPTION",
      "betas",
      "[0, 1)",
      "an array of 2",
    );
    await expectError(
      () => new AMSGrad(model, { amsgrad: false } as object),
      "ERR_OPTION",
      '"amsgrad"',
    );
    await expectError(
      () => new SGD(model, { nesterov: true }),
      "ERR_OPTION",
      "nesterov",
      "momentum",
    );
    await expectError(() => new SGD({} as Model), "ERR_INPUT_TYPE", "SGD", "Model", "copy");
  });
});
