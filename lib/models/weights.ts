import { describe, LokoError, nearestNames } from "../errors.js";
import type { Checkpoint } from "../io/checkpoint.js";
import { readNumber } from "../io/config.js";
import { originOf } from "../io/json.js";
import type { TensorInfo } from "../io/safetensors-header.js";
import type { NativeWeight } from "../native/addon.js";
import type { WeightRequirement } from "../nn/graph.js";
import type { ModelDefinition } from "./architecture.js";
import type { CarriedSource } from "./carried.js";
import { moduleOf } from "./parameters.js";

/** Where each weight of a model comes from. */
export interface WeightSources {
  readonly weights: readonly NativeWeight[];
  /** Tensors that the model does not compute with as they are. */
  readonly carried: readonly CarriedSource[];
  /** Names of weights that were drawn, because the checkpoint has none that fit. */
  readonly newWeights: readonly string[];
  /** Names in the checkpoint that the model does not use. */
  readonly unusedWeights: readonly string[];
}

export interface WeightOptions {
  /** As the user gave it; `undefined` when the configuration decided. */
  readonly numLabels: number | undefined;
  readonly ignoreMismatchedSizes: boolean;
}

/**
 * Finds every weight of a model in a checkpoint and checks shapes and data types. Checkpoints of the
 * backbone alone lack the prefix of its names, and get a new head.
 *
 * @throws LokoError ERR_WEIGHT_MISSING, ERR_WEIGHT_SHAPE, ERR_NUM_LABELS, ERR_UNSUPPORTED.
 */
export function findWeights(
  definition: ModelDefinition,
  checkpoint: Checkpoint,
  options: WeightOptions,
): WeightSources {
  const { head, prefix } = definition;
  const held = presentNames(checkpoint.weights);
  const isPrefixed = [...held.keys()].some((name) => name.startsWith(prefix));
  const nameInFile = (name: string) =>
    !isPrefixed && name.startsWith(prefix) ? name.slice(prefix.length) : name;
  const isOfHead = ({ name }: WeightRequirement) => name.startsWith(`${head}.`);

  const newModules = [...definition.newModules];
  if (options.ignoreMismatchedSizes) {
    for (const { name, shape } of definition.graph.weights.filter(isOfHead)) {
      const found = held.get(name);
      if (found !== undefined && !sameShape(found.shape, shape)) newModules.push(moduleOf(name));
    }
  }
  const isNew = (name: string) => newModules.some((module) => name.startsWith(`${module}.`));
  const std = readNumber(checkpoint.config, "initializer_range", { min: 0, default: 0.02 });

  const { graph, derived = [] } = definition;
  const carried = carriedSources(definition, (name) => held.get(nameInFile(name)));
  const expectedNames = new Set([...graph.weights, ...carried].map(({ name }) => nameInFile(name)));
  const unusedWeights = [...held.keys()].filter(
    (name) => !expectedNames.has(name) && !definition.isIgnored(name),
  );
  const newWeights: string[] = [];
  const weights = graph.weights.map((required): NativeWeight => {
    const { name } = required;
    const shape = derived.find((weight) => weight.name === name)?.sourceShape ?? required.shape;
    if (isNew(name)) {
      newWeights.push(name);
      return { name, shape, std: name.endsWith(".bias") ? 0 : std };
    }
    const info = held.get(nameInFile(name));
    if (info === undefined) throw missing(checkpoint, nameInFile(name), shape, unusedWeights);
    if (!sameShape(info.shape, shape)) {
      throw isOfHead(required) && options.numLabels !== undefined
        ? wrongLabels(info, options.numLabels)
        : wrongShape(checkpoint, info, shape);
    }
    return { name, shape, file: info.path, byteOffset: info.byteOffset, dtype: dtypeOf(info) };
  });
  return { weights, carried, newWeights, unusedWeights };
}

/** What the checkpoint has of the tensors that weights are derived from, and of those that only Python needs. */
function carriedSources(
  { derived = [], carried = [] }: ModelDefinition,
  find: (name: string) => TensorInfo | undefined,
): CarriedSource[] {
  return [...derived, ...carried].flatMap(({ name }) => {
    const info = find(name);
    return info === undefined ? [] : [{ name, info }];
  });
}

/** By today's names: checkpoints converted from TensorFlow call a layer norm's weights gamma and beta. */
function presentNames(weights: Checkpoint["weights"]): ReadonlyMap<string, TensorInfo> {
  return new Map(
    [...weights].map(([name, info]) => [
      name
        .replace(/\bLayerNorm\.gamma$/, "LayerNorm.weight")
        .replace(/\bLayerNorm\.beta$/, "LayerNorm.bias"),
      info,
    ]),
  );
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((extent, i) => extent === b[i]);
}

function missing(
  checkpoint: Checkpoint,
  name: string,
  shape: readonly number[],
  unusedWeights: readonly string[],
): LokoError {
  const files = [...new Set([...checkpoint.weights.values()].map(({ path }) => path))];
  // A misspelt name is one that nothing else claims.
  const [near] = nearestNames(name, unusedWeights, 1);
  return new LokoError(
    "ERR_WEIGHT_MISSING",
    `${files.length === 1 ? files[0] : checkpoint.dir}: expected the weight ${describe(name)} of ` +
      `shape [${shape}], as ${originOf(checkpoint.config)} describes the model, and it is not there` +
      `${near === undefined ? "" : `; the nearest unused name is ${describe(near)}`}.`,
  );
}

function wrongShape(
  checkpoint: Checkpoint,
  info: TensorInfo,
  expected: readonly number[],
): LokoError {
  return new LokoError(
    "ERR_WEIGHT_SHAPE",
    `${info.path}: expected ${describe(info.name)} of shape [${expected}], as ` +
      `${originOf(checkpoint.config)} describes the model, got [${info.shape}].`,
  );
}

function wrongLabels(info: TensorInfo, numLabels: number): LokoError {
  return new LokoError(
    "ERR_NUM_LABELS",
    `numLabels ${numLabels} does not fit the head of the checkpoint: ${info.path} has ` +
      `${describe(info.name)} of shape [${info.shape}], that is ${info.shape[0]} labels. Leave ` +
      "numLabels out, or set ignoreMismatchedSizes to start with a new head.",
  );
}

function dtypeOf(info: TensorInfo): "F32" | "F16" | "BF16" | "F64" {
  const { dtype } = info;
  if (dtype === "F32" || dtype === "F16" || dtype === "BF16" || dtype === "F64") return dtype;
  throw new LokoError(
    "ERR_UNSUPPORTED",
    `${info.path}: weight ${describe(info.name)} has dtype ${dtype}; a model can be read from F32, ` +
      "F16, BF16 and F64.",
  );
}
