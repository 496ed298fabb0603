import { rmSync, truncateSync, writeFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Model, type ModelOptions } from "../../../lib/model.js";
import { vitFolder } from "../../parity/fixtures.js";
import { CheckpointCopy, expectError, openFilesIn } from "./checkpoints.js";

const QUERY = "vit.encoder.layer.1.attention.attention.query.weight";

describe("Model.fromPretrained refuses", () => {
  let copy: CheckpointCopy;
  beforeEach(() => {
    copy = new CheckpointCopy();
  });
  afterEach(async () => {
    // A model whose loading failed frees its files on its own thread.
    for (let i = 0; i < 200 && openFilesIn(copy.dir).length > 0; i++) await setTimeout(10);
    expect(openFilesIn(copy.dir)).toEqual([]);
    copy[Symbol.dispose]();
  });

  function expectRefusal(code: string, words: string[], options?: ModelOptions) {
    return expectError(() => Model.fromPretrained(copy.dir, options), code, ...words);
  }

  test("a folder that does not exist", async () => {
    await expectError(
      () => Model.fromPretrained(`${copy.dir}/none`),
      "ERR_FILE_NOT_FOUND",
      `${copy.dir}/none`,
      "config.json",
    );
  });

  test("a file in place of the folder", async () => {
    await expectError(
      () => Model.fromPretrained(copy.config),
      "ERR_FILE_NOT_FOUND",
      copy.config,
      "expected a folder",
    );
  });

  test("more layers than the checkpoint holds, before it builds them", async () => {
    copy.editConfig((config) => {
      config.num_hidden_layers = 2 ** 20;
    });
    const started = performance.now();
    await expectRefusal("ERR_WEIGHT_MISSING", [copy.config, "1048576 layers", "holds 3"]);
    expect(performance.now() - started).toBeLessThan(1000);
  });

  test("the folder of an adapter", async () => {
    const dir = vitFolder("odd", "adapter");
    await expectError(() => Model.fromPretrained(dir), "ERR_FILE_NOT_FOUND", dir, "loadAdapter");
  });

  test("a folder without weights", async () => {
    rmSync(copy.weights);
    await expectRefusal("ERR_FILE_NOT_FOUND", [copy.dir, "model.safetensors", "found neither"]);
  });

  test("a truncated weight file", async () => {
    truncateSync(copy.weights, 50_000);
    await expectRefusal("ERR_SAFETENSORS_TRUNCATED", [copy.weights, "50000"]);
  });

  test("a weight file shorter than its length field", async () => {
    truncateSync(copy.weights, 5);
    await expectRefusal("ERR_SAFETENSORS_TRUNCATED", [copy.weights, "5"]);
  });

  test("a header longer than the file", async () => {
    copy.writeWeights("{}", new Uint8Array(0), 1_000_000);
    await expectRefusal("ERR_SAFETENSORS_HEADER", [copy.weights, "1000000"]);
  });

  test("overlapping tensors", async () => {
    copy.editHeader((header) => {
      const { data_offsets, shape } = header["classifier.bias"]!;
      header[QUERY] = { dtype: "F32", shape, data_offsets };
    });
    await expectRefusal("ERR_SAFETENSORS_OFFSETS", [copy.weights]);
  });

  test("offsets behind the end of the file", async () => {
    copy.editHeader((header) => {
      const entries = Object.values(header).filter((entry) => entry.data_offsets !== undefined);
      const last = entries.reduce((a, b) => (a.data_offsets[1] > b.data_offsets[1] ? a : b));
      last.data_offsets[1] += 4000;
      last.shape = [(last.data_offsets[1] - last.data_offsets[0]) / 4];
    });
    await expectRefusal("ERR_SAFETENSORS_TRUNCATED", [copy.weights]);
  });

  test("an unknown data type", async () => {
    copy.editHeader((header) => {
      header["classifier.bias"]!.dtype = "F99";
    });
    await expectRefusal("ERR_UNKNOWN_DTYPE", [copy.weights, "classifier.bias", "F99"]);
  });

  test("a data type that a model cannot be read from", async () => {
    copy.editHeader((header) => {
      header["classifier.bias"]!.dtype = "I32";
    });
    await expectRefusal("ERR_UNSUPPORTED", [copy.weights, "classifier.bias", "I32", "BF16"]);
  });

  test("a missing weight", async () => {
    copy.editHeader((header) => {
      header[QUERY.replace("query", "qury")] = header[QUERY]!;
      delete header[QUERY];
    });
    await expectRefusal("ERR_WEIGHT_MISSING", [
      copy.weights,
      `"${QUERY}" of shape [48,48]`,
      `nearest unused name is "${QUERY.replace("query", "qury")}"`,
    ]);
  });

  test("a weight of the wrong shape", async () => {
    copy.editConfig((config) => {
      config.intermediate_size = 90;
    });
    await expectRefusal("ERR_WEIGHT_SHAPE", [
      copy.weights,
      copy.config,
      '"vit.encoder.layer.0.intermediate.dense.weight" of shape [90,48]',
      "got [80,48]",
    ]);
  });

  test("an unknown model type", async () => {
    copy.editConfig((config) => {
      config.model_type = "swin";
    });
    await expectRefusal("ERR_UNKNOWN_MODEL_TYPE", [copy.config, '"vit"', 'got "swin"']);
  });

  test("an unknown activation", async () => {
    copy.editConfig((config) => {
      config.hidden_act = "silu";
    });
    await expectRefusal("ERR_UNKNOWN_ACTIVATION", [copy.config, '"gelu_new"', 'got "silu"']);
  });

  test.each([
    ["a hidden size that the heads do not divide", "num_attention_heads", 5, "multiple"],
    ["a patch size that does not divide the image", "patch_size", 3, "multiple"],
    ["a size that is not a number", "hidden_size", "48", "an integer"],
    ["a size of null", "num_hidden_layers", null, "an integer"],
    ["an id2label that is no mapping", "id2label", 7, "class indices"],
  ])("%s", async (_, key, value, words) => {
    copy.editConfig((config) => {
      config[key] = value;
    });
    await expectRefusal("ERR_CONFIG", [copy.config, `"${key}"`, words]);
  });

  test("an absent size", async () => {
    copy.editConfig((config) => {
      delete config.hidden_size;
    });
    await expectRefusal("ERR_CONFIG", [copy.config, '"hidden_size"', "absent"]);
  });

  test("a configuration that is not JSON", async () => {
    writeFileSync(copy.config, "{");
    await expectRefusal("ERR_CONFIG", [copy.config]);
  });

  test("numLabels that does not fit the head", async () => {
    await expectRefusal(
      "ERR_NUM_LABELS",
      ["numLabels 10", copy.weights, "7 labels", "ignoreMismatchedSizes"],
      { numLabels: 10 },
    );
  });

  test("an unknown option, naming the nearest", async () => {
    await expectRefusal("ERR_OPTION", ['"numLabel"', '"numLabels"'], {
      numLabel: 3,
    } as ModelOptions);
  });

  test.each([
    ["threads", -1, "integer in [0, 1024]"],
    ["seed", 1.5, "integer >= 0"],
    ["numLabels", 0, "integer in [1"],
    ["device", "tpu", '"auto", "cpu", "cuda", "ref"'],
  ])("%s %j", async (name, value, words) => {
    await expectRefusal("ERR_OPTION", [name, words, String(value)], {
      [name]: value,
    } as ModelOptions);
  });
});

describe("Model.fromPretrained", () => {
  test("replaces a head of another size where that is allowed", async () => {
    using copy = new CheckpointCopy();
    using model = await Model.fromPretrained(copy.dir, {
      numLabels: 10,
      ignoreMismatchedSizes: true,
    });
    expect(model.numLabels).toBe(10);
    expect(model.newWeights).toEqual(["classifier.weight", "classifier.bias"]);
  });

  test("reports weights that the model does not use", async () => {
    using copy = new CheckpointCopy();
    copy.editHeader((header) => {
      // Empty tensors may lie anywhere, so that nothing overlaps.
      for (const name of ["vit.pooler.dense.bias", "surprise"]) {
        header[name] = { dtype: "F32", shape: [0], data_offsets: [0, 0] };
      }
    });
    using model = await Model.fromPretrained(copy.dir);
    expect(model.unusedWeights).toEqual(["surprise"]);
  });
});
