import { cp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";

import { LoKO, Model, type ModelInputs, type ModelOptions } from "../../../lib/index.js";
import { bfloat16ToFloat32, float16ToFloat32 } from "../../../lib/io/half.js";
import { openSafetensors } from "../../../lib/io/safetensors.js";
import { FIXTURES, maxAbsError, visionFolder, vitFolder } from "../../parity/fixtures.js";
import { errorOf, temporaryFolder } from "../io/helpers.js";

const BERT = join(FIXTURES, "peft/bert/base");
const TEXT: ModelInputs = { inputIds: Int32Array.of(2, 3, 4, 5), shape: [1, 4] };

async function logitsOf(model: Model): Promise<Float32Array> {
  using logits = await model.forward(TEXT);
  return logits.data();
}

async function adapted(dir: string, options: ModelOptions = {}): Promise<Model> {
  const model = await Model.fromPretrained(dir, options);
  await model.addAdapter({ r: 2, loraAlpha: 3, initLoraWeights: false, bias: "all" });
  const theta = await model.readParameters();
  await model.writeParameters(theta.map((value, i) => value + 0.1 * Math.sin(i)));
  return model;
}

const newFolder = async () => join(await temporaryFolder(), "out");

async function tensorsOf(dir: string) {
  const path = join(dir, "model.safetensors");
  const file = await readFile(path);
  return new Map(
    [...(await openSafetensors(path)).tensors.values()].map((info) => [
      info.name,
      { ...info, bytes: file.subarray(info.byteOffset, info.byteOffset + info.byteLength) },
    ]),
  );
}

describe("mergeAdapter", () => {
  test("keeps what the model computes, and reports the largest change", async () => {
    using model = await adapted(BERT);
    const before = await logitsOf(model);
    const theta = await model.readParameters();
    let largest = { largestChange: 0, module: "" };
    for (const b of model.parameters().filter(({ group }) => group === "loraB")) {
      const a = model.parameters().find(({ name }) => name === b.name.replace("lora_B", "lora_A"))!;
      const [r, width] = a.shape as [number, number];
      for (let row = 0; row < b.shape[0]!; row++) {
        for (let column = 0; column < width; column++) {
          let delta = 0;
          for (let k = 0; k < r; k++) {
            delta += theta[b.offset + row * r + k]! * theta[a.offset + k * width + column]!;
          }
          const change = Math.abs(1.5 * delta); // alpha / r
          const module = b.name.replace(/^base_model\.model\.|\.lora_B\.weight$/g, "");
          if (change > largest.largestChange) largest = { largestChange: change, module };
        }
      }
    }
    const merged = await model.mergeAdapter();
    expect(merged.module).toBe(largest.module);
    // W + delta is rounded to float32, with |W| below 4.
    expect(Math.abs(merged.largestChange - largest.largestChange)).toBeLessThan(4 * 2 ** -23);
    expect(maxAbsError(await logitsOf(model), before)).toBeLessThan(1e-5);
    expect(model.parameters()).toEqual([]);
    expect(await model.readParameters()).toHaveLength(0);
    await errorOf("ERR_NO_TRAINABLE_PARAMETERS", () => new LoKO(model));
    await errorOf("ERR_LORA_CONFIG", () => model.mergeAdapter());
    await model.addAdapter({ r: 1 });
    expect(maxAbsError(await logitsOf(model), before)).toBeLessThan(1e-5);
    await new LoKO(model).step(TEXT, Int32Array.of(1));
  });

  test("needs an adapter", async () => {
    using model = await Model.fromPretrained(BERT);
    await errorOf("ERR_LORA_CONFIG", () => model.mergeAdapter());
  });
});

describe("save", () => {
  test.each([
    ["float32", BERT],
    ["float16", vitFolder("odd", "base_f16")],
    ["bfloat16", vitFolder("odd", "base_bf16")],
    ["several files", vitFolder("odd", "base_sharded")],
  ])("writes an unchanged model as it was: %s", async (_, base) => {
    using model = await Model.fromPretrained(base);
    const dir = await newFolder();
    expect(await model.save(dir)).toEqual({ largestRounding: 0, weight: "" });
    const written = await tensorsOf(dir);
    const original = await tensorsOf(base.replace("base_sharded", "base"));
    expect([...written.keys()]).toEqual([...original.keys()]);
    for (const [name, { dtype, shape, bytes }] of original) {
      expect(written.get(name)).toMatchObject({ dtype, shape });
      expect(written.get(name)!.bytes.equals(bytes), name).toBe(true);
    }
    const config = async (folder: string) =>
      JSON.parse(await readFile(join(folder, "config.json"), "utf8")) as unknown;
    expect(await config(dir)).toEqual(await config(base));
  });

  test.each([
    ["running statistics and their counters", "densenet", {}],
    ["a prefix and their counters", "resnet_basic", { imageSize: 32 }],
    ["a mask token and positions for other images", "dinov2", { imageSize: [12, 16] as const }],
  ] as const)("writes %s as they were", async (_, name, options) => {
    const base = visionFolder(name);
    using model = await Model.fromPretrained(base, options);
    const dir = await newFolder();
    await model.save(dir);
    const [written, original] = [await tensorsOf(dir), await tensorsOf(base)];
    expect([...written.keys()].sort()).toEqual([...original.keys()].sort());
    for (const [tensor, { dtype, shape, bytes }] of original) {
      expect(written.get(tensor)).toMatchObject({ dtype, shape });
      expect(written.get(tensor)!.bytes.equals(bytes), tensor).toBe(true);
    }
  });

  test("writes numbers as they were spelled, since transformers 5 wants 1.0 and not 1", async () => {
    const base = visionFolder("dinov2");
    using model = await Model.fromPretrained(base);
    const dir = await newFolder();
    await model.save(dir);
    const text = await readFile(join(dir, "config.json"), "utf8");
    expect(text).toContain('"layerscale_value": 1.0,');
    expect(text).toBe(await readFile(join(base, "config.json"), "utf8"));
  });

  test("gives timm's configuration another number of labels where timm reads it", async () => {
    const options = { imageSize: 40, numLabels: 5, ignoreMismatchedSizes: true };
    using model = await Model.fromPretrained(visionFolder("densenet"), options);
    const dir = await newFolder();
    await model.save(dir);
    const config = JSON.parse(await readFile(join(dir, "config.json"), "utf8"));
    const names = ["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3", "LABEL_4"];
    expect(config).toMatchObject({ architecture: "densenet121", num_classes: 5 });
    expect(config.label_names).toEqual(names);
    expect(config.pretrained_cfg).toMatchObject({ num_classes: 5, classifier: "classifier" });
    expect(Object.keys(config)).not.toContain("architectures");
    using again = await Model.fromPretrained(dir, { imageSize: 40 });
    expect(again.id2label).toEqual(names);
  });

  test.each([
    ["F16", "base_f16", float16ToFloat32, 2 ** -11],
    ["BF16", "base_bf16", bfloat16ToFloat32, 2 ** -8],
  ] as const)("rounds a merged %s model and reports the largest rounding", async (...args) => {
    const [dtype, folder, widen, half] = args;
    const base = vitFolder("odd", folder);
    using model = await adapted(base);
    await model.mergeAdapter();
    const dir = await newFolder();
    const { largestRounding, weight } = await model.save(dir);
    const { dtype: written, bytes } = (await tensorsOf(dir)).get(weight)!;
    expect(written).toBe(dtype);
    const largest = widen(new Uint16Array(Uint8Array.from(bytes).buffer)).reduce(
      (worst, value) => Math.max(worst, Math.abs(value)),
      0,
    );
    expect(largestRounding).toBeGreaterThan(0);
    expect(largestRounding).toBeLessThanOrEqual(half * largest);
  });

  test("gives a bare backbone its prefix, its head in float32 and the class of its task", async () => {
    const base = join(await temporaryFolder(), "base");
    await cp(vitFolder("odd", "headless"), base, { recursive: true });
    const original = JSON.parse(await readFile(join(base, "config.json"), "utf8")) as object;
    await writeFile(join(base, "config.json"), JSON.stringify({ ...original, num_labels: 7 }));
    using model = await adapted(base, { numLabels: 4 });
    await model.mergeAdapter();
    const dir = await newFolder();
    await model.save(dir);
    const tensors = await tensorsOf(dir);
    expect([...tensors.keys()]).toContain("vit.encoder.layer.0.attention.attention.query.weight");
    expect(tensors.get("classifier.weight")).toMatchObject({ dtype: "F32", shape: [4, 48] });
    using again = await Model.fromPretrained(dir);
    expect(again.newWeights).toEqual([]);
    expect(again.id2label).toEqual(["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"]);
    const config = JSON.parse(await readFile(join(dir, "config.json"), "utf8"));
    expect(config).toMatchObject({
      architectures: ["ViTForImageClassification"],
      id2label: { 0: "LABEL_0", 3: "LABEL_3" },
      label2id: { LABEL_0: 0, LABEL_3: 3 },
    });
    expect(config.num_labels).toBeUndefined();
  });

  test("copies what prepares the inputs, and nothing else", async () => {
    const base = join(await temporaryFolder(), "base");
    await cp(BERT, base, { recursive: true });
    for (const name of ["tokenizer.json", "vocab.txt", "preprocessor_config.json", "notes.md"]) {
      await writeFile(join(base, name), name);
    }
    using model = await Model.fromPretrained(base);
    const dir = await newFolder();
    await model.save(dir);
    expect((await readdir(dir)).sort()).toEqual([
      "config.json",
      "model.safetensors",
      "preprocessor_config.json",
      "tokenizer.json",
      "vocab.txt",
    ]);
    expect(await readFile(join(dir, "vocab.txt"), "utf8")).toBe("vocab.txt");
  });

  test("leaves no tokenizer or shard of the model that it replaces", async () => {
    const dir = await newFolder();
    using first = await Model.fromPretrained(BERT);
    await first.save(dir);
    const shard = "model-00001-of-00002.safetensors";
    for (const name of ["tokenizer.json", "model.safetensors.index.json", shard, "notes.md"]) {
      await writeFile(join(dir, name), "of the former model");
    }
    await first.save(dir, { overwrite: true });
    expect((await readdir(dir)).sort()).toEqual(["config.json", "model.safetensors", "notes.md"]);
  });

  test("names the folder that the model came from when that is gone", async () => {
    const base = join(await temporaryFolder(), "base");
    await cp(BERT, base, { recursive: true });
    using model = await Model.fromPretrained(base);
    await rm(base, { recursive: true });
    const error = await errorOf("ERR_FILE_NOT_FOUND", async () => model.save(await newFolder()));
    expect(error.message).toContain(base);
  });

  test("may replace the folder that the model came from, and goes on", async () => {
    const base = join(await temporaryFolder(), "base");
    await cp(BERT, base, { recursive: true });
    using model = await adapted(base);
    await model.mergeAdapter();
    const before = await logitsOf(model);
    await errorOf("ERR_OUTPUT_EXISTS", () => model.save(base));
    await model.save(base, { overwrite: true });
    await model.save(base, { overwrite: true });
    expect(await logitsOf(model)).toEqual(before);
    using again = await Model.fromPretrained(base);
    expect(await logitsOf(again)).toEqual(before);
  });

  test("refuses a model with an adapter beside it, the folder of an adapter, bad arguments", async () => {
    using model = await adapted(BERT);
    const dir = await newFolder();
    const error = await errorOf("ERR_LORA_CONFIG", () => model.save(dir));
    expect(error.message).toContain("mergeAdapter");
    expect(error.message).toContain("saveAdapter");
    await model.saveAdapter(dir);
    await model.mergeAdapter();
    const mixed = await errorOf("ERR_OUTPUT_EXISTS", () => model.save(dir, { overwrite: true }));
    expect(mixed.message).toContain("holds adapter_config.json");
    await errorOf("ERR_OPTION", () => model.save(dir, { overwrite: 1 } as object));
    await errorOf("ERR_INPUT_TYPE", () => model.save(7 as unknown as string));
    model.dispose();
    await errorOf("ERR_DISPOSED", () => model.save(dir));
  });
});
