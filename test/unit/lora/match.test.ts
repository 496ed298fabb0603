import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";

import { type AdapterOptions, resolveAdapterOptions } from "../../../lib/lora/config.js";
import {
  loraParameterName,
  resolveModulesToSave,
  resolveTargets,
  savedParameterName,
} from "../../../lib/lora/match.js";
import type { LinearModule } from "../../../lib/lora/modules.js";
import { errorOf } from "../io/helpers.js";

const linear = (path: string): LinearModule => ({ path, inFeatures: 48, outFeatures: 80 });

const vitLayer = (index: number) =>
  [
    "attention.attention.query",
    "attention.attention.key",
    "attention.attention.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
  ].map((name) => `vit.encoder.layer.${index}.${name}`);
const vitPaths = [...vitLayer(0), ...vitLayer(1), "classifier"];
const vit = vitPaths.map(linear);

function targets(options: AdapterOptions, modules = vit) {
  return resolveTargets(modules, "classifier", resolveAdapterOptions(options, "vit"));
}

interface PeftCase {
  modules: string;
  options: Record<string, unknown>;
  sites: [path: string, r: number, alpha: number, scale: number][];
}

// Written by fixtures/make_peft_matching.py from PEFT's own functions.
const peft: { modules: Record<string, string[]>; cases: PeftCase[] } = JSON.parse(
  readFileSync(new URL("fixtures/peft-matching.json", import.meta.url), "utf8"),
);

describe("resolveTargets", () => {
  test.each(peft.cases)("chooses, ranks and scales as PEFT: $options", (peftCase) => {
    const camelCase = Object.entries(peftCase.options).map(([key, value]) => [
      key.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase()),
      value,
    ]);
    // PEFT's default saves no module, so it excludes none.
    const options = { modulesToSave: [], ...Object.fromEntries(camelCase) };
    const sites = targets(options, peft.modules[peftCase.modules]!.map(linear));
    expect(sites.map(({ path, r, alpha }) => [path, r, alpha])).toEqual(
      peftCase.sites.map(([path, r, alpha]) => [path, r, alpha]),
    );
    for (const [i, [, , , scale]] of peftCase.sites.entries()) {
      // One square root and one division: a few units in the last place.
      expect(Math.abs(sites[i]!.scale / scale - 1)).toBeLessThan(1e-15);
    }
  });

  test("adapts query and value of a ViT by default, r = alpha = 8, and keeps the shapes", () => {
    const sites = targets({});
    expect(sites.map(({ path }) => path)).toEqual(
      vitPaths.filter((path) => /query|value/.test(path)),
    );
    expect(sites[0]).toEqual({ ...linear(vitPaths[0]!), r: 8, alpha: 8, scale: 1 });
  });

  test("takes every linear module but the head for all-linear, whatever is saved", () => {
    for (const modulesToSave of [undefined, [], ["classifier"]]) {
      const options = { targetModules: "all-linear", ...(modulesToSave && { modulesToSave }) };
      expect(targets(options).map(({ path }) => path)).toEqual(vitPaths.slice(0, -1));
    }
  });

  test("takes no part of a head that has several for all-linear", () => {
    const modules = ["a.query", "classifier.dense", "classifier.out_proj"].map(linear);
    const options = { targetModules: "all-linear", modulesToSave: [] };
    expect(targets(options, modules).map(({ path }) => path)).toEqual(["a.query"]);
  });

  test("lists the nearest names for an entry that matches nothing", async () => {
    const error = await errorOf("ERR_TARGET_MODULES", () => targets({ targetModules: ["qurey"] }));
    expect(error.message).toBe(
      'targetModules: "qurey" matches no module; the nearest names are "query", "key", "value".',
    );
  });

  test("refuses every dead entry, also beside live ones", async () => {
    const error = await errorOf("ERR_TARGET_MODULES", () =>
      targets({ targetModules: ["query", "q_proj", "attention.valeu"] }),
    );
    expect(error.message).toContain('"q_proj" matches no module');
    expect(error.message).toContain(
      '"attention.valeu" matches no module; the nearest names are "attention.value"',
    );
    expect(error.message).not.toContain('"query" matches no module');
  });

  test("does not match a part of a segment, nor the middle of a path", async () => {
    await errorOf("ERR_TARGET_MODULES", () => targets({ targetModules: ["uery"] }));
    await errorOf("ERR_TARGET_MODULES", () => targets({ targetModules: ["attention"] }));
    await errorOf("ERR_TARGET_MODULES", () => targets({ targetModules: "query" }));
  });

  test.each<[string, AdapterOptions]>([
    ["excludeModules", { targetModules: ["query", "value"], excludeModules: ["query"] }],
    ["modulesToSave", { targetModules: ["query", "classifier"] }],
    ["layersToTransform", { targetModules: ["query"], layersToTransform: [7] }],
  ])("says so where %s leaves out everything an entry selects", async (_, options) => {
    const error = await errorOf("ERR_TARGET_MODULES", () => targets(options));
    expect(error.message).toContain("exists, but");
  });

  test("refuses rank and alpha patterns without effect", async () => {
    for (const options of [{ rankPattern: { key: 4 } }, { alphaPattern: { key: 4 } }]) {
      const error = await errorOf("ERR_TARGET_MODULES", () => targets(options));
      expect(error.message).toContain(`${Object.keys(options)[0]}: "key" matches no module`);
    }
  });

  test("refuses a regular expression that matches nothing", async () => {
    await errorOf("ERR_TARGET_MODULES", () => targets({ targetModules: ".*q_proj" }));
  });
});

describe("resolveModulesToSave", () => {
  const paths = [
    ...vitPaths.slice(0, -1),
    "vit.layernorm",
    "classifier.dense",
    "classifier.out_proj",
  ];
  const saved = (options: AdapterOptions, head = "classifier") =>
    resolveModulesToSave(paths, head, resolveAdapterOptions(options, "vit"));

  test("saves the head by default, with everything inside it", () => {
    expect(saved({})).toEqual(["classifier.dense", "classifier.out_proj"]);
    expect(saved({}, "classifier.out_proj")).toEqual(["classifier.out_proj"]);
  });

  test("saves nothing for an empty list, and what a list names in the order of the model", () => {
    expect(saved({ modulesToSave: [] })).toEqual([]);
    expect(saved({ modulesToSave: ["out_proj", "layernorm"] })).toEqual([
      "vit.layernorm",
      "classifier.out_proj",
    ]);
  });

  test("matches whole segments only", async () => {
    await errorOf("ERR_TARGET_MODULES", () => saved({ modulesToSave: ["class"] }));
    await errorOf("ERR_TARGET_MODULES", () => saved({ modulesToSave: ["norm"] }));
  });

  test("refuses a dead entry with the nearest names", async () => {
    const error = await errorOf("ERR_TARGET_MODULES", () =>
      saved({ modulesToSave: ["classifier", "layer_norm"] }),
    );
    expect(error.message).toContain(
      'modulesToSave: "layer_norm" matches no module; the nearest names are "layernorm"',
    );
  });
});

test("parameters have PEFT's names", () => {
  // As in adapter_model.safetensors of test/fixtures/vit/odd/adapter, written by PEFT.
  const bytes = readFileSync(
    new URL("../../fixtures/vit/odd/adapter/adapter_model.safetensors", import.meta.url),
  );
  const length = Number(bytes.readBigUInt64LE());
  const keys = Object.keys(JSON.parse(bytes.subarray(8, 8 + length).toString()));
  const modules = [0, 1, 2].flatMap(vitLayer).map(linear);
  const names = targets({}, [...modules, linear("classifier")]).flatMap(({ path }) => [
    loraParameterName(path, "A"),
    loraParameterName(path, "B"),
  ]);
  names.push(savedParameterName("classifier", "weight"), savedParameterName("classifier", "bias"));
  expect(names.sort()).toEqual(keys.filter((key) => key !== "__metadata__").sort());
});
