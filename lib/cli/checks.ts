// What options of a command line cannot be given together. All of it is refused before a model is loaded.

import { isAbsolute, relative, resolve, sep } from "node:path";
import { LokoError } from "../errors.js";

/** The flag of an option: `--batch-size` of `batchSize`. */
export function flagOf(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** @throws LokoError ERR_OPTION for the first option that is given though another excludes it. */
export function refuseTogether(
  options: object,
  name: string,
  excluded: readonly string[],
  reason: string,
): void {
  const values = options as Record<string, unknown>;
  const bad = excluded.find((other) => values[other] !== undefined);
  if (values[name] === undefined || bad === undefined) return;
  throw optionError(`${flagOf(bad)} cannot be given with ${flagOf(name)}: ${reason}`);
}

/** Options that mean nothing without one of others. */
const NEEDS: readonly (readonly [option: string, oneOf: readonly string[]])[] = [
  ["evalEvery", ["eval"]],
  ["earlyStoppingPatience", ["evalEvery"]],
  ["loadBest", ["evalEvery"]],
  ["loadBest", ["saveEvery"]],
  // With either of the latter a checkpoint is saved after each epoch.
  ["saveTotalLimit", ["saveEvery", "checkpointDir", "resume"]],
];

/** @throws LokoError ERR_OPTION for an option of `loko train` that is given without another that it needs. */
export function requireNeeded(options: object): void {
  const values = options as Record<string, unknown>;
  const isGiven = (name: string) => values[name] !== undefined && values[name] !== false;
  for (const [name, oneOf] of NEEDS) {
    if (!isGiven(name) || oneOf.some(isGiven)) continue;
    throw optionError(`${flagOf(name)} needs ${oneOf.map(flagOf).join(" or ")}.`);
  }
}

/**
 * What is written during a training into the folder of its adapter would be found there at the end, when that
 * folder must be empty.
 *
 * @throws LokoError ERR_OPTION.
 */
export function requireOutside(
  options: { readonly output: string; readonly overwrite?: boolean },
  names: readonly string[],
): void {
  if (options.overwrite) return;
  const values = options as unknown as Record<string, string | undefined>;
  for (const name of names) {
    const dir = values[name];
    if (dir === undefined || !isWithin(dir, options.output)) continue;
    throw optionError(
      `${flagOf(name)} ${dir} is in --output ${options.output}, which must be empty for the adapter. Name a ` +
        "folder beside it, or pass --overwrite.",
    );
  }
}

function isWithin(path: string, folder: string): boolean {
  const way = relative(resolve(folder), resolve(path));
  return !isAbsolute(way) && way.split(sep)[0] !== "..";
}

function optionError(message: string): LokoError {
  return new LokoError("ERR_OPTION", message);
}
