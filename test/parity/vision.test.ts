import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { deviceInfo } from "../../lib/device.js";
import { Model } from "../../lib/model.js";
import { expectJacobian, logitsOf } from "./compare.js";
import {
  adapt,
  DEVICES,
  loadVision,
  maxAbsError,
  readVision,
  thetaOf,
  VISION_CASES,
  visionFolder,
} from "./fixtures.js";

// Expected values: PyTorch, transformers, timm, torchvision and PEFT in float64
// (test/fixtures/README.md).
//
// Logits are O(1) and the nets have at most 20 layers of a width below 100; float32 leaves up to 9e-7. The bar
// of 1e-5 is the project's. The reference backend computes in double; folded batch norms are rounded to
// float32, and PyTorch interpolates positions in float32: up to 2.4e-7 were measured.
const LOGIT_TOLERANCE = { cpu: 1e-5, cuda: 1e-5, ref: 1e-6 } as const;

describe.each(DEVICES)("convolutional nets and DINO on device %s", (device) => {
  describe.each(VISION_CASES)("case %s", (name) => {
    test("computes PyTorch's logits, bare and with the adapter", async () => {
      const fixture = await readVision(name);
      using bare = await loadVision(name, fixture, { device });
      expect(bare.unusedWeights).toEqual([]);
      expect(bare.newWeights).toEqual([]);
      const { expected } = fixture;
      const base = await logitsOf(bare, fixture);
      expect(maxAbsError(base, expected.get("logits_base")!.values)).toBeLessThan(
        LOGIT_TOLERANCE[device],
      );
      const adapted = await adapt(bare, fixture);
      const logits = await logitsOf(adapted, fixture);
      expect(maxAbsError(logits, expected.get("logits")!.values)).toBeLessThan(
        LOGIT_TOLERANCE[device],
      );
    });

    test("computes PyTorch's Jacobians where B is not zero", async () => {
      const fixture = await readVision(name);
      using model = await adapt(await loadVision(name, fixture, { device }), fixture);
      await expectJacobian(model, fixture, "logits", "jacobian");
      await expectJacobian(model, fixture, "softmax", "jacobian");
    });

    test("computes PyTorch's logits and Jacobians where B is zero", async () => {
      const fixture = await readVision(name);
      using model = await adapt(await loadVision(name, fixture, { device }), fixture, true);
      const logits = await logitsOf(model, fixture);
      expect(maxAbsError(logits, fixture.expected.get("logits_b0")!.values)).toBeLessThan(
        LOGIT_TOLERANCE[device],
      );
      await expectJacobian(model, fixture, "logits", "jacobian_b0");
      await expectJacobian(model, fixture, "softmax", "jacobian_b0");
    });
  });
});

describe("PEFT's adapters of", () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "loko-vision-"));
  });
  afterEach(() => rm(folder, { recursive: true }));

  test.each(VISION_CASES)("%s load, save, load again, merge and save", async (name) => {
    const fixture = await readVision(name);
    const expected = fixture.expected.get("logits")!.values;
    using model = await loadVision(name, fixture);
    await model.loadAdapter(visionFolder(name, "adapter"));
    const errorOf = async (other: Model) => maxAbsError(await logitsOf(other, fixture), expected);
    expect(await errorOf(model)).toBeLessThan(LOGIT_TOLERANCE.cpu);
    const parameters = await model.readParameters();

    await model.saveAdapter(join(folder, "adapter"));
    using again = await loadVision(name, fixture);
    await again.loadAdapter(join(folder, "adapter"));
    expect(await again.readParameters()).toEqual(parameters);

    const { largestChange } = await model.mergeAdapter();
    expect(largestChange).toBeGreaterThan(0);
    expect(await errorOf(model)).toBeLessThan(LOGIT_TOLERANCE.cpu);
    await model.save(join(folder, "merged"));
    const { shape } = fixture.inputs;
    using merged = await Model.fromPretrained(join(folder, "merged"), {
      imageSize: [shape[2]!, shape[3]!],
    });
    expect(await errorOf(merged)).toBeLessThan(LOGIT_TOLERANCE.cpu);
  });
});

test("a ViT takes images of another size, with interpolated positions", async () => {
  const { expected } = await readVision("dino");
  const { shape, values } = expected.get("pixel_values_tall")!;
  using model = await Model.fromPretrained(visionFolder("dino"), { imageSize: [24, 12] });
  const inputs = { pixelValues: values as Float32Array, shape };
  const logits = await logitsOf(model, { inputs });
  expect(maxAbsError(logits, expected.get("logits_tall")!.values)).toBeLessThan(
    LOGIT_TOLERANCE.cpu,
  );
});

describe("backbones without a head", () => {
  test.each([
    ["dino", "classifier.weight"],
    ["dinov2", "classifier.weight"],
    ["resnet_basic", "classifier.1.weight"],
  ] as const)("%s get a new one and otherwise the same numbers", async (name, head) => {
    const fixture = await readVision(name);
    const { expected, options, adapter } = fixture;
    const numLabels = expected.get("logits")!.shape[1]!;
    using model = await loadVision(name, fixture, { numLabels }, "headless");
    expect(model.newWeights).toEqual([head, head.replace("weight", "bias")]);
    expect(model.unusedWeights).toEqual([]);
    await model.addAdapter(options);
    await model.writeParameters(thetaOf(model, adapter));
    const logits = await logitsOf(model, fixture);
    expect(maxAbsError(logits, expected.get("logits")!.values)).toBeLessThan(LOGIT_TOLERANCE.cpu);
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

  test.each(VISION_CASES)("computes PyTorch's logits and Jacobians in case %s", async (name) => {
    const fixture = await readVision(name);
    using model = await adapt(await loadVision(name, fixture, { device: "cpu" }), fixture);
    const logits = await logitsOf(model, fixture);
    expect(maxAbsError(logits, fixture.expected.get("logits")!.values)).toBeLessThan(
      LOGIT_TOLERANCE.cpu,
    );
    await expectJacobian(model, fixture, "logits", "jacobian");
  });

  test.each(["resnet_bottleneck", "densenet"] as const)(
    "gives the same bits with one and two threads in case %s",
    async (name) => {
      const fixture = await readVision(name);
      const results = [];
      for (const threads of [1, 2]) {
        using model = await adapt(await loadVision(name, fixture, { threads }), fixture);
        using logits = await model.forward(fixture.inputs);
        using jacobian = await model.jacobian(fixture.inputs);
        results.push({ logits: logits.dataSync(), jacobian: jacobian.dataSync() });
      }
      expect(results[1]).toEqual(results[0]);
    },
  );
});
