import { describe, LokoError } from "../errors.js";
import { type JsonObject, originOf, setOrigin } from "./json.js";

// Strict on purpose: a key that changes numbers has no default unless its reader states one, and a
// value of the wrong type (null as well) is an error and never a default.

export interface ReadNumberOptions {
  /** Accept whole numbers only, up to 2^53. */
  integer?: boolean;
  /** Smallest value accepted, inclusive. */
  min?: number;
  /** Largest value accepted, inclusive. */
  max?: number;
  /** Returned when the key is absent; without it an absent key is an error. */
  default?: number;
}

/**
 * Reads a finite number.
 *
 * @throws LokoError ERR_CONFIG naming the file, the key, what was expected and what came.
 */
export function readNumber(
  config: JsonObject,
  key: string,
  options: ReadNumberOptions = {},
): number {
  const { integer = false, min, max } = options;
  const value = Object.hasOwn(config, key) ? config[key] : options.default;
  if (
    typeof value === "number" &&
    (integer ? Number.isSafeInteger(value) : Number.isFinite(value)) &&
    (min === undefined || value >= min) &&
    (max === undefined || value <= max)
  ) {
    return value;
  }
  throw badValue(config, key, `${integer ? "an integer" : "a number"}${rangeText(min, max)}`);
}

function rangeText(min: number | undefined, max: number | undefined): string {
  if (min !== undefined && max !== undefined) return ` between ${min} and ${max}`;
  if (min !== undefined) return ` >= ${min}`;
  return max === undefined ? "" : ` <= ${max}`;
}

/** Reads true or false; see {@link readNumber} for defaults and errors. */
export function readBoolean(
  config: JsonObject,
  key: string,
  options: { default?: boolean } = {},
): boolean {
  const value = Object.hasOwn(config, key) ? config[key] : options.default;
  if (typeof value === "boolean") return value;
  throw badValue(config, key, "true or false");
}

/**
 * Reads a string; see {@link readNumber} for defaults and errors.
 *
 * @param options.oneOf - the only values accepted.
 */
export function readString<T extends string = string>(
  config: JsonObject,
  key: string,
  options: { default?: T; oneOf?: readonly T[] } = {},
): T {
  const value = Object.hasOwn(config, key) ? config[key] : options.default;
  const { oneOf } = options;
  if (typeof value === "string" && (oneOf === undefined || oneOf.includes(value as T))) {
    return value as T;
  }
  throw badValue(config, key, oneOf ? `one of ${oneOf.map(describe).join(", ")}` : "a string");
}

/** Reads an object inside the configuration; an absent one, or null, is empty. */
export function readObject(config: JsonObject, key: string): JsonObject {
  const value = Object.hasOwn(config, key) ? (config[key] ?? {}) : {};
  if (typeof value !== "object" || Array.isArray(value)) throw badValue(config, key, "an object");
  setOrigin(value, `${originOf(config)}, "${key}"`);
  return value as JsonObject;
}

/** Whether a `config.json` is timm's, or in its form, and not that of transformers. */
export function isTimm(config: JsonObject): boolean {
  return !Object.hasOwn(config, "model_type") && Object.hasOwn(config, "architecture");
}

function badValue(config: JsonObject, key: string, expected: string): LokoError {
  const got = Object.hasOwn(config, key) ? describe(config[key]) : "nothing (the key is absent)";
  return new LokoError(
    "ERR_CONFIG",
    `${originOf(config)}: "${key}" must be ${expected}, got ${got}.`,
  );
}
