import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { deviceInfo } from "../../lib/device.js";
import { Model } from "../../lib/model.js";
import { expectJacobian, logitsOf } from "./compare.js";
import {
  DEVICES,
  loadAdapted,
  maxAbsError,
  readVit,
  thetaOf,
  VIT_CASES,
  vitFolder,
} from "./fixtures.js";

// Expected values: PyTorch, transformers and PEFT in float64 (test/fixtures/README.md).
//
// Logits are O(1). float32 arithmetic over about 20 operations of width <= 130 leaves a few 1e-7; the
// bar of 1e-5 is the project's. The reference backend computes in double and only its results are
// rounded to float32: 2^-24 of |z| < 8 is 5e-7.
const LOGIT_TOLERANCE = { cpu: 1e-5, cuda: 1e-5, ref: 1e-6 } as const;

describe.each(DEVICES)("ViT on device %s", (device) => {
  describe.each(VIT_CASES)("case %s", (name) => {
    test("computes PyTorch's logits, bare and with the adapter", async () => {
      const fixture = await readVit(name);
      using bare = await Model.fromPretrained(vitFolder(name), { device });
      const base = await logitsOf(bare, fixture);
      using adapted = await loadAdapted(name, fixture, { device });
      const logits = await logitsOf(adapted, fixture);

      const { expected } = fixture;
      expect(bare.unusedWeights).toEqual([]);
      expect(bare.newWeights).toEqual([]);
      expect(maxAbsError(base, expected.get("logits_base")!.values)).toBeLessThan(
        LOGIT_TOLERANCE[device],
      );
      expect(maxAbsError(logits, expected.get("logits")!.values)).toBeLessThan(
        LOGIT_TOLERANCE[device],
      );
    });

    test("computes PyTorch's Jacobians where B is not zero", async () => {
      const fixture = await readVit(name);
      using model = await loadAdapted(name, fixture, { device });
      await expectJacobian(model, fixture, "logits", "jacobian");
      await expectJacobian(model, fixture, "softmax", "jacobian");
    });

    test("computes PyTorch's logits and Jacobians where B is zero", async () => {
      const fixture = await readVit(name);
      using model = await loadAdapted(name, fixture, { device }, true);
      const logits = await logitsOf(model, fixture);
      expect(maxAbsError(logits, fixture.expected.get("logits_b0")!.values)).toBeLessThan(
        LOGIT_TOLERANCE[device],
      );
      if (!fixture.zeroB) return;
      await expectJacobian(model, fixture, "logits", "jacobian_b0");
      await expectJacobian(model, fixture, "softmax", "jacobian_b0");
    });
  });
});

describe("checkpoint formats", () => {
  test.each([
    ["float16 weights", "base_f16", "logits_base_f16"],
    ["bfloat16 weights", "base_bf16", "logits_base_bf16"],
    ["four shards and an index", "base_sharded", "logits_base"],
  ])("%s give PyTorch's logits", async (_, folder, key) => {
    const fixture = await readVit("odd");
    using model = await Model.fromPretrained(vitFolder("odd", folder));
    const logits = await logitsOf(model, fixture);
    expect(maxAbsError(logits, fixture.expected.get(key)!.values)).toBeLessThan(1e-5);
  });

  test("a backbone without a head gets a new one and otherwise the same numbers", async () => {
    const fixture = await readVit("odd");
    using model = await Model.fromPretrained(vitFolder("odd", "headless"), { seed: 3 });
    expect(model.newWeights).toEqual(["classifier.weight", "classifier.bias"]);
    expect(model.unusedWeights).toEqual([]);

    // With the fixture's head and adapter the backbone must give the fixture's logits.
    await model.addAdapter(fixture.options);
    const drawn = await model.readParameters();
    await model.writeParameters(thetaOf(model, fixture.adapter));
    const logits = await logitsOf(model, fixture);
    expect(maxAbsError(logits, fixture.expected.get("logits")!.values)).toBeLessThan(1e-5);

    const head = model.parameters().find(({ name }) => name.endsWith("classifier.weight"))!;
    const weights = drawn.subarray(head.offset, head.offset + head.size);
    // 336 draws of N(0, 0.02²): the standard error of the sample deviation is 4 %.
    const deviation = Math.sqrt(weights.reduce((sum, w) => sum + w * w, 0) / weights.length);
    expect(Math.abs(deviation / 0.02 - 1)).toBeLessThan(0.2);
  });
});

// Set for this process only: the native code reads it whenever a model is loaded.
describe.each(deviceInfo().cpu.instructionSets)("instruction set %s", (isa) => {
  beforeEach(() => {
    process.env.LOKO_CPU_ISA = isa;
  });
  afterEach(() => {
    delete process.env.LOKO_CPU_ISA;
  });

  test.each(VIT_CASES)("computes PyTorch's logits and Jacobians in case %s", async (name) => {
    const fixture = await readVit(name);
    using model = await loadAdapted(name, fixture, { device: "cpu" });
    const description = model.runtime.call((session) => session.description());
    expect(description).toContain(`${isa},`);
    const logits = await logitsOf(model, fixture);
    expect(maxAbsError(logits, fixture.expected.get("logits")!.values)).toBeLessThan(
      LOGIT_TOLERANCE.cpu,
    );
    await expectJacobian(model, fixture, "logits", "jacobian");
    await expectJacobian(model, fixture, "softmax", "jacobian");
  });

  test("gives the same bits with one and two threads", async () => {
    const fixture = await readVit("wide");
    const results = [];
    for (const threads of [1, 2]) {
      using model = await loadAdapted("wide", fixture, { device: "cpu", threads });
      using logits = await model.forward(fixture.inputs);
      using jacobian = await model.jacobian(fixture.inputs);
      results.push({ logits: logits.dataSync(), jacobian: jacobian.dataSync() });
    }
    expect(results[1]).toEqual(results[0]);
  });
});
