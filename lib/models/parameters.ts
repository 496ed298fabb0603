import { describe, LokoError } from "../errors.js";
import type { AdapterConfig } from "../lora/config.js";
import {
  biasParameterName,
  loraParameterName,
  resolveModulesToSave,
  resolveTargets,
  savedParameterName,
} from "../lora/match.js";
import { factorShapes, type LoraSite, targetModulesOf } from "../lora/modules.js";
import type { NativeAdapter } from "../native/addon.js";
import type { ModelGraph } from "../nn/graph.js";
import { elementsOf } from "../tensor/shape.js";
import type { ModelDefinition } from "./architecture.js";

/**
 * Which part of an adapter a parameter belongs to: LoRA's A or B, a bias beside a frozen weight, or a
 * module trained in full. LoKO's initial variance for `"head"` holds for `"bias"` as well.
 */
export type ParameterGroup = "loraA" | "loraB" | "bias" | "head";

/** One trainable tensor and its place in the parameter vector theta. */
export interface ParameterInfo {
  /** The name in PEFT's `adapter_model.safetensors`. */
  readonly name: string;
  /** Row-major, [outputs, inputs] for matrices, as PyTorch stores them. */
  readonly shape: readonly number[];
  /** Index of the first element in theta. */
  readonly offset: number;
  /** Number of elements. */
  readonly size: number;
  /** Which part of the adapter it is. */
  readonly group: ParameterGroup;
}

/** What an adapter trains, before it has a place in theta. */
export interface AdapterPlan {
  readonly config: AdapterConfig;
  readonly sites: readonly LoraSite[];
  /** Paths of the modules trained in full. */
  readonly saved: readonly string[];
  /** Biases beside frozen weights, by their names in the graph. */
  readonly biases: readonly string[];
}

/** What a model trains: the parameters in the order of theta, and the same for native code. */
export interface ParameterLayout {
  readonly plan: AdapterPlan;
  readonly parameters: readonly ParameterInfo[];
  /** Length n of theta. */
  readonly size: number;
  readonly native: NativeAdapter;
}

/** Native code counts ranks and offsets in 32 bits. */
const MAX_PARAMETERS = 2 ** 31 - 1;

/**
 * Decides what the options of `addAdapter` train.
 *
 * @throws LokoError ERR_TARGET_MODULES, ERR_LORA_CONFIG, ERR_UNSUPPORTED.
 */
export function planAdapter(graph: ModelGraph, head: string, config: AdapterConfig): AdapterPlan {
  const sites = resolveTargets(targetModulesOf(graph), head, config);
  const saved = resolveModulesToSave(graph.modules, head, config);
  return { config, sites, saved, biases: trainedBiases(graph, config, sites, saved) };
}

/** The biases that `bias` names, but for those of modules trained in full, in the order of the graph. */
export function trainedBiases(
  graph: ModelGraph,
  { bias }: AdapterConfig,
  sites: readonly LoraSite[],
  saved: readonly string[],
): string[] {
  if (bias === "none") return [];
  const adapted = new Set(sites.map(({ path }) => path));
  return graph.weights
    .map(({ name }) => name)
    .filter((name) => name.endsWith(".bias"))
    .filter((name) => !saved.includes(moduleOf(name)))
    .filter((name) => bias === "all" || adapted.has(moduleOf(name)));
}

/** The path of the module that a parameter belongs to. */
export function moduleOf(parameter: string): string {
  return parameter.slice(0, parameter.lastIndexOf("."));
}

/**
 * Lays out theta: for each adapted module in the order of the graph A then B, then the trained biases in
 * that order, then for each module trained in full its weight and its bias.
 *
 * @throws LokoError ERR_OUT_OF_MEMORY for too long a theta, and ERR_UNSUPPORTED for a module to save
 * that is not linear or a bias that cannot be trained.
 */
export function layOutParameters(graph: ModelGraph, plan: AdapterPlan): ParameterLayout {
  const parameters: ParameterInfo[] = [];
  let size = 0;
  const place = (name: string, shape: readonly number[], group: ParameterGroup): number => {
    const offset = size;
    const count = elementsOf(shape);
    parameters.push(
      Object.freeze({ name, shape: Object.freeze([...shape]), offset, size: count, group }),
    );
    size += count;
    return offset;
  };

  const shapes = new Map(graph.weights.map(({ name, shape }) => [name, shape]));
  const lora = plan.sites.map((site) => {
    const { path: module, r: rank, scale } = site;
    const { a, b } = factorShapes(site, rank);
    return {
      module,
      rank,
      scale,
      a: place(loraParameterName(module, "A"), a, "loraA"),
      b: place(loraParameterName(module, "B"), b, "loraB"),
    };
  });
  const biases = plan.biases.map((parameter) => {
    requireTrainable(graph, `bias "${plan.config.bias}"`, moduleOf(parameter));
    const isAdapted = plan.sites.some(({ path }) => path === moduleOf(parameter));
    const name = biasParameterName(moduleOf(parameter), isAdapted);
    return { parameter, offset: place(name, shapes.get(parameter)!, "bias") };
  });
  const trained = plan.saved.map((path) => {
    requireLinear(graph, path);
    const bias = shapes.get(`${path}.bias`);
    return {
      module: path,
      weight: place(savedParameterName(path, "weight"), shapes.get(`${path}.weight`)!, "head"),
      bias: bias === undefined ? -1 : place(savedParameterName(path, "bias"), bias, "head"),
    };
  });
  if (size > MAX_PARAMETERS) {
    throw new LokoError(
      "ERR_OUT_OF_MEMORY",
      `The adapter would have n = ${size} parameters, ${size * Float32Array.BYTES_PER_ELEMENT} bytes; ` +
        `at most ${MAX_PARAMETERS} are possible. Use a smaller r or fewer modules.`,
    );
  }
  const { initLoraWeights } = plan.config;
  const init = initLoraWeights === "gaussian" ? "gaussian" : initLoraWeights ? "kaiming" : "random";
  return {
    plan,
    parameters: Object.freeze(parameters),
    size,
    native: { lora, trained, biases, parameters: size, init },
  };
}

/**
 * Number of parameters of the class in Python, without what an adapter adds. As in PyTorch, the running
 * statistics of batch norms are none.
 */
export function countWeights({ graph, carried = [], derived = [] }: ModelDefinition): number {
  const sources = new Map(derived.map(({ name, sourceShape }) => [name, sourceShape]));
  const weights = graph.weights.filter(({ name }) => !/\.running_(?:mean|var)$/.test(name));
  return [...weights, ...carried.filter(({ isParameter }) => isParameter)].reduce(
    (sum, { name, shape }) => sum + elementsOf(sources.get(name) ?? shape),
    0,
  );
}

/** Native code trains linear modules and layer norms; `option` asked for the module or its bias. */
function requireTrainable(graph: ModelGraph, option: string, path: string): void {
  const reason = untrainable(graph, path);
  if (reason === undefined) return;
  throw new LokoError(
    "ERR_UNSUPPORTED",
    `${option}: ${describe(path)} ${reason}, and such modules are frozen but for LoRA factors.`,
  );
}

function untrainable({ spec }: ModelGraph, path: string): string | undefined {
  for (const node of spec.nodes) {
    if (node.op === "conv2d" && node.module === path) return "is a convolution";
    const norm = node.op === "conv2d" ? node.norm : node.op === "batchNorm" ? node : undefined;
    if (norm?.bias === `${path}.bias`) return "is a batch norm";
    const parts = node.op === "linear" ? node.parts : [];
    if (parts.some(({ module, outputScale }) => module === path && outputScale !== undefined)) {
      return "has an output that is scaled";
    }
  }
  return undefined;
}

function requireLinear(graph: ModelGraph, path: string): void {
  requireTrainable(graph, "modulesToSave", path);
  if (graph.linears.some((module) => module.path === path)) return;
  throw new LokoError(
    "ERR_UNSUPPORTED",
    `modulesToSave: ${describe(path)} is not a linear module, and only those can be trained in full.`,
  );
}
