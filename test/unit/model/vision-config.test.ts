import { afterEach, describe, expect, test } from "vitest";
import { LokoError } from "../../../lib/errors.js";
import { AdamW, Model, type ModelOptions } from "../../../lib/index.js";
import { openCheckpoint } from "../../../lib/io/checkpoint.js";
import { architectureOf } from "../../../lib/models/architecture.js";
import { findWeights } from "../../../lib/models/weights.js";
import { type VisionCase, visionFolder } from "../../parity/fixtures.js";
import { CheckpointCopy, expectError } from "./checkpoints.js";

let copies: CheckpointCopy[] = [];
afterEach(() => {
  for (const copy of copies) copy[Symbol.dispose]();
  copies = [];
});

function copyOf(name: VisionCase): CheckpointCopy {
  const copy = new CheckpointCopy(visionFolder(name));
  copies.push(copy);
  return copy;
}

type Config = Record<string, unknown>;

describe("Model.fromPretrained refuses", () => {
  test.each<[string, VisionCase, Config, string, string[]]>([
    [
      "another activation in a ResNet",
      "resnet_basic",
      { hidden_act: "gelu" },
      "ERR_UNKNOWN_ACTIVATION",
      ['"hidden_act" must be "relu"', '"gelu"'],
    ],
    [
      "another type of layer",
      "resnet_basic",
      { layer_type: "fancy" },
      "ERR_CONFIG",
      ['"layer_type"', '"bottleneck"'],
    ],
    [
      "stages of two lengths",
      "resnet_basic",
      { depths: [1, 2, 3] },
      "ERR_CONFIG",
      ['"hidden_sizes" and "depths"', "2 and 3"],
    ],
    ["depths that are no list", "resnet_basic", { depths: 3 }, "ERR_CONFIG", ['"depths"', "array"]],
    [
      "a depth that would take forever",
      "resnet_basic",
      { depths: [1, 2 ** 40] },
      "ERR_CONFIG",
      ['"depths"', "between 1 and 256"],
    ],
    [
      "a stem without a width",
      "resnet_basic",
      { embedding_size: null },
      "ERR_CONFIG",
      ['"embedding_size"', "null"],
    ],
    [
      "a SwiGLU",
      "dinov2",
      { use_swiglu_ffn: true },
      "ERR_UNSUPPORTED",
      ['"use_swiglu_ffn"', "giant"],
    ],
    [
      "images with two sizes",
      "dinov2",
      { image_size: [20, 20] },
      "ERR_UNSUPPORTED",
      ['"image_size"'],
    ],
    ["an mlp_ratio of text", "dinov2", { mlp_ratio: "4" }, "ERR_CONFIG", ['"mlp_ratio"']],
    [
      "timm arguments that change the net",
      "timm_resnet18",
      { model_args: { output_stride: 8 } },
      "ERR_UNSUPPORTED",
      ['"output_stride"', "8"],
    ],
    [
      "another pooling",
      "timm_resnet18",
      { global_pool: "max" },
      "ERR_UNSUPPORTED",
      ['"global_pool"', '"max"'],
    ],
    [
      "too few stages",
      "timm_resnet18",
      { model_args: { layers: [1, 1] } },
      "ERR_CONFIG",
      ['"model_args"', '"layers"', "4 integers"],
    ],
    [
      "arguments that are no object",
      "densenet",
      { model_args: [1] },
      "ERR_CONFIG",
      ['"model_args"', "an object"],
    ],
    [
      "a growth rate of zero",
      "densenet",
      { model_args: { growth_rate: 0 } },
      "ERR_CONFIG",
      ['"growth_rate"'],
    ],
    [
      "a net that is not known",
      "timm_resnet18",
      { architecture: "resnet50d" },
      "ERR_UNKNOWN_MODEL_TYPE",
      ['"architecture"', '"resnet50"', '"densenet121"', '"resnet50d"'],
    ],
    [
      "no number of classes",
      "densenet",
      { num_classes: undefined },
      "ERR_CONFIG",
      ['"num_classes"', "absent"],
    ],
    [
      "an unknown pooling in a LeNet",
      "lenet",
      { pooling: "sum" },
      "ERR_CONFIG",
      ['"pooling"', '"average"'],
    ],
    [
      "three convolutions in a LeNet",
      "lenet",
      { conv_channels: [1, 2, 3] },
      "ERR_CONFIG",
      ['"conv_channels"', "2 integers"],
    ],
  ])("%s", async (_, name, changes, code, words) => {
    const copy = copyOf(name);
    copy.editConfig((config) => Object.assign(config, changes));
    await expectError(() => Model.fromPretrained(copy.dir), code, copy.config, ...words);
  });

  test("a missing running statistic, naming the nearest", async () => {
    const copy = copyOf("resnet_basic");
    const name = "resnet.embedder.embedder.normalization.running_var";
    copy.editHeader((header) => {
      header[name.replace("_var", "_variance")] = header[name]!;
      delete header[name];
    });
    await expectError(
      () => Model.fromPretrained(copy.dir),
      "ERR_WEIGHT_MISSING",
      copy.weights,
      `"${name}" of shape [6]`,
      "running_variance",
    );
  });

  test("weights of another width", async () => {
    const copy = copyOf("resnet_basic");
    copy.editConfig((config) => {
      config.hidden_sizes = [6, 12];
    });
    const name = "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight";
    const expected = [`"${name}" of shape [12,6,1,1]`, "got [10,6,1,1]"];
    await expectError(() => Model.fromPretrained(copy.dir), "ERR_WEIGHT_SHAPE", ...expected);
  });

  test("a count of batches that is no integer of 64 bits", async () => {
    const copy = copyOf("timm_resnet18");
    copy.editHeader((header) => {
      header["bn1.num_batches_tracked"]!.dtype = "U64";
    });
    const words = [copy.weights, "bn1.num_batches_tracked", "U64"];
    await expectError(() => Model.fromPretrained(copy.dir), "ERR_UNSUPPORTED", ...words);
  });

  test.each<[string, string, ModelOptions, string, string[]]>([
    [
      "images too small for a net",
      visionFolder("densenet"),
      { imageSize: 8 },
      "ERR_SHAPE_MISMATCH",
      ["imageSize 8x8", "densenet121"],
    ],
    [
      "images that patches do not fill",
      visionFolder("dinov2"),
      { imageSize: [12, 14] },
      "ERR_SHAPE_MISMATCH",
      ["patch size 4", "12x14"],
    ],
    [
      "images of another size in a LeNet",
      visionFolder("lenet"),
      { imageSize: 32 },
      "ERR_SHAPE_MISMATCH",
      ['"image_size" 28', "32x32"],
    ],
    [
      "an imageSize for texts",
      visionFolder("dino").replace(/vision.*/, "peft/bert/base"),
      { imageSize: 32 },
      "ERR_OPTION",
      ["imageSize", "texts"],
    ],
    [
      "an imageSize of three numbers",
      visionFolder("densenet"),
      { imageSize: [3, 32, 32] as never },
      "ERR_OPTION",
      ["imageSize", "[height, width]"],
    ],
    ["an imageSize of 0", visionFolder("densenet"), { imageSize: 0 }, "ERR_OPTION", ["imageSize"]],
    [
      "labels that the head does not have",
      visionFolder("resnet_basic"),
      { numLabels: 5 },
      "ERR_NUM_LABELS",
      ["numLabels 5", "3 labels", "classifier.1.weight"],
    ],
    [
      "labels that timm's head does not have",
      visionFolder("timm_resnet18"),
      { numLabels: 7 },
      "ERR_NUM_LABELS",
      ["numLabels 7", "fc.weight"],
    ],
  ])("%s", async (_, dir, options, code, words) => {
    await expectError(() => Model.fromPretrained(dir, options), code, ...words);
  });
});

describe("heads", () => {
  test.each<[VisionCase, string]>([
    ["resnet_basic", "classifier.1"],
    ["timm_resnet50", "fc"],
    ["densenet", "classifier"],
    ["lenet", "fc3"],
    ["dinov2", "classifier"],
  ])("of %s are replaced where that is allowed", async (name, head) => {
    const imageSize = name === "dinov2" || name === "lenet" ? {} : { imageSize: 40 };
    const options = { numLabels: 9, ignoreMismatchedSizes: true, ...imageSize };
    using model = await Model.fromPretrained(visionFolder(name), options);
    expect(model.newWeights).toEqual([`${head}.weight`, `${head}.bias`]);
    expect(model.id2label).toHaveLength(9);
  });

  test.each([
    ["densenet", "classifier"],
    ["timm_resnet18", "fc"],
  ] as const)("of %s without classes are new", async (name, head) => {
    const copy = copyOf(name);
    copy.editConfig((config) => {
      config.num_classes = 0;
    });
    copy.editHeader((header) => {
      for (const part of ["weight", "bias"]) {
        header[`head.${part}`] = header[`${head}.${part}`]!;
        delete header[`${head}.${part}`];
      }
    });
    using model = await Model.fromPretrained(copy.dir, { numLabels: 4, imageSize: 40 });
    expect(model.newWeights).toEqual([`${head}.weight`, `${head}.bias`]);
    expect(model.numLabels).toBe(4);
  });

  test("of a timm model have the names of its labels", async () => {
    const copy = copyOf("densenet");
    copy.editConfig((config) => {
      config.label_names = ["a", "b", "c"];
    });
    using model = await Model.fromPretrained(copy.dir, { imageSize: 40 });
    expect(model.id2label).toEqual(["a", "b", "c"]);
  });

  test("refuse labels that they do not have", async () => {
    using model = await Model.fromPretrained(visionFolder("lenet"));
    await model.addAdapter();
    const inputs = { pixelValues: new Float32Array(28 * 28), shape: [1, 1, 28, 28] };
    await expectError(
      () => new AdamW(model, { lr: 1e-3 }).step(inputs, Int32Array.of(4)),
      "ERR_LABEL_RANGE",
      "[0, 4)",
    );
  });
});

test("images must have the size that the model was loaded for", async () => {
  using model = await Model.fromPretrained(visionFolder("resnet_basic"), { imageSize: [32, 40] });
  expect(model.input).toEqual({ kind: "image", shape: [3, 32, 40] });
  const inputs = { pixelValues: new Float32Array(3 * 32 * 32), shape: [1, 3, 32, 32] };
  await expectError(
    () => model.forward(inputs),
    "ERR_SHAPE_MISMATCH",
    "[B, 3, 32, 40]",
    "imageSize",
  );
});

describe("any JSON in any key of a configuration", () => {
  const VALUES = [
    null,
    true,
    0,
    -1,
    1.5,
    3,
    255,
    1e9,
    1e300,
    "",
    "relu",
    [],
    [0],
    [2, 2],
    [1, 2, 3, 4],
    [1e9, 1e9, 1e9, 1e9],
    {},
    { layers: 1 },
    { in_chans: 1e9 },
    { layers: [200, 200, 200, 200] },
  ];

  test.each<VisionCase>([
    "resnet_basic",
    "resnet_bottleneck",
    "timm_resnet18",
    "timm_resnet50",
    "densenet",
    "lenet",
    "dinov2",
    "dino",
  ])("of %s is understood or refused with a code, at once", async (name) => {
    const checkpoint = await openCheckpoint(visionFolder(name));
    const started = performance.now();
    for (const key of [...Object.keys(checkpoint.config), "model_args", "label_names"]) {
      for (const value of VALUES) {
        const config = { ...checkpoint.config, [key]: value };
        try {
          const changed = { ...checkpoint, config };
          const definition = architectureOf(changed).define(changed);
          findWeights(definition, changed, { numLabels: undefined, ignoreMismatchedSizes: false });
        } catch (error) {
          expect(error, `${key}: ${JSON.stringify(value)}`).toBeInstanceOf(LokoError);
          expect((error as LokoError).code).not.toBe("ERR_INTERNAL");
        }
      }
    }
    // Some 500 definitions; a number in a file must not decide how long one takes.
    expect(performance.now() - started).toBeLessThan(10_000);
  });
});
