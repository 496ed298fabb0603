import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { AdapterOptions } from "../../../lib/lora/config.js";
import { Model } from "../../../lib/model.js";
import type { ImageInputs } from "../../../lib/models/inputs.js";
import { AdamW } from "../../../lib/optim/gradient.js";
import { LoKO } from "../../../lib/optim/loko.js";
import { vitFolder } from "../../parity/fixtures.js";
import { expectError } from "./checkpoints.js";

// vit/odd: images [3, 16, 16], 7 labels.
const SAMPLE = 3 * 16 * 16;
function image(fill = 0.5): ImageInputs {
  return { pixelValues: new Float32Array(SAMPLE).fill(fill), shape: [1, 3, 16, 16] };
}
const LABEL = Int32Array.of(2);

describe("addAdapter refuses", () => {
  let model: Model;
  beforeEach(async () => {
    model = await Model.fromPretrained(vitFolder("odd"));
  });
  afterEach(() => model.dispose());

  test.each<[string, AdapterOptions, string, string[]]>([
    [
      "a target that matches nothing",
      { targetModules: ["qury"] },
      "ERR_TARGET_MODULES",
      ["targetModules", '"qury"', '"query"'],
    ],
    ["more parameters than can be", { r: 2 ** 31 }, "ERR_OUT_OF_MEMORY", ["n = ", "bytes", "r"]],
    [
      "a scale that float32 cannot hold",
      { loraAlpha: 1e300 },
      "ERR_LORA_CONFIG",
      ["loraAlpha", "float32", "1e+300"],
    ],
    [
      "a scale that is zero in float32",
      { loraAlpha: 1e-300 },
      "ERR_LORA_CONFIG",
      ["loraAlpha", "float32", "1e-300"],
    ],
    [
      "a layer norm",
      { targetModules: ["layernorm"] },
      "ERR_TARGET_MODULES",
      ['"layernorm" matches no module'],
    ],
    ["rank 0", { r: 0 }, "ERR_LORA_RANK", ["r must be", ">= 1", "got 0"]],
    [
      "a module to save that does not exist",
      { modulesToSave: ["head"] },
      "ERR_TARGET_MODULES",
      ["modulesToSave", '"head"'],
    ],
    [
      "a module to save that is not linear",
      { modulesToSave: ["layernorm"] },
      "ERR_UNSUPPORTED",
      ["modulesToSave", '"vit.layernorm"', "not a linear module"],
    ],
    [
      "an unknown option",
      { lora_alpha: 3 } as AdapterOptions,
      "ERR_LORA_CONFIG",
      ['"lora_alpha"', '"loraAlpha"'],
    ],
  ])("%s, and stays without an adapter", async (_, options, code, words) => {
    await expectError(() => model.addAdapter(options), code, ...words);
    expect(model.parameters()).toEqual([]);
    await model.addAdapter();
    expect(model.parameters().length).toBeGreaterThan(0);
  });

  test("changes of what it says about itself", async () => {
    await model.addAdapter();
    const parameters = model.parameters() as unknown as { name: string; shape: number[] }[];
    expect(() => parameters.pop()).toThrow(TypeError);
    expect(() => Object.assign(parameters[0]!, { name: "x" })).toThrow(TypeError);
    expect(() => parameters[0]!.shape.pop()).toThrow(TypeError);
    expect(() => (model.input as unknown as { shape: number[] }).shape.pop()).toThrow(TypeError);
    expect(() => (model.newWeights as string[]).push("x")).toThrow(TypeError);
    expect(() => (model.unusedWeights as string[]).push("x")).toThrow(TypeError);
  });

  test("a second adapter", async () => {
    await model.addAdapter();
    const theta = await model.readParameters();
    await expectError(
      () => model.addAdapter({ r: 2 }),
      "ERR_LORA_CONFIG",
      "already has an adapter",
    );
    expect(await model.readParameters()).toEqual(theta);
  });

  test("an optimizer and a Jacobian before there is something to train", async () => {
    const words = ["call addAdapter first"];
    await expectError(() => new LoKO(model), "ERR_NO_TRAINABLE_PARAMETERS", "LoKO", ...words);
    await expectError(() => new AdamW(model), "ERR_NO_TRAINABLE_PARAMETERS", "AdamW", ...words);
    await expectError(() => model.jacobian(image()), "ERR_NO_TRAINABLE_PARAMETERS", ...words);
  });
});

describe("a model with an adapter refuses, and keeps its parameters when it is given", () => {
  let model: Model;
  let before: Float32Array;
  beforeEach(async () => {
    model = await Model.fromPretrained(vitFolder("odd"));
    await model.addAdapter();
    // Not the untrained state, where B is zero.
    await new LoKO(model).step(image(), LABEL);
    before = await model.readParameters();
  });
  afterEach(async () => {
    expect(await model.readParameters()).toEqual(before);
    model.dispose();
  });

  const BAD_INPUTS: [string, unknown, string, string[]][] = [
    ["nothing", undefined, "ERR_INPUT_TYPE", ["{ pixelValues, shape }", "undefined"]],
    [
      "a plain array of pixels",
      { pixelValues: [1, 2], shape: [1, 3, 16, 16] },
      "ERR_INPUT_TYPE",
      ["pixelValues must be a Float32Array", "an array of 2"],
    ],
    [
      "pixels in a Float64Array",
      { pixelValues: new Float64Array(SAMPLE), shape: [1, 3, 16, 16] },
      "ERR_INPUT_TYPE",
      ["pixelValues must be a Float32Array", "a Float64Array"],
    ],
    [
      "pixels that only inherit from Float32Array",
      { pixelValues: Object.create(Float32Array.prototype), shape: [1, 3, 16, 16] },
      "ERR_INPUT_TYPE",
      ["pixelValues must be a Float32Array", "an object"],
    ],
    [
      "pixels whose length lies",
      {
        pixelValues: Object.defineProperty(new Float32Array(5), "length", { value: SAMPLE }),
        shape: [1, 3, 16, 16],
      },
      "ERR_SHAPE_MISMATCH",
      ["got 5"],
    ],
    [
      "an endless shape",
      { pixelValues: new Float32Array(SAMPLE), shape: new Array(2 ** 32 - 1) },
      "ERR_SHAPE_MISMATCH",
      ["[B, 3, 16, 16]", "an array of 4294967295"],
    ],
    [
      "a shape that is no array",
      { pixelValues: new Float32Array(SAMPLE), shape: "1,3,16,16" },
      "ERR_INPUT_TYPE",
      ["shape must be an array", '"1,3,16,16"'],
    ],
    [
      "an image of another size",
      { pixelValues: new Float32Array(3 * 18 * 16), shape: [1, 3, 18, 16] },
      "ERR_SHAPE_MISMATCH",
      ["[B, 3, 16, 16]", "[1, 3, 18, 16]"],
    ],
    [
      "an empty batch",
      { pixelValues: new Float32Array(0), shape: [0, 3, 16, 16] },
      "ERR_SHAPE_MISMATCH",
      ["B >= 1", "[0, 3, 16, 16]"],
    ],
    [
      "a shape without a batch",
      { pixelValues: new Float32Array(SAMPLE), shape: [3, 16, 16] },
      "ERR_SHAPE_MISMATCH",
      ["[B, 3, 16, 16]", "[3, 16, 16]"],
    ],
    [
      "fewer pixels than the shape says",
      { pixelValues: new Float32Array(SAMPLE - 1), shape: [1, 3, 16, 16] },
      "ERR_SHAPE_MISMATCH",
      [`${SAMPLE} elements`, `got ${SAMPLE - 1}`],
    ],
  ];

  test.each(BAD_INPUTS)("%s", async (_, inputs, code, words) => {
    const bad = inputs as ImageInputs;
    await expectError(() => model.forward(bad), code, ...words);
    await expectError(() => model.jacobian(bad), code, ...words);
    await expectError(() => new LoKO(model).step(bad, LABEL), code, ...words);
    await expectError(() => new AdamW(model).step(bad, LABEL), code, ...words);
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])(
    "%d in the input, saying where",
    async (value) => {
      const bad = image();
      bad.pixelValues[1 * 256 + 2 * 16 + 5] = value;
      const words = ["pixelValues", "element 293", "channel 1", "row 2", "column 5"];
      await expectError(() => model.forward(bad), "ERR_INPUT_NOT_FINITE", ...words);
      await expectError(() => model.jacobian(bad), "ERR_INPUT_NOT_FINITE", ...words);
      for (const optimizer of [new LoKO(model), new AdamW(model)]) {
        await expectError(() => optimizer.step(bad, LABEL), "ERR_INPUT_NOT_FINITE", ...words);
      }
    },
  );

  test.each<[string, unknown, string, string[]]>([
    [
      "a label above the range",
      Int32Array.of(7),
      "ERR_LABEL_RANGE",
      ["labels[0]", "[0, 7)", "got 7"],
    ],
    ["a negative label", Int32Array.of(-1), "ERR_LABEL_RANGE", ["labels[0]", "[0, 7)", "got -1"]],
    [
      "two labels for one sample",
      Int32Array.of(1, 2),
      "ERR_SHAPE_MISMATCH",
      ["1 samples", "got 2"],
    ],
    ["labels in a plain array", [1], "ERR_INPUT_TYPE", ["Int32Array", "an array of 1"]],
    [
      "labels that only inherit from Int32Array",
      Object.create(Int32Array.prototype),
      "ERR_INPUT_TYPE",
      ["Int32Array", "an object"],
    ],
    [
      "labels whose length lies",
      Object.defineProperty(Int32Array.of(1, 2), "length", { value: 1 }),
      "ERR_SHAPE_MISMATCH",
      ["1 samples", "got 2"],
    ],
    ["no labels", undefined, "ERR_INPUT_TYPE", ["Int32Array", "undefined"]],
  ])("%s", async (_, labels, code, words) => {
    for (const optimizer of [new LoKO(model), new AdamW(model)]) {
      await expectError(() => optimizer.step(image(), labels as Int32Array), code, ...words);
    }
  });

  test("nothing twice: each property of the inputs is read once", async () => {
    let reads = 0;
    const once = {
      get pixelValues() {
        return reads++ === 0 ? image().pixelValues : (undefined as unknown as Float32Array);
      },
      shape: [1, 3, 16, 16],
    };
    await expect(model.forward(once)).resolves.toBeDefined();
    expect(reads).toBe(1);
    reads = 0;
    await expect(model.jacobian(once)).resolves.toBeDefined();
  });

  test("a label out of range anywhere in a batch, saying where", async () => {
    const batch = { pixelValues: new Float32Array(3 * SAMPLE), shape: [3, 3, 16, 16] };
    await expectError(
      () => new AdamW(model).step(batch, Int32Array.of(0, 6, 9)),
      "ERR_LABEL_RANGE",
      "labels[2]",
      "[0, 7)",
      "got 9",
    );
  });

  test("float targets of the wrong kind, length or value", async () => {
    const regression = new LoKO(model, { observation: "regression" });
    const values = new Float32Array(7);
    await expectError(() => new LoKO(model).step(image(), values), "ERR_INPUT_TYPE", "Int32Array");
    await expectError(() => regression.step(image(), LABEL), "ERR_INPUT_TYPE", "Float32Array");
    await expectError(
      () => regression.step(image(), new Float32Array(6)),
      "ERR_SHAPE_MISMATCH",
      "1 x 7",
      "got 6",
    );
    values[3] = Number.NaN;
    for (const optimizer of [regression, new AdamW(model)]) {
      await expectError(
        () => optimizer.step(image(), values),
        "ERR_INPUT_NOT_FINITE",
        "targets[3]",
      );
    }
  });

  test("parameters of the wrong type, length or value", async () => {
    const n = before.length;
    const bad = before.slice();
    bad[n - 1] = Number.NaN;
    await expectError(
      () => model.writeParameters([...before] as unknown as Float32Array),
      "ERR_INPUT_TYPE",
      "Float32Array",
      "an array",
    );
    await expectError(
      () => model.writeParameters(before.subarray(1)),
      "ERR_SHAPE_MISMATCH",
      `${n} values`,
      `got ${n - 1}`,
    );
    await expectError(
      () => model.writeParameters(bad),
      "ERR_INPUT_NOT_FINITE",
      `values[${n - 1}]`,
      "NaN",
    );
  });

  test("a second operation while one runs, on every method", async () => {
    const optimizer = new AdamW(model);
    const second: (() => Promise<unknown>)[] = [
      () => model.forward(image()),
      () => model.jacobian(image()),
      () => optimizer.step(image(), LABEL),
      () => model.readParameters(),
      () => model.writeParameters(new Float32Array(before.length)),
    ];
    for (const start of second) {
      const running = model.forward(image());
      await expectError(start, "ERR_MODEL_BUSY", "still running", "await that one");
      await expect(running).resolves.toBeDefined();
    }
  });
});

describe("a result that does not fit into memory", () => {
  test("is an error with its shape, and the model goes on", async () => {
    // 65,536 outputs times 3 million parameters: 800 GB.
    const options = { device: "ref", numLabels: 2 ** 16 } as const;
    using model = await Model.fromPretrained(vitFolder("odd", "headless"), options);
    await model.addAdapter({ r: 1 });
    await expectError(
      () => model.jacobian(image()),
      "ERR_OUT_OF_MEMORY",
      "[1, 65536, ",
      "smaller batch",
    );
    using logits = await model.forward(image());
    expect(logits.size).toBe(2 ** 16);
  });
});

describe("a disposed model", () => {
  test("refuses everything, and dispose may be repeated", async () => {
    const model = await Model.fromPretrained(vitFolder("odd"));
    await model.addAdapter();
    const optimizer = new LoKO(model);
    const n = model.parameters().reduce((sum, { size }) => sum + size, 0);
    model.dispose();
    model.dispose();

    const uses: (() => unknown)[] = [
      () => model.forward(image()),
      () => model.jacobian(image()),
      () => model.parameters(),
      () => model.readParameters(),
      () => model.writeParameters(new Float32Array(n)),
      () => model.addAdapter(),
      () => optimizer.step(image(), LABEL),
      () => new AdamW(model),
    ];
    for (const use of uses) {
      await expectError(use, "ERR_DISPOSED", "after dispose()");
    }
  });

  test("still settles what was running", async () => {
    const model = await Model.fromPretrained(vitFolder("odd"));
    await model.addAdapter();
    const running = model.jacobian(image());
    model.dispose();
    const jacobian = await running;
    expect(jacobian.dataSync().some((value) => value !== 0)).toBe(true);
  });

  test("is what `using` leaves behind", async () => {
    let outside: Model;
    {
      using model = await Model.fromPretrained(vitFolder("odd"));
      outside = model;
      await model.forward(image());
    }
    await expectError(() => outside.forward(image()), "ERR_DISPOSED");
  });
});
