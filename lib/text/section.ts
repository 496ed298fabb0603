import { describe, LokoError } from "../errors.js";
import type { JsonObject } from "../io/json.js";

/** Complains about a file of a tokenizer: where, what was expected, what came. */
export function tokenizerError(path: string, message: string, cause?: unknown): LokoError {
  return new LokoError("ERR_TOKENIZER", `${path}: ${message}`, { cause });
}

/**
 * An object inside a JSON file of a tokenizer, with its place in it. A key that is absent takes the
 * default, where there is one; anything else of the wrong type is ERR_TOKENIZER.
 */
export class Section {
  private constructor(
    readonly value: JsonObject,
    readonly path: string,
    private readonly place: string,
  ) {}

  /** @param place - the keys that lead to `value`, empty for the whole file. */
  static of(value: unknown, path: string, place = ""): Section {
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      return new Section(value as JsonObject, path, place);
    }
    const what = place === "" ? "expected" : `${describe(place)} must be`;
    throw tokenizerError(path, `${what} a JSON object, got ${describe(value)}.`);
  }

  /** The same with some values replaced. */
  with(values: JsonObject): Section {
    return new Section({ ...this.value, ...values }, this.path, this.place);
  }

  /** The value of a key of this object itself, not of its prototype. */
  get(key: string): unknown {
    return Object.hasOwn(this.value, key) ? this.value[key] : undefined;
  }

  /** Whether the key is absent or null, which `tokenizers` writes for what is not there. */
  lacks(key: string): boolean {
    return this.get(key) === undefined || this.get(key) === null;
  }

  error(key: string, expected: string): LokoError {
    const value = this.get(key);
    const got = value === undefined ? "nothing (the key is absent)" : describe(value);
    return tokenizerError(this.path, `${describe(this.at(key))} must be ${expected}, got ${got}.`);
  }

  boolean(key: string, fallback?: boolean): boolean {
    const value = this.get(key) ?? fallback;
    if (typeof value === "boolean") return value;
    throw this.error(key, "true or false");
  }

  string(key: string, fallback?: string): string {
    const value = this.get(key) ?? fallback;
    if (typeof value === "string") return value;
    throw this.error(key, "a string");
  }

  /** A string among `names`; the message lists them. */
  oneOf<T extends string>(key: string, names: readonly T[], fallback?: T): T {
    const value = this.get(key) ?? fallback;
    if (names.includes(value as T)) return value as T;
    throw this.error(key, `one of ${names.map((name) => describe(name)).join(", ")}`);
  }

  integer(key: string, min: number, max: number, fallback?: number): number {
    const value = this.get(key) ?? fallback;
    if (Number.isSafeInteger(value) && Number(value) >= min && Number(value) <= max) {
      return Number(value);
    }
    throw this.error(key, `an integer in [${min}, ${max}]`);
  }

  section(key: string): Section {
    return Section.of(this.get(key), this.path, this.at(key));
  }

  /** The objects of a list. */
  sections(key: string): Section[] {
    return this.list(key).map((item, i) => Section.of(item, this.path, `${this.at(key)}[${i}]`));
  }

  list(key: string): readonly unknown[] {
    const value = this.get(key);
    if (Array.isArray(value)) return value;
    throw this.error(key, "a list");
  }

  private at(key: string): string {
    return this.place === "" ? key : `${this.place}.${key}`;
  }
}
