import { describe, expect, test } from "vitest";

import { type AdapterOptions, resolveAdapterOptions } from "../../../lib/lora/config.js";
import { compilePattern } from "../../../lib/lora/pattern.js";
import { errorOf } from "../io/helpers.js";

const resolve = (options: object, modelType = "vit") =>
  resolveAdapterOptions(options as AdapterOptions, modelType);

describe("resolveAdapterOptions", () => {
  test("fills in PEFT's defaults and the targets of the model type", () => {
    const defaults = {
      r: 8,
      loraAlpha: 8,
      targetModules: ["query", "value"],
      excludeModules: [],
      layersToTransform: null,
      layersPattern: [],
      rankPattern: {},
      alphaPattern: {},
      useRslora: false,
      modulesToSave: null,
      initLoraWeights: true,
      bias: "none",
    };
    expect(resolve({})).toEqual(defaults);
    expect(resolve({}, "bert")).toEqual(defaults);
    expect(resolve({}, "roberta")).toEqual(defaults);
    expect(resolve({ r: undefined, targetModules: undefined, bias: undefined })).toEqual(defaults);
  });

  test("keeps what is given", () => {
    const options = {
      r: 3,
      loraAlpha: 4.5,
      targetModules: ["key"],
      excludeModules: "vit.*",
      layersToTransform: 2,
      layersPattern: "layer",
      rankPattern: { key: 1 },
      alphaPattern: { key: 0.5 },
      useRslora: true,
      modulesToSave: [],
      initLoraWeights: "gaussian",
      bias: "lora_only",
    };
    expect(resolve({ ...options, loraDropout: 0 })).toEqual({
      ...options,
      layersToTransform: [2],
      layersPattern: ["layer"],
    });
  });

  test.each(["loraAlpha", "useRslora", "initLoraWeights", "rankPattern", "alphaPattern"])(
    "takes null for %s as a mistake and not as the default",
    async (name) => {
      const error = await errorOf("ERR_LORA_CONFIG", () => resolve({ [name]: null }));
      expect(error.message).toContain(`${name} must be`);
    },
  );

  test("names an unknown option and the nearest known one", async () => {
    const cases = { rank: "r", lora_alpha: "loraAlpha", targetModule: "targetModules" };
    for (const [key, near] of Object.entries(cases)) {
      const error = await errorOf("ERR_LORA_CONFIG", () => resolve({ [key]: 1 }));
      expect(error.message).toBe(`Unknown adapter option "${key}"; did you mean "${near}"?`);
    }
    await errorOf("ERR_LORA_CONFIG", () => resolve(JSON.parse('{"__proto__":{"r":1}}')));
  });

  test.each([0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, "8", null])(
    "refuses the rank %j, also in a pattern",
    async (r) => {
      const own = await errorOf("ERR_LORA_RANK", () => resolve({ r }));
      expect(own.message).toContain("r must be an integer >= 1");
      const error = await errorOf("ERR_LORA_RANK", () => resolve({ rankPattern: { query: r } }));
      expect(error.message).toContain('rankPattern["query"] must be an integer >= 1');
    },
  );

  test.each([
    [{ loraAlpha: 0 }],
    [{ loraAlpha: "8" }],
    [{ loraAlpha: Number.NaN }],
    [{ alphaPattern: { query: -1 } }],
    [{ alphaPattern: [] }],
    [{ rankPattern: "query" }],
    [{ rankPattern: { "(": 1 } }],
    [{ targetModules: 7 }],
    [{ targetModules: ["query", ""] }],
    [{ targetModules: ["query", 3] }],
    [{ targetModules: "(query" }],
    [{ targetModules: "query)|(value" }],
    [{ excludeModules: "*" }],
    [{ excludeModules: {} }],
    [{ layersToTransform: -1 }],
    [{ layersToTransform: [] }],
    [{ layersToTransform: [0.5] }],
    [{ layersPattern: "layer" }],
    [{ layersToTransform: 1, layersPattern: "(" }],
    [{ layersToTransform: 1, targetModules: ".*query" }],
    [{ useRslora: 1 }],
    [{ modulesToSave: "classifier" }],
    [{ modulesToSave: [1] }],
    [{ initLoraWeights: "pissa" }],
    [{ loraDropout: "0" }],
    [{ loraDropout: 1 }],
    [{ bias: "some" }],
  ])("refuses %j and names the option", async (options) => {
    const error = await errorOf("ERR_LORA_CONFIG", () => resolve(options));
    expect(error.message).toContain(Object.keys(options).at(-1));
  });

  test("says that dropout is not supported", async () => {
    await errorOf("ERR_UNSUPPORTED", () => resolve({ loraDropout: 0.1 }));
  });

  test("refuses to go without targets", async () => {
    await errorOf("ERR_TARGET_MODULES", () => resolve({ targetModules: [] }));
    await errorOf("ERR_TARGET_MODULES", () => resolve({ targetModules: "" }));
    const error = await errorOf("ERR_TARGET_MODULES", () => resolve({}, "swin"));
    expect(error.message).toContain('"swin" has no default');
    expect(resolve({ targetModules: ["query"] }, "swin").targetModules).toEqual(["query"]);
  });

  test("refuses options that are no object", async () => {
    for (const options of [null, [], "r=8"]) {
      await errorOf("ERR_LORA_CONFIG", () => resolve(options as unknown as object));
    }
  });
});

describe("compilePattern", () => {
  test("must match the whole text, each alternative as well", () => {
    const pattern = compilePattern("a|b.", "option");
    expect(["a", "bc", "ab", "xa", "b"].map((text) => pattern.test(text))).toEqual([
      true,
      true,
      false,
      false,
      false,
    ]);
  });

  test("understands Python's spellings, and leaves escaped ones alone", () => {
    expect(compilePattern(String.raw`\A(?P<n>x)\Z`, "option").test("x")).toBe(true);
    expect(compilePattern(String.raw`\\A`, "option").test("\\A")).toBe(true);
    expect(compilePattern(String.raw`\(?P<?`, "option").test("(P<")).toBe(true);
  });
});
