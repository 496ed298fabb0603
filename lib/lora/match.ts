import { describe, LokoError, nearestNames } from "../errors.js";
import type { AdapterConfig } from "./config.js";
import { type LoraSite, requireExpressible, type TargetModule } from "./modules.js";
import { compilePattern } from "./pattern.js";

/**
 * Chooses the modules to adapt, by PEFT's rules (`check_target_module_exists` and `get_pattern_key` in
 * huggingface/peft 0.21), in the order of `modules`. Unlike PEFT, an entry that selects nothing is an
 * error even when others select something, and so is a rank or alpha pattern without effect.
 *
 * @param modules - every module of the model that can be adapted, the output head included.
 * @param headPath - path of the output head, which "all-linear" leaves out.
 * @throws LokoError ERR_TARGET_MODULES naming each dead entry and the nearest names; ERR_LORA_CONFIG
 * for a scale that float32 cannot hold; ERR_UNSUPPORTED for a convolution that PEFT cannot express.
 */
export function resolveTargets(
  modules: readonly TargetModule[],
  headPath: string,
  config: AdapterConfig,
): LoraSite[] {
  const sites = selectTargets(modules, headPath, config);
  const chosen = sites.map(({ path }) => path);
  const paths = modules.map(({ path }) => path);
  const { targetModules } = config;
  if (typeof targetModules === "string") {
    if (chosen.length === 0) {
      throw isAllLinear(targetModules)
        ? noLinears(paths)
        : deadEntries("targetModules", [targetModules], paths);
    }
  } else {
    const dead = targetModules.filter((name) => !chosen.some((path) => endsWith(path, name)));
    if (dead.length > 0) throw deadEntries("targetModules", dead, paths);
  }
  for (const option of ["rankPattern", "alphaPattern"] as const) {
    const dead = compilePatterns(config, option)
      .filter(({ pattern }) => !chosen.some((path) => pattern.test(path)))
      .map(({ key }) => key);
    if (dead.length > 0) throw deadEntries(option, dead, chosen);
  }
  return sites;
}

/**
 * As {@link resolveTargets}, but like PEFT: entries and patterns that select nothing are no error, as a
 * file from elsewhere may hold them.
 *
 * @throws LokoError ERR_LORA_CONFIG for a scale that float32 cannot hold; ERR_UNSUPPORTED for a convolution
 * that PEFT cannot express.
 */
export function selectTargets(
  modules: readonly TargetModule[],
  headPath: string,
  config: AdapterConfig,
): LoraSite[] {
  const saved = config.modulesToSave ?? [headPath];
  const isExcluded = modulePredicate(config.excludeModules, "excludeModules");
  const isTarget = targetPredicate(config, headPath);
  const rankOf = patternLookup(config, "rankPattern", config.r);
  const alphaOf = patternLookup(config, "alphaPattern", config.loraAlpha);
  return modules
    .filter(({ path }) => !isExcluded(path) && !saved.some((name) => isWithin(path, name)))
    .filter(isTarget)
    .map((module) => {
      const r = rankOf(module.path);
      requireExpressible(module, r);
      const alpha = alphaOf(module.path);
      const scale = alpha / (config.useRslora ? Math.sqrt(r) : r);
      requireFloat32(scale, alpha, module.path);
      return { ...module, r, alpha, scale };
    });
}

/** Native code computes in float32: an infinite scale ruins each step, one of 0 trains nothing. */
function requireFloat32(scale: number, alpha: number, path: string): void {
  const rounded = Math.fround(scale);
  if (rounded > 0 && Number.isFinite(rounded)) return;
  throw new LokoError(
    "ERR_LORA_CONFIG",
    `loraAlpha ${alpha} gives ${describe(path)} the scale ${scale}, which is ${rounded} in float32; ` +
      "it must be finite and > 0 there.",
  );
}

/**
 * Chooses the modules to train and save in full, in the order of `paths`.
 *
 * @param paths - every module of the model that has parameters of its own.
 * @param headPath - path of the output head, the default choice.
 * @throws LokoError ERR_TARGET_MODULES naming each entry of `modulesToSave` that selects nothing.
 */
export function resolveModulesToSave(
  paths: readonly string[],
  headPath: string,
  config: AdapterConfig,
): string[] {
  const names = config.modulesToSave ?? [headPath];
  const dead = names.filter((name) => !paths.some((path) => isWithin(path, name)));
  if (dead.length > 0) throw deadEntries("modulesToSave", dead, paths);
  return paths.filter((path) => names.some((name) => isWithin(path, name)));
}

/** The name of a LoRA matrix in PEFT's `adapter_model.safetensors`. */
export function loraParameterName(path: string, matrix: "A" | "B"): string {
  return `base_model.model.${path}.lora_${matrix}.weight`;
}

/** The name of a parameter of a fully trained module in PEFT's `adapter_model.safetensors`. */
export function savedParameterName(path: string, parameter: "weight" | "bias"): string {
  return `base_model.model.${path}.${parameter}`;
}

/** The name of a trained bias beside a frozen weight: PEFT wraps an adapted module around its base. */
export function biasParameterName(path: string, isAdapted: boolean): string {
  return `base_model.model.${path}.${isAdapted ? "base_layer.bias" : "bias"}`;
}

/** Whether `path` is the module called `name` by its last segments. */
export function endsWith(path: string, name: string): boolean {
  return path === name || path.endsWith(`.${name}`);
}

/** Whether `path` is the module called `name` or lies inside it: whole segments, anywhere. */
export function isWithin(path: string, name: string): boolean {
  return `.${path}.`.includes(`.${name}.`);
}

function modulePredicate(
  modules: string | readonly string[],
  option: string,
): (path: string) => boolean {
  if (typeof modules !== "string") return (path) => modules.some((name) => endsWith(path, name));
  const pattern = compilePattern(modules, option);
  return (path) => pattern.test(path);
}

/** PEFT's word for every linear module but the head; convolutions are none. */
function isAllLinear(targets: string): boolean {
  return targets.toLowerCase() === "all-linear";
}

function targetPredicate(
  config: AdapterConfig,
  headPath: string,
): (module: TargetModule) => boolean {
  const { targetModules, layersToTransform: layers } = config;
  if (typeof targetModules === "string" && isAllLinear(targetModules)) {
    return ({ path, convolution }) => convolution === undefined && !isWithin(path, headPath);
  }
  const matches = modulePredicate(targetModules, "targetModules");
  if (layers === null) return ({ path }) => matches(path);

  // As in PEFT: the first numbered segment is the layer, and a full path in the list ignores layers.
  const patterns =
    config.layersPattern.length === 0
      ? [/^.*?\.[^.]*\.(?<layer>\d+)\./]
      : config.layersPattern.map((segment) =>
          compilePattern(
            segment,
            "layersPattern",
            (pattern) => `^(?:|.*?\\.)(?:${pattern})\\.(?<layer>\\d+)\\.`,
          ),
        );
  return ({ path }) => {
    if (targetModules.includes(path)) return true;
    if (!matches(path)) return false;
    const found = patterns.map((pattern) => pattern.exec(path)).find((match) => match !== null);
    return found !== undefined && layers.includes(Number(found.groups?.layer));
  };
}

type PatternOption = "rankPattern" | "alphaPattern";

function compilePatterns(config: AdapterConfig, option: PatternOption) {
  return Object.entries(config[option]).map(([key, value]) => ({
    key,
    value,
    pattern: compilePattern(key, option, (pattern) => `^(?:.*\\.)?(?:${pattern})$`),
  }));
}

/** A lookup of per-module values: the first pattern that fits the end of the path, else the default. */
function patternLookup(
  config: AdapterConfig,
  option: PatternOption,
  fallback: number,
): (path: string) => number {
  const compiled = compilePatterns(config, option);
  return (path) => compiled.find(({ pattern }) => pattern.test(path))?.value ?? fallback;
}

/** Says which entries selected nothing, and why where the name itself exists. */
function deadEntries(
  option: string,
  entries: readonly string[],
  paths: readonly string[],
): LokoError {
  const reasons = entries.map((entry) => {
    if (option !== "modulesToSave" && paths.some((path) => endsWith(path, entry))) {
      return `${describe(entry)} exists, but excludeModules, modulesToSave or layersToTransform leave it out`;
    }
    // Compared with as many of the last segments as the entry has: "qury" with "query", and not with
    // the whole path of one module.
    const depth = entry.split(".").length;
    const suffixes = paths.map((path) => path.split(".").slice(-depth).join("."));
    const near = nearestNames(entry, suffixes).map(describe).join(", ");
    return `${describe(entry)} matches no module; the nearest names are ${near}`;
  });
  return new LokoError("ERR_TARGET_MODULES", `${option}: ${reasons.join("; ")}.`);
}

function noLinears(paths: readonly string[]): LokoError {
  const convolutions = paths.slice(0, 3).map(describe).join(", ");
  return new LokoError(
    "ERR_TARGET_MODULES",
    `targetModules: "all-linear" selects nothing, since the model has no linear module but those that are ` +
      `trained in full or excluded. Name its convolutions, as ${convolutions}.`,
  );
}
