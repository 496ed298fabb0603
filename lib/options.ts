import { describe, LokoError, nearestNames } from "./errors.js";

/** What an option accepts, and how a message describes it. */
export interface OptionRule {
  readonly expected: string;
  accepts(value: unknown): boolean;
}

/** A number that `test` accepts and that is finite in float32, in which native code keeps it. */
export function numberThat(expected: string, test: (value: number) => boolean): OptionRule {
  return {
    expected,
    accepts: (value) =>
      typeof value === "number" && Number.isFinite(Math.fround(value)) && test(value),
  };
}

export const positiveNumber = numberThat("a finite float32 number > 0", (value) => value > 0);
export const nonNegativeNumber = numberThat("a finite float32 number >= 0", (value) => value >= 0);
export const fraction = numberThat("a number in [0, 1)", (value) => value >= 0 && value < 1);

/** A whole number in [min, max]. */
export function integerIn(min: number, max = Number.MAX_SAFE_INTEGER): OptionRule {
  const range = max === Number.MAX_SAFE_INTEGER ? `>= ${min}` : `in [${min}, ${max}]`;
  return {
    expected: `an integer ${range}`,
    accepts: (value) =>
      Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max,
  };
}

export const trueOrFalse: OptionRule = {
  expected: "true or false",
  accepts: (value) => typeof value === "boolean",
};

export function oneOf(...names: readonly string[]): OptionRule {
  return {
    expected: `one of ${names.map(describe).join(", ")}`,
    accepts: (value) => names.includes(value as string),
  };
}

/** What either rule accepts. */
export function either(a: OptionRule, b: OptionRule): OptionRule {
  return {
    expected: `${a.expected} or ${b.expected}`,
    accepts: (value) => a.accepts(value) || b.accepts(value),
  };
}

/**
 * Checks an options object against the rule of each option. An option set to `undefined` counts as
 * absent.
 *
 * @param owner - whose options they are, for the message.
 * @throws LokoError ERR_OPTION naming the option, what was expected and what came; for an unknown
 * option, the nearest known ones.
 */
export function checkOptions<T extends object>(
  owner: string,
  options: T,
  rules: { readonly [K in keyof Required<T>]: OptionRule },
): void {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw new LokoError(
      "ERR_OPTION",
      `${owner}: options must be an object, got ${describe(options)}.`,
    );
  }
  const known = rules as Readonly<Record<string, OptionRule>>;
  for (const [name, value] of Object.entries(options)) {
    const rule = Object.hasOwn(known, name) ? known[name] : undefined;
    if (rule === undefined) {
      const near = nearestNames(name, Object.keys(known)).map(describe).join(", ");
      throw new LokoError(
        "ERR_OPTION",
        `${owner}: unknown option ${describe(name)}; the nearest are ${near}.`,
      );
    }
    if (value !== undefined && !rule.accepts(value)) {
      throw new LokoError(
        "ERR_OPTION",
        `${owner}: ${name} must be ${rule.expected}, got ${describe(value)}.`,
      );
    }
  }
}
