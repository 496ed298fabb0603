import { statSync } from "node:fs";
import { type Command, InvalidArgumentError, Option } from "commander";
import { LokoError } from "../errors.js";
import { checkOptions, integerIn, type OptionRule, oneOf } from "../options.js";

/** A kind of value: how the text of a flag becomes one, and which ones a flag or a file may give. */
export interface Kind {
  readonly rule: OptionRule;
  parse(text: string): unknown;
}

const numberOf = (text: string) => (text.trim() === "" ? Number.NaN : Number(text));

/** A text that is not empty: a path, a column, a sentence. */
export const text: Kind = {
  rule: {
    expected: "a text that is not empty",
    accepts: (value) => typeof value === "string" && value !== "",
  },
  parse: (given) => given,
};

/** Any text, also an empty one. */
export const anyText: Kind = {
  rule: { expected: "a text", accepts: (value) => typeof value === "string" },
  parse: (given) => given,
};

export function integer(min: number, max?: number): Kind {
  return { rule: integerIn(min, max), parse: numberOf };
}

export function number(rule: OptionRule): Kind {
  return { rule, parse: numberOf };
}

export function choice(...names: readonly string[]): Kind {
  return { rule: oneOf(...names), parse: (given) => given };
}

const isText = (value: unknown) => typeof value === "string" && value !== "";

/** `a,b,c` on the command line, an array in a file. */
export const list: Kind = {
  rule: {
    expected: "names, separated by commas (in a file: an array of them)",
    accepts: (value) => Array.isArray(value) && value.length > 0 && value.every(isText),
  },
  parse: (given) => given.split(",").map((name) => name.trim()),
};

/** A list, or one word or regular expression with a meaning of its own, which only a file can give. */
export function listOr(word: string): Kind {
  return {
    rule: {
      expected: list.rule.expected,
      accepts: (value) => isText(value) || list.rule.accepts(value),
    },
    parse: (given) => (given === word ? given : list.parse(given)),
  };
}

/** `{"name": value}`. */
export const object: Kind = {
  rule: {
    expected: "a JSON object",
    accepts: (value) => typeof value === "object" && value !== null && !Array.isArray(value),
  },
  parse: (given) => {
    try {
      return JSON.parse(given) as unknown;
    } catch {
      return undefined;
    }
  },
};

/** A folder, or nothing for the newest one; a file is what `loko train --resume run.json` would be taken for. */
export const resume: Kind = {
  rule: {
    expected:
      "the folder of a checkpoint, or nothing (in a file: true); a file of options comes first, as in " +
      "`loko train run.json --resume`",
    accepts: (value) => value === true || (text.rule.accepts(value) && !isFile(value as string)),
  },
  parse: (given) => given,
};

function isFile(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

const flag: OptionRule = {
  expected: "true or false",
  accepts: (value) => typeof value === "boolean",
};

/** Adds options to a command that a configuration file may give too, by their names in camelCase. */
export class SharedOptions {
  readonly #command: Command;
  readonly #rules: Record<string, OptionRule> = {};

  constructor(command: Command) {
    this.#command = command;
  }

  /** Starts a group under a heading of its own in the help. */
  group(heading: string): this {
    this.#command.optionsGroup(heading);
    return this;
  }

  /** An option with a value; without a default it may stay away. */
  value(flags: string, description: string, kind: Kind, byDefault?: unknown): this {
    const option = new Option(flags, description).argParser((given) => {
      const value = kind.parse(given);
      if (kind.rule.accepts(value)) return value;
      throw new InvalidArgumentError(`Expected ${kind.rule.expected}.`);
    });
    if (byDefault !== undefined) {
      option.default(byDefault, Array.isArray(byDefault) ? byDefault.join(",") : undefined);
    }
    return this.#add(option, kind.rule);
  }

  /** An option without a value. */
  flag(flags: string, description: string): this {
    return this.#add(new Option(flags, description), flag);
  }

  #add(option: Option, rule: OptionRule): this {
    this.#rules[option.attributeName()] = rule;
    this.#command.addOption(option);
    return this;
  }

  /**
   * The options of this run: flags win over the file, the file over defaults.
   *
   * @param file - what a configuration file holds, and where it is.
   * @throws LokoError ERR_OPTION for an unknown key or a bad value in the file, and when one of
   * `required` is nowhere.
   */
  resolve<T extends object>(
    required: readonly (keyof T & string)[],
    file?: { path: string; values: Readonly<Record<string, unknown>> },
  ): T {
    if (file !== undefined) checkOptions(file.path, { ...file.values }, this.#rules);
    const command = this.#command;
    const given = command.opts();
    const isGiven = ([name]: [string, unknown]) => command.getOptionValueSource(name) === "cli";
    const flags = Object.fromEntries(Object.entries(given).filter(isGiven));
    const options = { ...given, ...file?.values, ...flags } as T;
    for (const name of required) {
      if (options[name] !== undefined) continue;
      const flags = command.options.find((option) => option.attributeName() === name)!.flags;
      throw new LokoError(
        "ERR_OPTION",
        `${command.name()} needs ${flags}. \`loko ${command.name()} --help\` shows an example.`,
      );
    }
    return options;
  }
}

/** Options that every command has. */
export interface CommonOptions {
  readonly json?: boolean;
  readonly verbose?: boolean;
}

export function addCommonOptions(options: SharedOptions): SharedOptions {
  return options
    .group("Output:")
    .flag("--json", "print JSON alone on stdout, and errors as JSON on stderr")
    .flag("--verbose", "print the stack of an error");
}

/** Options of the commands that compute with a model. */
export interface ModelCommandOptions extends CommonOptions {
  readonly model: string;
  readonly adapter?: string;
  readonly device: "auto" | "cpu" | "cuda" | "ref";
  readonly precision?: "float32" | "tf32" | "bfloat16";
  readonly threads: number;
  readonly maxLength: number;
  readonly numLabels?: number;
  readonly ignoreMismatchedSizes?: boolean;
}

export function addModelOptions(options: SharedOptions): SharedOptions {
  return options
    .group("Model:")
    .value("--model <dir>", "folder with config.json, weights, and tokenizer or processor", text)
    .value("--adapter <dir>", "folder of a PEFT adapter", text)
    .value(
      "--device <name>",
      "auto, cpu, cuda or ref",
      choice("auto", "cpu", "cuda", "ref"),
      "auto",
    )
    .value(
      "--precision <name>",
      "of products on a GPU: float32, tf32 or bfloat16 (default: float32)",
      choice("float32", "tf32", "bfloat16"),
    )
    .value("--threads <n>", "CPU threads; 0 takes all physical cores", integer(0, 1024), 0)
    .value("--max-length <n>", "cut texts to this many tokens", integer(1, 2 ** 20), 128)
    .value(
      "--num-labels <n>",
      "outputs of the head (default: as config.json says)",
      integer(1, 2 ** 20),
    )
    .flag("--ignore-mismatched-sizes", "replace a head of another size by a new one");
}

/** Options that say how data is read. */
export interface DataOptions {
  readonly format: string;
  readonly textColumn?: string;
  readonly pairColumn?: string;
  readonly imageColumn?: string;
  readonly classes?: string;
  readonly unlistedClasses?: "throw" | "skip";
  readonly granularity?: "fine" | "coarse";
  readonly onError?: "throw" | "skip";
  readonly workers?: number;
}

export const TEXT_FORMATS: readonly string[] = [
  "csv",
  "tsv",
  "jsonl",
  "parquet",
  "sst2",
  "cola",
  "mrpc",
];
export const IMAGE_FORMATS: readonly string[] = ["folder", "idx", "cifar10", "cifar100", "parquet"];
const FORMATS = ["auto", ...new Set([...TEXT_FORMATS, ...IMAGE_FORMATS])];

/** Options that say something of texts alone. */
export const TEXT_OPTIONS = ["textColumn", "pairColumn", "text", "pair"];
/** Options that say something of images alone. */
export const IMAGE_OPTIONS = [
  "imageColumn",
  "classes",
  "unlistedClasses",
  "granularity",
  "onError",
  "workers",
  "image",
];

export function addDataOptions(options: SharedOptions): SharedOptions {
  return options
    .value("--format <name>", FORMATS.join(", "), choice(...FORMATS), "auto")
    .value("--text-column <name>", "column of the text", text)
    .value("--pair-column <name>", "column of a second text", text)
    .value("--image-column <name>", "column of the image", text)
    .value("--classes <file>", "names of the classes, one a line, or a results.json", text)
    .value("--on-error <what>", "at a damaged image: throw, skip", choice("throw", "skip"))
    .value("--workers <n>", "threads that prepare images", integer(0, 64));
}

/** Options of what is known about labelled examples. */
export interface LabelOptions {
  readonly labelColumn?: string;
  readonly metrics?: readonly string[];
}

export function addLabelOptions(options: SharedOptions): SharedOptions {
  return options
    .value("--label-column <name>", "column of the label", text)
    .value(
      "--unlisted-classes <what>",
      "folders that are not in --classes: throw, skip",
      choice("throw", "skip"),
    )
    .value("--granularity <which>", "labels of CIFAR-100: fine, coarse", choice("fine", "coarse"))
    .value("--metrics <names>", "as accuracy,f1,f1Macro,matthewsCorrelation", list);
}
