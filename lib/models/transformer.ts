// What transformer encoders have in common: configurations, and the layers that are the same in all.

import { describe, LokoError } from "../errors.js";
import type { Checkpoint } from "../io/checkpoint.js";
import { readString } from "../io/config.js";
import { type JsonObject, originOf } from "../io/json.js";
import type { Activation } from "../native/addon.js";
import type { GraphBuilder, Value } from "../nn/graph.js";

/** `hidden_act` in transformers' spelling (transformers.activations.ACT2FN). */
const ACTIVATIONS: ReadonlyMap<string, Activation> = new Map([
  ["gelu", "gelu"],
  ["gelu_python", "gelu"],
  ["gelu_new", "gelu_tanh"],
  ["gelu_fast", "gelu_tanh"],
  ["gelu_pytorch_tanh", "gelu_tanh"],
  ["relu", "relu"],
  ["quick_gelu", "quick_gelu"],
  ["tanh", "tanh"],
]);

/** @throws LokoError ERR_UNKNOWN_ACTIVATION listing the supported ones; ERR_CONFIG. */
export function readActivation(config: JsonObject, options: { default?: string } = {}): Activation {
  const name = readString(config, "hidden_act", options);
  const activation = ACTIVATIONS.get(name);
  if (activation !== undefined) return activation;
  throw new LokoError(
    "ERR_UNKNOWN_ACTIVATION",
    `${originOf(config)}: "hidden_act" must be one of ` +
      `${[...ACTIVATIONS.keys()].map(describe).join(", ")}, got ${describe(name)}.`,
  );
}

/** @throws LokoError ERR_CONFIG */
export function requireMultiple(
  config: JsonObject,
  key: string,
  value: number,
  ofKey: string,
  of: number,
): void {
  if (value % of === 0) return;
  throw new LokoError(
    "ERR_CONFIG",
    `${originOf(config)}: "${key}" must be a multiple of "${ofKey}", got ${value} and ${of}.`,
  );
}

/**
 * Whether a checkpoint holds the head of its task. One that says it is of the task's class must; any
 * other brings one when it has it.
 */
export function hasHead(
  { config, weights }: Checkpoint,
  taskClass: string,
  headWeight: string,
): boolean {
  const { architectures } = config;
  return (
    (Array.isArray(architectures) && architectures.includes(taskClass)) || weights.has(headWeight)
  );
}

/**
 * Before the graph is built: a number in a configuration must not decide how long that takes.
 *
 * @param prefix - what the names of the backbone begin with in a checkpoint of the task.
 * @throws LokoError ERR_WEIGHT_MISSING
 */
export function requireLayers(
  { config, weights }: Checkpoint,
  prefix: string,
  layers: number,
): void {
  const held = new Set<string>();
  for (const name of weights.keys()) {
    const path = name.startsWith(prefix) ? name.slice(prefix.length) : name;
    const [, layer] = /^encoder\.layer\.(\d+)\./.exec(path) ?? [];
    if (layer !== undefined) held.add(layer);
  }
  if (layers <= held.size) return;
  throw new LokoError(
    "ERR_WEIGHT_MISSING",
    `${originOf(config)}: "num_hidden_layers" promises ${layers} layers, but the checkpoint holds ` +
      `${held.size}.`,
  );
}

/** residual + W₂·act(W₁·x), by the names that BERT and ViT give the two matrices. */
export function addFeedForward(
  g: GraphBuilder,
  x: Value,
  options: {
    readonly path: string;
    readonly residual: Value;
    readonly hidden: number;
    readonly intermediate: number;
    readonly activation: Activation;
  },
): Value {
  const { path, residual, hidden, intermediate, activation } = options;
  const [wide] = g.linear(x, [{ module: `${path}.intermediate.dense`, out: intermediate }], {
    activation,
  });
  const [output] = g.linear(wide, [{ module: `${path}.output.dense`, out: hidden }], { residual });
  return output;
}
