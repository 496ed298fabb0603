import { describe, LokoError } from "../errors.js";
import { readNumber, readString } from "../io/config.js";
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

/** As transformers counts: entries of id2label, else num_labels, else 2. @throws LokoError ERR_CONFIG */
export function labelCount(config: JsonObject): number {
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

/** One label without a problem type is a regression, as in transformers. */
function readProblemType(config: JsonObject, m: number): ProblemType {
  if (!Object.hasOwn(config, "problem_type") || config.problem_type === null) {
    return m === 1 ? "regression" : "single_label_classification";
  }
  return readString(config, "problem_type", { oneOf: PROBLEM_TYPES });
}
