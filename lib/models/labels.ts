import { describe, LokoError } from "../errors.js";
import { isTimm, readNumber, readString } from "../io/config.js";
import { type JsonObject, originOf } from "../io/json.js";

/** What the outputs of a model mean; transformers' `problem_type`. */
export type ProblemType =
  | "regression"
  | "single_label_classification"
  | "multi_label_classification";

const PROBLEM_TYPES: readonly ProblemType[] = [
  "regression",
  "single_label_classification",
  "multi_label_classification",
];

/** The outputs of a model. */
export interface Labels {
  /** Name of each label, m entries; `"LABEL_<i>"` where the configuration has none. */
  readonly id2label: readonly string[];
  readonly label2id: ReadonlyMap<string, number>;
  readonly problemType: ProblemType;
}

/**
 * As transformers counts: entries of id2label, else num_labels, else 2. timm's files say "num_classes", and
 * 0 for a model without a head, which gets one of 2.
 *
 * @throws LokoError ERR_CONFIG
 */
export function labelCount(config: JsonObject): number {
  if (isTimm(config)) return readNumber(config, "num_classes", { integer: true, min: 0 }) || 2;
  const labels = Object.hasOwn(config, "id2label") ? config.id2label : undefined;
  if (labels === undefined || labels === null) {
    return readNumber(config, "num_labels", { integer: true, min: 1, default: 2 });
  }
  const count = typeof labels === "object" ? Object.keys(labels).length : 0;
  if (count > 0) return count;
  throw new LokoError(
    "ERR_CONFIG",
    `${originOf(config)}: "id2label" must map class indices to names, got ${describe(labels)}.`,
  );
}

/**
 * Names and meaning of m outputs. The names of the configuration count when it has exactly m of them; a
 * model that was asked for another number of labels has names that nobody has given yet.
 *
 * @throws LokoError ERR_CONFIG for a malformed `id2label` or an unknown `problem_type`.
 */
export function readLabels(config: JsonObject, m: number): Labels {
  const id2label = labelCount(config) === m ? namesOf(config, m) : defaultNames(m);
  return {
    id2label: Object.freeze(id2label),
    label2id: new Map(id2label.map((name, index) => [name, index])),
    problemType: readProblemType(config, m),
  };
}

function defaultNames(m: number): string[] {
  return Array.from({ length: m }, (_, index) => `LABEL_${index}`);
}

function namesOf(config: JsonObject, m: number): string[] {
  if (isTimm(config)) return timmNames(config, m);
  const labels = config.id2label as Record<string, unknown> | undefined | null;
  if (labels === undefined || labels === null) return defaultNames(m);
  return Array.from({ length: m }, (_, index) => {
    const name = Object.hasOwn(labels, String(index)) ? labels[String(index)] : undefined;
    if (typeof name === "string") return name;
    throw new LokoError(
      "ERR_CONFIG",
      `${originOf(config)}: "id2label" has ${m} entries, so it must name "${index}" with a string, ` +
        `got ${describe(name)}.`,
    );
  });
}

/** "label_names": a list, or an object with gaps; what names no class of its own is left out. */
function timmNames(config: JsonObject, m: number): string[] {
  const { label_names: names } = config;
  return Array.isArray(names) && names.length === m && names.every((n) => typeof n === "string")
    ? names
    : defaultNames(m);
}

/** The keys of `config.json` that give a model these labels, in the form that it has. */
export function labelKeys(config: JsonObject, id2label: readonly string[]): JsonObject {
  if (isTimm(config)) {
    const { pretrained_cfg: pretrained } = config;
    return {
      num_classes: id2label.length,
      label_names: id2label,
      ...(pretrained === undefined
        ? {}
        : { pretrained_cfg: { ...(pretrained as JsonObject), num_classes: id2label.length } }),
    };
  }
  return {
    // transformers counts the entries of id2label, and takes num_labels for something else to check.
    num_labels: undefined,
    id2label: Object.fromEntries(id2label.entries()),
    label2id: Object.fromEntries(id2label.map((name, index) => [name, index])),
  };
}

/** One label without a problem type is a regression, as in transformers. */
function readProblemType(config: JsonObject, m: number): ProblemType {
  if (!Object.hasOwn(config, "problem_type") || config.problem_type === null) {
    return m === 1 ? "regression" : "single_label_classification";
  }
  return readString(config, "problem_type", { oneOf: PROBLEM_TYPES });
}
