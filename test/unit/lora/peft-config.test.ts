import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";

import { LokoError } from "../../../lib/errors.js";
import { resolveAdapterOptions } from "../../../lib/lora/config.js";
import { formatPeftConfig, parsePeftConfig } from "../../../lib/lora/peft-config.js";
import { FIXTURES } from "../../parity/fixtures.js";
import { errorOf } from "../io/helpers.js";

const written = (family: string, name: string): Record<string, unknown> =>
  JSON.parse(readFileSync(join(FIXTURES, "peft", family, name, "adapter_config.json"), "utf8"));

const parse = (json: object, modelType = "bert") =>
  parsePeftConfig(json as Record<string, unknown>, modelType);

describe("parsePeftConfig", () => {
  test("reads what PEFT writes", () => {
    expect(parse(written("bert", "patterns"))).toEqual({
      adapter: {
        r: 3,
        loraAlpha: 5,
        targetModules: ["query", "value"],
        excludeModules: [],
        layersToTransform: null,
        layersPattern: [],
        rankPattern: { value: 4 },
        alphaPattern: { query: 7.5 },
        useRslora: false,
        modulesToSave: ["classifier", "score"],
        initLoraWeights: true,
        bias: "none",
      },
      taskType: "SEQ_CLS",
      baseModel: "../base",
      loraDropout: 0,
      unknownKeys: [],
    });
    expect(parse(written("bert", "dropout")).loraDropout).toBe(0.25);
    expect(parse(written("bert", "rslora")).adapter.useRslora).toBe(true);
    expect(parse(written("bert", "layers")).adapter.layersToTransform).toEqual([1]);
  });

  test("needs nothing but the type, and has PEFT's defaults and targets", () => {
    const { adapter, taskType, baseModel } = parse({ peft_type: "LORA" });
    const defaults = resolveAdapterOptions({ modulesToSave: [] }, "bert");
    expect(adapter).toEqual(defaults);
    expect([taskType, baseModel]).toEqual([null, null]);
  });

  test("passes over unknown keys that are off, and lists those that hold something", () => {
    const off = { a: null, b: false, c: {}, d: [], e: "" };
    const on = { f: true, g: 1, h: "x", i: { j: null }, k: 0 };
    const { unknownKeys } = parse({ peft_type: "LORA", ...off, ...on });
    expect(unknownKeys).toEqual(["f", "g", "h", "i", "k"]);
  });

  test.each([
    ["use_dora", true],
    ["lora_bias", true],
    ["fan_in_fan_out", true],
    ["use_qalora", true],
    ["ensure_weight_tying", true],
    ["layer_replication", [[0, 1]]],
    ["megatron_config", { a: 1 }],
    ["target_parameters", ["w"]],
    ["trainable_token_indices", [1]],
    ["alora_invocation_tokens", [1, 2]],
    ["loftq_config", { loftq_bits: 4 }],
    ["eva_config", { rho: 2 }],
    ["corda_config", { a: 1 }],
    ["lora_ga_config", { a: 1 }],
    ["arrow_config", { a: 1 }],
    ["kasa_config", { a: 1 }],
    ["monteclora_config", { a: 1 }],
    ["velora_config", { a: 1 }],
    ["use_bdlora", { a: 1 }],
    ["peft_type", "ADALORA"],
    ["peft_type", "IA3"],
    ["task_type", "TOKEN_CLS"],
    ["task_type", "CAUSAL_LM"],
    ["init_lora_weights", "pissa"],
    ["init_lora_weights", "pissa_niter_4"],
    ["init_lora_weights", "olora"],
    ["init_lora_weights", "corda"],
    ["init_lora_weights", "loftq"],
    ["init_lora_weights", "eva"],
    ["init_lora_weights", "lora_ga"],
  ])("refuses %s %j by its name", async (key, value) => {
    const error = await errorOf("ERR_UNSUPPORTED", () =>
      parse({ peft_type: "LORA", [key]: value }),
    );
    expect(error.message).toContain(`"${key}": `);
  });

  test.each([true, false, "gaussian", "orthogonal"])("reads factors that began as %j", (init) => {
    expect(() => parse({ peft_type: "LORA", init_lora_weights: init })).not.toThrow();
  });

  test.each([
    ["peft_type", undefined],
    ["peft_type", 3],
    ["r", 0],
    ["r", "8"],
    ["lora_alpha", "8"],
    ["lora_alpha", null],
    ["r", null],
    ["lora_alpha", 0],
    ["lora_dropout", "0.1"],
    ["lora_dropout", 2],
    ["target_modules", [3]],
    ["target_modules", "("],
    ["exclude_modules", { a: 1 }],
    ["layers_to_transform", [-1]],
    ["layers_pattern", "layer"],
    ["rank_pattern", { query: 0 }],
    ["alpha_pattern", { query: "x" }],
    ["modules_to_save", "classifier"],
    ["bias", "some"],
    ["use_rslora", 1],
  ])("refuses %s: %j and names the key of the file", async (key, value) => {
    const error = await errorOf("ERR_ADAPTER_FORMAT", () =>
      parse({ peft_type: "LORA", [key]: value }),
    );
    expect(error.message).toContain(key);
    expect(error.message).toContain("adapter_config.json");
  });
});

test("any JSON in any key is understood or refused with a code", () => {
  const keys = fc.constantFrom(...Object.keys(written("bert", "plain")), "another");
  const value = fc.oneof(
    fc.jsonValue(),
    fc.constantFrom(0, -1, 1.5, "", "(", "query", ["query"], [1], { query: 1 }, { "(": 2 }, {}),
  );
  fc.assert(
    fc.property(fc.dictionary(keys, value), (edits) => {
      try {
        parse({ peft_type: "LORA", ...edits });
      } catch (error) {
        expect(error).toBeInstanceOf(LokoError);
        const { code } = error as LokoError;
        expect(["ERR_ADAPTER_FORMAT", "ERR_UNSUPPORTED"]).toContain(code);
      }
    }),
    { numRuns: 2000 },
  );
});

describe("formatPeftConfig", () => {
  const text = formatPeftConfig(resolveAdapterOptions({ r: 3, loraAlpha: 5 }, "bert"), {
    base_model_name_or_path: "../base",
    task_type: "SEQ_CLS",
    auto_mapping: null,
    modules_to_save: ["classifier", "score"],
    targets: {
      target_modules: ["query", "value"],
      exclude_modules: null,
      layers_to_transform: null,
      layers_pattern: null,
      rank_pattern: {},
      alpha_pattern: {},
    },
  });

  test("writes the very file that PEFT writes for the same adapter", () => {
    const reference = readFileSync(join(FIXTURES, "peft/bert/plain/adapter_config.json"), "utf8");
    // JavaScript has one kind of number.
    expect(text).toBe(reference.replace('"lora_dropout": 0.0', '"lora_dropout": 0'));
  });
});
