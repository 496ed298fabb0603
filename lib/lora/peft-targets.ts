// Which modules an adapter adapts, said so that PEFT selects the same ones in every naming of the model.

import type { AdapterConfig } from "./config.js";
import type { Dialect } from "./dialect.js";
import { endsWith, selectTargets } from "./match.js";
import type { LoraSite, TargetModule } from "./modules.js";
import type { PeftTargets } from "./peft-config.js";

/** What a description of targets is made from; all paths are those of checkpoints. */
export interface TargetedModel {
  readonly config: AdapterConfig;
  /** What `config` selects. */
  readonly sites: readonly LoraSite[];
  /** Modules trained in full. */
  readonly saved: readonly string[];
  /** Every module of the model that can be adapted. */
  readonly modules: readonly TargetModule[];
  readonly head: string;
}

/**
 * The target keys of `adapter_config.json`: as the user gave them, where PEFT then selects the same
 * modules, ranks and scales in every dialect; else lists of the shortest names that do.
 */
export function describeTargets(model: TargetedModel, dialects: readonly Dialect[]): PeftTargets {
  const given = asGiven(model, dialects);
  const isExact = dialects.every((dialect) => selectsTheSame(model, given, dialect));
  return isExact ? given : listed(model, dialects);
}

/** The user's own keys, with names for the dialects that the user did not speak. */
function asGiven(model: TargetedModel, [spoken, ...others]: readonly Dialect[]): PeftTargets {
  const { targetModules, excludeModules, layersToTransform, layersPattern } = model.config;
  const added = listed(model, others);
  return {
    target_modules: givenNames(model, spoken!, others, added.target_modules),
    exclude_modules: excludeModules.length === 0 ? null : excludeModules,
    layers_to_transform: typeof targetModules === "string" ? null : layersToTransform,
    layers_pattern: layersPattern.length === 0 ? null : layersPattern,
    rank_pattern: sortKeys({ ...model.config.rankPattern, ...added.rank_pattern }),
    alpha_pattern: sortKeys({ ...model.config.alphaPattern, ...added.alpha_pattern }),
  };
}

function givenNames(
  model: TargetedModel,
  spoken: Dialect,
  others: readonly Dialect[],
  added: readonly string[],
): string | readonly string[] {
  const { targetModules } = model.config;
  if (typeof targetModules !== "string") return [...new Set([...targetModules, ...added])];
  // PEFT itself replaces "all-linear" by a list, and nothing can be added to a regular expression.
  const isPattern = targetModules.toLowerCase() !== "all-linear";
  if (isPattern && others.length === 0) return targetModules;
  return [...listed(model, [spoken]).target_modules, ...added];
}

interface ListedTargets extends PeftTargets {
  readonly target_modules: readonly string[];
}

/** Lists of names and nothing else, for each dialect its own. */
function listed(
  { config, sites, modules }: TargetedModel,
  dialects: readonly Dialect[],
): ListedTargets {
  const pathsOf = (those: readonly TargetModule[], dialect: Dialect) =>
    those.map(({ path }) => dialect.fromCheckpoint(path));
  const patterns = (key: "r" | "alpha", usual: number) =>
    dialects.flatMap((dialect) =>
      [...new Set(sites.map((site) => site[key]))]
        .filter((value) => value !== usual)
        .flatMap((value) => {
          const those = sites.filter((site) => site[key] === value);
          const names = shortestNames(pathsOf(those, dialect), pathsOf(sites, dialect));
          return names.map((name): [string, number] => [name, value]);
        }),
    );
  return {
    target_modules: dialects.flatMap((dialect) =>
      shortestNames(pathsOf(sites, dialect), pathsOf(modules, dialect)),
    ),
    exclude_modules: null,
    layers_to_transform: null,
    layers_pattern: null,
    rank_pattern: sortKeys(Object.fromEntries(patterns("r", config.r))),
    alpha_pattern: sortKeys(Object.fromEntries(patterns("alpha", config.loraAlpha))),
  };
}

/** The fewest last segments that select `paths` and nothing else of `all`. */
function shortestNames(paths: readonly string[], all: readonly string[]): string[] {
  const wanted = new Set(paths);
  const others = all.filter((path) => !wanted.has(path));
  const names: string[] = [];
  for (const path of paths) {
    if (names.some((name) => endsWith(path, name))) continue;
    const segments = path.split(".");
    const suffixes = segments.map((_, i) => segments.slice(segments.length - 1 - i).join("."));
    names.push(suffixes.find((name) => !others.some((other) => endsWith(other, name))) ?? path);
  }
  return names;
}

/** PEFT sorts the keys whenever it saves, and the first pattern that fits wins. */
function sortKeys(patterns: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(patterns).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Whether PEFT would select with `targets` exactly the sites of the model in this dialect. */
function selectsTheSame(model: TargetedModel, targets: PeftTargets, dialect: Dialect): boolean {
  const rename = (path: string) => dialect.fromCheckpoint(path);
  const modules = model.modules.map((module) => ({ ...module, path: rename(module.path) }));
  const selected = selectTargets(modules, model.head, {
    ...model.config,
    targetModules: targets.target_modules,
    excludeModules: targets.exclude_modules ?? [],
    layersToTransform: targets.layers_to_transform,
    layersPattern: targets.layers_pattern ?? [],
    rankPattern: targets.rank_pattern,
    alphaPattern: targets.alpha_pattern,
    modulesToSave: model.saved.map(rename),
  });
  return (
    selected.length === model.sites.length &&
    model.sites.every(({ path, r, alpha }, i) => {
      const other = selected[i]!;
      return other.path === rename(path) && other.r === r && other.alpha === alpha;
    })
  );
}
