import { describe, expect, test } from "vitest";
import { deviceInfo } from "../../../lib/device.js";
import { Model } from "../../../lib/model.js";
import { maxAbsError, vitFolder } from "../../parity/fixtures.js";
import { CheckpointCopy } from "./checkpoints.js";

describe("Model", () => {
  test("describes itself", async () => {
    using model = await Model.fromPretrained(vitFolder("odd"));
    expect(model).toMatchObject({
      modelType: "vit",
      numLabels: 7,
      input: { kind: "image", shape: [3, 16, 16] },
      newWeights: [],
      unusedWeights: [],
    });
    expect(model.parameters()).toEqual([]);
    expect(await model.readParameters()).toEqual(new Float32Array(0));
  });

  test("names its parameters as PEFT does, in the order of theta", async () => {
    using model = await Model.fromPretrained(vitFolder("odd"));
    await model.addAdapter({
      r: 4,
      targetModules: ["query", "output.dense"],
      layersToTransform: 1,
    });
    const path = "base_model.model.vit.encoder.layer.1";
    const expected: [string, number[], string][] = [
      [`${path}.attention.attention.query.lora_A.weight`, [4, 48], "loraA"],
      [`${path}.attention.attention.query.lora_B.weight`, [48, 4], "loraB"],
      [`${path}.attention.output.dense.lora_A.weight`, [4, 48], "loraA"],
      [`${path}.attention.output.dense.lora_B.weight`, [48, 4], "loraB"],
      [`${path}.output.dense.lora_A.weight`, [4, 80], "loraA"],
      [`${path}.output.dense.lora_B.weight`, [48, 4], "loraB"],
      ["base_model.model.classifier.weight", [7, 48], "head"],
      ["base_model.model.classifier.bias", [7], "head"],
    ];
    let offset = 0;
    for (const [i, [name, shape, group]] of expected.entries()) {
      const size = shape.reduce((a, b) => a * b);
      expect(model.parameters()[i]).toEqual({ name, shape, group, offset, size });
      offset += size;
    }
    expect(model.parameters().length).toBe(expected.length);
    expect((await model.readParameters()).length).toBe(offset);
  });

  test("freezes the head where modulesToSave is empty", async () => {
    using model = await Model.fromPretrained(vitFolder("odd"));
    await model.addAdapter({ modulesToSave: [] });
    expect(model.parameters().some(({ group }) => group === "head")).toBe(false);
  });

  test("starts an adapter with B at zero, A by seed, and the head of the checkpoint", async () => {
    const read = async (seed: number) => {
      using model = await Model.fromPretrained(vitFolder("odd"), { seed });
      const image = { pixelValues: new Float32Array(768).fill(0.3), shape: [1, 3, 16, 16] };
      const before = (await model.forward(image)).dataSync();
      await model.addAdapter();
      const after = (await model.forward(image)).dataSync();
      expect(maxAbsError(after, before)).toBeLessThan(1e-6);
      return { parameters: model.parameters(), theta: await model.readParameters() };
    };
    const { parameters, theta } = await read(1);
    for (const { group, offset, size, shape, name } of parameters) {
      const values = theta.subarray(offset, offset + size);
      if (group === "loraB") expect(values.every((value) => value === 0)).toBe(true);
      if (group === "loraA") {
        // U(-1/sqrt(in), 1/sqrt(in)) of 384 draws: inside, and not far from the ends.
        const bound = 1 / Math.sqrt(shape[1]!);
        const largest = Math.max(...values.map(Math.abs));
        expect(largest, name).toBeLessThanOrEqual(bound * 1.000001);
        expect(largest, name).toBeGreaterThan(bound * 0.95);
      }
    }
    expect((await read(1)).theta).toEqual(theta);
    expect((await read(2)).theta).not.toEqual(theta);
  });

  test("reads back the parameters that were written", async () => {
    using model = await Model.fromPretrained(vitFolder("odd"));
    await model.addAdapter();
    const values = (await model.readParameters()).map((_, i) => Math.fround(Math.sin(i)));
    await model.writeParameters(values);
    expect(await model.readParameters()).toEqual(values);
  });

  test("computes a batch as its samples one by one", async () => {
    using model = await Model.fromPretrained(vitFolder("odd"));
    const pixelValues = new Float32Array(3 * 768).map((_, i) => Math.sin(i));
    using batch = await model.forward({ pixelValues, shape: [3, 3, 16, 16] });
    for (let b = 0; b < 3; b++) {
      const one = { pixelValues: pixelValues.slice(b * 768, (b + 1) * 768), shape: [1, 3, 16, 16] };
      using single = await model.forward(one);
      // Not to the bit: the blocking of a product may depend on its number of rows.
      const row = batch.dataSync().subarray(b * 7, (b + 1) * 7);
      expect(maxAbsError(single.dataSync(), row)).toBeLessThan(5e-6);
    }
  });

  test("takes the defaults of transformers for what a configuration leaves out", async () => {
    using copy = new CheckpointCopy();
    copy.editConfig((config) => {
      for (const key of ["hidden_act", "num_channels", "qkv_bias"]) delete config[key];
    });
    using plain = await Model.fromPretrained(vitFolder("odd"));
    using sparse = await Model.fromPretrained(copy.dir);
    const image = { pixelValues: new Float32Array(768).fill(0.3), shape: [1, 3, 16, 16] };
    expect((await sparse.forward(image)).dataSync()).toEqual(
      (await plain.forward(image)).dataSync(),
    );
  });
});

describe("deviceInfo", () => {
  test("names the instruction set", () => {
    const { cpu } = deviceInfo();
    expect(cpu.available).toBe(true);
    expect(cpu.instructionSets).toContain(cpu.instructionSet);
    expect(cpu.instructionSets).toContain("generic");
    expect(cpu.threads).toBeGreaterThanOrEqual(1);
  });

  test("does not throw where LOKO_CPU_ISA names what is not there, and a model says so too", async () => {
    process.env.LOKO_CPU_ISA = "mmx";
    try {
      const { cpu } = deviceInfo();
      expect(cpu).toMatchObject({ available: false });
      expect(cpu.reason).toContain("mmx");
      await expect(Model.fromPretrained(vitFolder("act"))).rejects.toMatchObject({
        code: "ERR_OPTION",
      });
    } finally {
      delete process.env.LOKO_CPU_ISA;
    }
  });
});
