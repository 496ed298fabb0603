import { describe, LokoError } from "../errors.js";
import type { AdapterConfig } from "../lora/config.js";
import {
  loraParameterName,
  resolveModulesToSave,
  resolveTargets,
  savedParameterName,
} from "../lora/match.js";
import type { NativeAdapter } from "../native/addon.js";
import type { ModelGraph } from "../nn/graph.js";

/** Which part of an adapter a parameter belongs to: LoRA's A or B, or a module trained in full. */
export type ParameterGroup = "loraA" | "loraB" | "head";

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
  readonly group: ParameterGroup;
}

/** What a model trains: the parameters in the order of theta, and the same for native code. */
export interface ParameterLayout {
  readonly parameters: readonly ParameterInfo[];
  /** Length n of theta. */
  readonly size: number;
  readonly native: NativeAdapter;
}

/** Native code counts ranks and offsets in 32 bits. */
const MAX_PARAMETERS = 2 ** 31 - 1;

/**
 * Lays out theta: for each adapted module in the order of the graph A then B, then for each module
 * trained in full its weight and its bias.
 *
 * @throws LokoError ERR_TARGET_MODULES, ERR_LORA_CONFIG, ERR_OUT_OF_MEMORY for too long a theta, and
 * ERR_UNSUPPORTED for a module to save that is not linear.
 */
export function layOutParameters(
  graph: ModelGraph,
  head: string,
  config: AdapterConfig,
): ParameterLayout {
  const parameters: ParameterInfo[] = [];
  let size = 0;
  const place = (name: string, shape: readonly number[], group: ParameterGroup): number => {
    const offset = size;
    const count = shape.reduce((product, extent) => product * extent, 1);
    parameters.push(
      Object.freeze({ name, shape: Object.freeze([...shape]), offset, size: count, group }),
    );
    size += count;
    return offset;
  };

  const convolutions = graph.weights
    .filter(({ shape }) => shape.length === 4)
    .map(({ name }) => name.replace(/\.weight$/, ""));
  const lora = resolveTargets(graph.linears, head, config, convolutions).map((site) => ({
    module: site.path,
    rank: site.r,
    scale: site.scale,
    a: place(loraParameterName(site.path, "A"), [site.r, site.inFeatures], "loraA"),
    b: place(loraParameterName(site.path, "B"), [site.outFeatures, site.r], "loraB"),
  }));
  const trained = resolveModulesToSave(graph.modules, head, config).map((path) => {
    const linear = graph.linears.find((module) => module.path === path);
    if (linear === undefined) {
      throw new LokoError(
        "ERR_UNSUPPORTED",
        `modulesToSave: ${describe(path)} is not a linear module, and only those can be trained in ` +
          "full.",
      );
    }
    const { outFeatures, inFeatures } = linear;
    const hasBias = graph.weights.some(({ name }) => name === `${path}.bias`);
    return {
      module: path,
      weight: place(savedParameterName(path, "weight"), [outFeatures, inFeatures], "head"),
      bias: hasBias ? place(savedParameterName(path, "bias"), [outFeatures], "head") : -1,
    };
  });
  if (size > MAX_PARAMETERS) {
    throw new LokoError(
      "ERR_OUT_OF_MEMORY",
      `The adapter would have n = ${size} parameters, ${size * Float32Array.BYTES_PER_ELEMENT} bytes; ` +
        `at most ${MAX_PARAMETERS} are possible. Use a smaller r or fewer modules.`,
    );
  }
  const { initLoraWeights } = config;
  const init = initLoraWeights === "gaussian" ? "gaussian" : initLoraWeights ? "kaiming" : "random";
  return {
    parameters: Object.freeze(parameters),
    size,
    native: { lora, trained, parameters: size, init },
  };
}
