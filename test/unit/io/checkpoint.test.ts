import { copyFile, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

import { openCheckpoint } from "../../../lib/io/checkpoint.js";
import { readTensor } from "../../../lib/io/safetensors.js";
import { errorOf, safetensorsBytes, temporaryFolder } from "./helpers.js";

const fixtures = fileURLToPath(new URL("../../fixtures/vit/odd/", import.meta.url));

const u8 = (begin: number) => ({ dtype: "U8", shape: [1], data_offsets: [begin, begin + 1] });

async function checkpointFolder(files: Record<string, string | Uint8Array>): Promise<string> {
  const dir = await temporaryFolder();
  for (const [name, contents] of Object.entries({ "config.json": "{}", ...files })) {
    await writeFile(join(dir, name), contents);
  }
  return dir;
}

const indexOf = (weightMap: unknown) => JSON.stringify({ weight_map: weightMap });

describe("openCheckpoint", () => {
  test("opens a folder written by transformers", async () => {
    const { config, weights, dir } = await openCheckpoint(join(fixtures, "base"));
    expect(dir).toBe(join(fixtures, "base"));
    expect(config).toMatchObject({ model_type: "vit", hidden_size: 48 });
    const query = weights.get("vit.encoder.layer.0.attention.attention.query.weight")!;
    expect(query).toMatchObject({ dtype: "F32", shape: [48, 48], byteLength: 48 * 48 * 4 });
  });

  test("finds the same values in the shards as in the one file", async () => {
    const whole = await openCheckpoint(join(fixtures, "base"));
    const sharded = await openCheckpoint(join(fixtures, "base_sharded"));
    expect(new Set([...sharded.weights.values()].map(({ path }) => path)).size).toBe(4);
    expect([...sharded.weights.keys()].sort()).toEqual([...whole.weights.keys()].sort());
    for (const [name, info] of whole.weights) {
      expect(await readTensor(sharded.weights.get(name)!), name).toEqual(await readTensor(info));
    }
  });

  // Rounding to a significand of p bits changes a normal number by at most a factor of 2^-p; below the
  // smallest normal half float, 2^-14, the error is at most half the spacing of 2^-24.
  test.each([
    ["base_f16", 2 ** -11, 2 ** -25],
    ["base_bf16", 2 ** -8, 0],
  ])("reads the rounded weights of %s", async (folder, relative, absolute) => {
    const whole = await openCheckpoint(join(fixtures, "base"));
    const rounded = await openCheckpoint(join(fixtures, folder));
    let differences = 0;
    for (const [name, info] of whole.weights) {
      const expected = await readTensor(info);
      const actual = await readTensor(rounded.weights.get(name)!);
      expect(actual).toBeInstanceOf(Float32Array);
      expect(actual.length).toBe(expected.length);
      for (let i = 0; i < expected.length; i++) {
        const error = Math.abs(Number(actual[i]) - Number(expected[i]));
        if (error > 0) differences++;
        const bound = relative * Math.abs(Number(expected[i])) + absolute;
        if (!(error <= bound)) throw new Error(`${name}[${i}]: ${actual[i]}, not ${expected[i]}`);
      }
    }
    expect(differences).toBeGreaterThan(1000);
  });

  test("names a file that is missing", async () => {
    const dir = await temporaryFolder();
    const noConfig = await errorOf("ERR_FILE_NOT_FOUND", () => openCheckpoint(dir));
    expect(noConfig.message).toContain(join(dir, "config.json"));
    await writeFile(join(dir, "config.json"), "{}");
    const noWeights = await errorOf("ERR_FILE_NOT_FOUND", () => openCheckpoint(dir));
    expect(noWeights.message).toContain("model.safetensors.index.json");
    await errorOf("ERR_FILE_NOT_FOUND", () => openCheckpoint(join(dir, "no-such-folder")));
  });

  test.each(["pytorch_model.bin", "pytorch_model.bin.index.json"])(
    "says that %s must be converted",
    async (name) => {
      const dir = await checkpointFolder({ [name]: "x" });
      const error = await errorOf("ERR_UNSUPPORTED", () => openCheckpoint(dir));
      expect(error.message).toContain(`found only ${name}`);
      expect(error.message).toContain("save_pretrained");
    },
  );

  test("says how to convert a pickle so that its head is kept", async () => {
    for (const [config, words] of [
      [
        { architectures: ["ResNetForImageClassification"] },
        "ResNetForImageClassification.from_pre",
      ],
      [{ architecture: "resnet18" }, "timm.create_model("],
    ] as const) {
      const dir = await checkpointFolder({
        "config.json": JSON.stringify(config),
        "pytorch_model.bin": "x",
      });
      const error = await errorOf("ERR_UNSUPPORTED", () => openCheckpoint(dir));
      expect(error.message).toContain(words);
    }
  });

  test("prefers model.safetensors to an index, as transformers does", async () => {
    const dir = await checkpointFolder({
      "model.safetensors": safetensorsBytes({ a: u8(0) }, new Uint8Array(1)),
      "model.safetensors.index.json": "not read",
    });
    expect([...(await openCheckpoint(dir)).weights.keys()]).toEqual(["a"]);
  });

  test("takes exactly the weights that the index names", async () => {
    const dir = await checkpointFolder({
      "one.safetensors": safetensorsBytes({ a: u8(0), b: u8(1) }, new Uint8Array(2)),
      "two.safetensors": safetensorsBytes({ b: u8(0), c: u8(1) }, new Uint8Array(2)),
      "model.safetensors.index.json": indexOf({ a: "one.safetensors", b: "two.safetensors" }),
    });
    const { weights } = await openCheckpoint(dir);
    expect([...weights.keys()]).toEqual(["a", "b"]);
    expect(weights.get("b")!.path).toBe(join(dir, "two.safetensors"));
  });

  test("names the weight and the shard where a shard lacks a weight", async () => {
    const dir = await checkpointFolder({
      "one.safetensors": safetensorsBytes({ a: u8(0) }, new Uint8Array(1)),
      "model.safetensors.index.json": indexOf({ a: "one.safetensors", b: "one.safetensors" }),
    });
    const error = await errorOf("ERR_WEIGHT_MISSING", () => openCheckpoint(dir));
    expect(error.message).toContain(`${join(dir, "one.safetensors")}: expected the weight "b"`);
  });

  test("reports a missing and a truncated shard", async () => {
    const dir = await temporaryFolder();
    const source = join(fixtures, "base_sharded");
    const index = await readFile(join(source, "model.safetensors.index.json"), "utf8");
    const shards = new Set<string>(Object.values(JSON.parse(index).weight_map));
    for (const name of ["config.json", "model.safetensors.index.json", ...shards]) {
      await copyFile(join(source, name), join(dir, name));
    }
    const shard = join(dir, [...shards][1]!);
    const bytes = await readFile(shard);
    await writeFile(shard, bytes.subarray(0, -1));
    const truncated = await errorOf("ERR_SAFETENSORS_TRUNCATED", () => openCheckpoint(dir));
    expect(truncated.message).toContain(shard);
    await rm(shard);
    const missing = await errorOf("ERR_FILE_NOT_FOUND", () => openCheckpoint(dir));
    expect(missing.message).toContain(shard);
  });

  test.each([
    "../secret.safetensors",
    "/etc/secret.safetensors",
    "sub/one.safetensors",
    "..\\secret.safetensors",
    "C:secret.safetensors",
    "one.bin",
    ".safetensors\n",
    "",
    7,
    null,
  ])("refuses the shard name %j", async (shard) => {
    const dir = await checkpointFolder({
      "model.safetensors.index.json": indexOf({ a: shard }),
    });
    const error = await errorOf("ERR_CONFIG", () => openCheckpoint(dir));
    expect(error.message).toContain("plain name");
  });

  test.each(["[]", "null", '"x"'])("refuses the weight_map %s", async (map) => {
    const dir = await checkpointFolder({
      "model.safetensors.index.json": `{"weight_map":${map}}`,
    });
    await errorOf("ERR_CONFIG", () => openCheckpoint(dir));
  });

  test("refuses an index without a weight_map, also one hidden in __proto__", async () => {
    for (const text of ["{}", '{"__proto__":{"weight_map":{}}}']) {
      const dir = await checkpointFolder({ "model.safetensors.index.json": text });
      await errorOf("ERR_CONFIG", () => openCheckpoint(dir));
    }
  });
});
