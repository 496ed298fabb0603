import fc from "fast-check";
import { describe, expect, test } from "vitest";

import { type AdapterOptions, resolveAdapterOptions } from "../../../lib/lora/config.js";
import { type Dialect, dialectsOf } from "../../../lib/lora/dialect.js";
import { resolveTargets, selectTargets } from "../../../lib/lora/match.js";
import type { PeftTargets } from "../../../lib/lora/peft-config.js";
import { describeTargets } from "../../../lib/lora/peft-targets.js";

const MODULES = [
  "attention.attention.query",
  "attention.attention.key",
  "attention.attention.value",
  "attention.output.dense",
  "intermediate.dense",
  "output.dense",
];
const LAYERS = 12;
const linears = [
  ...Array.from({ length: LAYERS }, (_, layer) =>
    MODULES.map((name) => `vit.encoder.layer.${layer}.${name}`),
  ).flat(),
  "classifier",
].map((path) => ({ path, inFeatures: 4, outFeatures: 4 }));

const [v4, v5] = dialectsOf("vit") as [Dialect, Dialect];

/** What is written for `options`, after a look whether PEFT selects the same with it. */
function targetsOf(options: AdapterOptions, dialects: readonly Dialect[]): PeftTargets {
  const config = resolveAdapterOptions(options, "vit");
  const saved = options.modulesToSave === undefined ? ["classifier"] : [...options.modulesToSave];
  const sites = resolveTargets(linears, "classifier", config);
  const targets = describeTargets(
    { config, sites, saved, modules: linears, head: "classifier" },
    dialects,
  );
  for (const dialect of dialects) {
    const renamed = linears.map((module) => ({
      ...module,
      path: dialect.fromCheckpoint(module.path),
    }));
    const read = resolveAdapterOptions(
      {
        r: config.r,
        loraAlpha: config.loraAlpha,
        targetModules: targets.target_modules,
        excludeModules: targets.exclude_modules ?? [],
        ...(targets.layers_to_transform && { layersToTransform: targets.layers_to_transform }),
        ...(targets.layers_pattern && { layersPattern: targets.layers_pattern }),
        rankPattern: targets.rank_pattern,
        alphaPattern: targets.alpha_pattern,
        modulesToSave: saved.map((path) => dialect.fromCheckpoint(path)),
      },
      "vit",
    );
    expect(selectTargets(renamed, "classifier", read)).toEqual(
      sites.map((site) => ({ ...site, path: dialect.fromCheckpoint(site.path) })),
    );
  }
  return targets;
}

const NONE = {
  exclude_modules: null,
  layers_to_transform: null,
  layers_pattern: null,
  rank_pattern: {},
  alpha_pattern: {},
};

describe("describeTargets", () => {
  test("repeats what the user said where there is one naming", () => {
    const options = {
      targetModules: ["query", "dense"],
      excludeModules: ".*intermediate.*",
      layersToTransform: [1, 3],
      layersPattern: "layer",
      rankPattern: { query: 2 },
      alphaPattern: { dense: 3 },
    };
    expect(targetsOf(options, [v4])).toEqual({
      target_modules: ["query", "dense"],
      exclude_modules: ".*intermediate.*",
      layers_to_transform: [1, 3],
      layers_pattern: ["layer"],
      rank_pattern: { query: 2 },
      alpha_pattern: { dense: 3 },
    });
    const regex = ".*layer\\.[12]\\..*query";
    expect(targetsOf({ targetModules: regex }, [v4])).toEqual({ ...NONE, target_modules: regex });
  });

  test("adds the other naming's names to a list", () => {
    const options = { rankPattern: { query: 2 } };
    expect(targetsOf(options, [v4, v5])).toEqual({
      ...NONE,
      target_modules: ["query", "value", "q_proj", "v_proj"],
      rank_pattern: { q_proj: 2, query: 2 },
    });
    expect(targetsOf({ targetModules: ["output.dense"] }, [v4, v5]).target_modules).toEqual([
      "output.dense",
      "o_proj",
      "fc2",
    ]);
  });

  test("writes only version 5 names when that is asked for", () => {
    expect(targetsOf({}, [v5])).toEqual({ ...NONE, target_modules: ["q_proj", "v_proj"] });
  });

  test("writes all-linear as a list, as PEFT does", () => {
    expect(targetsOf({ targetModules: "all-linear" }, [v4, v5]).target_modules).toEqual([
      "query",
      "key",
      "value",
      "dense",
      ...["q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"],
    ]);
  });

  test("writes parts of paths where a regular expression takes some of the layers in two namings", () => {
    const { target_modules } = targetsOf({ targetModules: ".*layer\\.(1|11)\\..*key" }, [v4, v5]);
    expect(target_modules).toEqual([
      "1.attention.attention.key",
      "11.attention.attention.key",
      "1.attention.k_proj",
      "11.attention.k_proj",
    ]);
  });

  test("writes other patterns where the order in which PEFT sorts them would change a rank", () => {
    // "layer.0.*query" sorts before "query", and the user's first pattern wins.
    const options = { rankPattern: { query: 2, "layer\\.0\\..*query": 3, value: 4 } };
    // The second can never win: PEFT's order would make it.
    expect(targetsOf(options, [v4]).rank_pattern).toEqual({ query: 2, value: 4 });
  });

  test("means the same for PEFT whatever is asked for, in every naming", () => {
    const name = fc.constantFrom("query", "value", "dense", "output.dense", "0.output.dense");
    const pattern = fc.constantFrom(
      ...["query", "layer\\.1\\..*", ".*attention.*", "1.output.dense", "[a-q].*", ".*dense"],
    );
    const options = fc.record(
      {
        targetModules: fc.oneof(
          fc.uniqueArray(name, { minLength: 1 }),
          fc.constantFrom("all-linear", ".*(query|dense)", ".*layer\\.1?1\\..*"),
        ),
        excludeModules: fc.oneof(fc.uniqueArray(name), pattern),
        rankPattern: fc.dictionary(pattern, fc.integer({ min: 1, max: 9 }), {
          noNullPrototype: true,
        }),
        alphaPattern: fc.dictionary(pattern, fc.integer({ min: 1, max: 9 }), {
          noNullPrototype: true,
        }),
        layersToTransform: fc.uniqueArray(fc.nat(LAYERS - 1), { minLength: 1 }),
      },
      { requiredKeys: ["targetModules"] },
    );
    const dialects = fc.constantFrom([v4], [v5], [v4, v5]);
    let checked = 0;
    fc.assert(
      fc.property(options, dialects, (given, chosen) => {
        try {
          resolveTargets(linears, "classifier", resolveAdapterOptions(given, "vit"));
        } catch {
          return; // options that select nothing are refused before anything could be written
        }
        targetsOf(given, chosen);
        checked++;
      }),
      { numRuns: 1000 },
    );
    expect(checked).toBeGreaterThan(100);
  });
});
