// Reads trial files: what is measured, by whom, and the bars that the results must meet.
import { readFileSync } from "node:fs";
import { LokoError } from "loko";
import { CONTENDERS } from "./contenders.js";
import { MODELS } from "./models.js";

/** What a bar limits: ratios of two contenders, or a figure of one. */
export const METRICS = ["time", "cpu", "memory", "losses", "floor", "microseconds"] as const;
export type Metric = (typeof METRICS)[number];

/** A limit that a result must stay below. */
export interface Bar {
  /**
   * `time`, `memory`: ratio of median step times, of peak memory of the steps. `cpu`: ratio of processor times,
   * which other processes disturb little. `losses`: largest relative
   * difference of losses. `floor`: time over the arithmetic floor. `microseconds`: median of a step.
   */
  readonly metric: Metric;
  readonly of: string;
  /** The other contender, for the metrics that compare two. */
  readonly against?: string;
  readonly most: number;
}

/** One workload and those who race in it. */
export interface Trial {
  readonly name: string;
  readonly model: string;
  /** Tokens of a text; absent for images. */
  readonly tokens?: number;
  readonly classes: number;
  readonly rank: number;
  /** Of "query", "key", "value"; "convolution" alone for a ResNet. */
  readonly targetModules: readonly string[];
  readonly batch: number;
  readonly threads: number;
  /** Where both sides compute, and on a GPU in what. */
  readonly device: "cpu" | "cuda";
  readonly precision: "float32" | "tf32" | "bfloat16";
  /** Different batches; the contenders meet them in turn. */
  readonly samples: number;
  /** Start from a head of class means and a stream of noisy class prototypes. */
  readonly begun: boolean;
  /** Measuring time of each contender. */
  readonly seconds: number;
  readonly rounds: number;
  /** Measured steps in place of `seconds`; 0 for none. */
  readonly steps: number;
  readonly contenders: readonly string[];
  readonly bars: readonly Bar[];
}

type Fields = Readonly<Record<string, unknown>>;

/** What a trial need not say, unless the `defaults` of its file do. */
const DEFAULTS = {
  classes: 2,
  rank: 8,
  targetModules: ["query", "value"],
  batch: 1,
  threads: 2,
  device: "cpu",
  precision: "float32",
  samples: 16,
  begun: false,
  seconds: 10,
  rounds: 5,
  steps: 0,
  bars: [],
};

const LARGEST_COUNTS = {
  classes: 2 ** 16,
  rank: 1024,
  batch: 1024,
  threads: 1024,
  samples: 4096,
  rounds: 1000,
};
const OTHER_FIELDS = [
  "name",
  "model",
  "tokens",
  "seconds",
  "steps",
  "begun",
  "device",
  "precision",
];
const LIST_FIELDS = ["targetModules", "contenders", "bars"];
const FIELDS = [...Object.keys(LARGEST_COUNTS), ...OTHER_FIELDS, ...LIST_FIELDS];

/**
 * Reads `{ defaults?, trials }` from a file.
 *
 * @throws LokoError ERR_FILE_NOT_FOUND; ERR_CONFIG naming the file, the trial, the field, what was expected
 * and what came.
 */
export function readTrials(path: string): Trial[] {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw new LokoError("ERR_FILE_NOT_FOUND", `${path}: no trial file can be read there.`, {
      cause,
    });
  }
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (cause) {
    throw new LokoError("ERR_CONFIG", `${path}: expected JSON, ${(cause as Error).message}.`, {
      cause,
    });
  }
  return parseTrials(content, path);
}

/** The trials in the content of a file; `origin` names it in messages. */
export function parseTrials(content: unknown, origin: string): Trial[] {
  const file = requireObject(content, origin, { known: ["defaults", "trials"] });
  const defaults = requireObject(file.defaults ?? {}, `${origin}: defaults`, { known: FIELDS });
  if (!Array.isArray(file.trials) || file.trials.length === 0) {
    throw expected(origin, "trials", "a list of at least one trial", file.trials);
  }
  const trials = file.trials.map((trial: unknown, index) => {
    const where = `${origin}: trials[${index}]`;
    const given = requireObject(trial, where, { known: FIELDS });
    return parseTrial({ ...DEFAULTS, ...defaults, ...given }, where);
  });
  const names = trials.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw expected(origin, "name", "another name for each trial", twice);
  return trials;
}

function parseTrial(fields: Fields, where: string): Trial {
  const { name } = fields;
  // It names folders and files.
  if (typeof name !== "string" || !/^[a-z0-9][a-z0-9-]*$/.test(name)) {
    throw expected(where, "name", "lower-case letters, digits and hyphens", name);
  }
  const at = `${where} ("${name}")`;
  for (const [field, largest] of Object.entries(LARGEST_COUNTS)) {
    requireInteger(fields, field, [1, largest], at);
  }
  requireInteger(fields, "steps", [0, 100_000], at);
  requireNumber(fields, "seconds", [0.1, 3600], at);
  if (typeof fields.begun !== "boolean") throw expected(at, "begun", "true or false", fields.begun);
  requireNames({ device: [fields.device] }, "device", ["cpu", "cuda"], at);
  const precisions = fields.device === "cuda" ? ["float32", "tf32", "bfloat16"] : ["float32"];
  requireNames({ precision: [fields.precision] }, "precision", precisions, at);
  checkModel(fields, at);
  const isResnet = MODELS.get(fields.model as string)?.kind === "resnet";
  const targets = isResnet ? ["convolution"] : ["query", "key", "value"];
  requireNames(fields, "targetModules", targets, at);
  requireNames(fields, "contenders", [...CONTENDERS.keys()], at);
  checkContenders(fields as unknown as Trial, at);
  if (!Array.isArray(fields.bars)) throw expected(at, "bars", "a list", fields.bars);
  fields.bars.forEach((bar: unknown, index) => {
    checkBar(bar, fields.contenders as string[], `${at}: bars[${index}]`);
  });
  return fields as unknown as Trial;
}

function checkModel(fields: Fields, at: string): void {
  const shape = MODELS.get(fields.model as string);
  if (shape === undefined) {
    throw expected(at, "model", `one of ${[...MODELS.keys()].join(", ")}`, fields.model);
  }
  if (shape.kind === "text") {
    requireInteger(fields, "tokens", [2, shape.maxTokens], at);
    if (fields.begun) throw expected(at, "begun", "false for a model of texts", true);
  } else if (fields.tokens !== undefined) {
    throw expected(at, "tokens", "nothing for a model of images", fields.tokens);
  }
}

function checkContenders({ contenders, batch, classes, device }: Trial, at: string): void {
  const stranger = contenders.find((name) => !CONTENDERS.get(name)!.devices.includes(device));
  if (stranger !== undefined) {
    throw expected(at, "contenders", `of device "${device}"`, stranger);
  }
  const loko = contenders.find((name) => CONTENDERS.get(name)!.work === "loko");
  if (loko === undefined) return;
  if (batch > 1) throw expected(at, "batch", `1, because of "${loko}"`, batch);
  if (classes < 2) throw expected(at, "classes", `at least 2, because of "${loko}"`, classes);
}

function checkBar(value: unknown, contenders: readonly string[], at: string): void {
  const bar = requireObject(value, at, { known: ["metric", "of", "against", "most"] });
  requireNames({ metric: [bar.metric] }, "metric", METRICS, at);
  requireNames({ of: [bar.of] }, "of", contenders, at);
  const comparesTwo = ["time", "cpu", "memory", "losses"].includes(bar.metric as string);
  if (comparesTwo) requireNames({ against: [bar.against] }, "against", contenders, at);
  else if (bar.against !== undefined) {
    throw expected(at, "against", `nothing with the metric "${bar.metric}"`, bar.against);
  }
  requireNumber(bar, "most", [Number.MIN_VALUE, Number.MAX_VALUE], at);
}

function requireObject(
  value: unknown,
  where: string,
  { known }: { known: readonly string[] },
): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new LokoError("ERR_CONFIG", `${where} must be an object, got ${excerpt(value)}.`);
  }
  const stranger = Object.keys(value).find((key) => !known.includes(key));
  if (stranger === undefined) return value as Fields;
  throw new LokoError(
    "ERR_CONFIG",
    `${where}: unknown key ${excerpt(stranger)}; known are ${known.join(", ")}.`,
  );
}

function requireNumber(fields: Fields, name: string, [min, max]: [number, number], at: string) {
  const value = fields[name];
  if (typeof value === "number" && value >= min && value <= max) return;
  throw expected(at, name, `a number in [${min}, ${max}]`, value);
}

function requireInteger(fields: Fields, name: string, [min, max]: [number, number], at: string) {
  const value = fields[name] as number;
  if (Number.isSafeInteger(value) && value >= min && value <= max) return;
  throw expected(at, name, `an integer in [${min}, ${max}]`, value);
}

/** A list of different names out of the known ones. */
function requireNames(fields: Fields, field: string, known: readonly string[], at: string): void {
  const names = fields[field];
  if (!Array.isArray(names) || names.length === 0 || new Set(names).size !== names.length) {
    throw expected(at, field, "a list of different names", names);
  }
  const stranger = names.findIndex((name) => !known.includes(name));
  if (stranger >= 0) throw expected(at, field, `of ${known.join(", ")}`, names[stranger]);
}

function expected(where: string, field: string, what: string, got: unknown): LokoError {
  return new LokoError("ERR_CONFIG", `${where}: ${field} must be ${what}, got ${excerpt(got)}.`);
}

function excerpt(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 80 ? `${text.slice(0, 80)}...` : text;
}
