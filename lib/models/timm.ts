// config.json as timm writes it (`save_for_hf`), which docs/models.md also gives torchvision's checkpoints:
// "architecture", "num_classes", and where the model was made with other arguments "model_args".

import { describe, LokoError } from "../errors.js";
import { readNumber, readObject } from "../io/config.js";
import { type JsonObject, originOf } from "../io/json.js";
import type { ModelGraph } from "../nn/graph.js";
import type { DefineOptions, ModelDefinition } from "./architecture.js";
import { batchCounters } from "./conv-net.js";
import type { ImageExtent } from "./image-size.js";
import { labelCount } from "./labels.js";

/** Arguments of a timm model that only training looks at. */
const TRAINING_ARGUMENTS = [
  "drop_rate",
  "drop_path_rate",
  "drop_block_rate",
  "proj_drop_rate",
  "memory_efficient",
  "zero_init_last",
  "num_classes",
];

export interface TimmConfig {
  /** "in_chans", default 3. */
  readonly channels: number;
  readonly numLabels: number;
  readonly imageSize: ImageExtent;
  /** The other arguments of the model; read it with the functions of `config.ts`. */
  readonly args: JsonObject;
}

/**
 * @param known - the arguments that the architecture reads.
 * @throws LokoError ERR_CONFIG; ERR_UNSUPPORTED naming an argument that would change the net.
 */
export function readTimmConfig(
  config: JsonObject,
  options: DefineOptions,
  known: readonly string[],
): TimmConfig {
  const origin = originOf(config);
  const args = readObject(config, "model_args");
  for (const [key, value] of Object.entries(args)) {
    if (known.includes(key) || key === "in_chans" || TRAINING_ARGUMENTS.includes(key)) continue;
    if (key === "global_pool" && value === "avg") continue;
    throw new LokoError(
      "ERR_UNSUPPORTED",
      `${origin}: "model_args" sets ${describe(key)} to ${describe(value)}, which is not supported.`,
    );
  }
  if (Object.hasOwn(config, "global_pool") && config.global_pool !== "avg") {
    throw new LokoError(
      "ERR_UNSUPPORTED",
      `${origin}: "global_pool" ${describe(config.global_pool)} is not supported; "avg" is.`,
    );
  }
  return {
    channels: readNumber(args, "in_chans", { integer: true, min: 1, max: 2 ** 10, default: 3 }),
    numLabels: options.numLabels ?? labelCount(config),
    imageSize: options.imageSize ?? inputSize(config),
    args,
  };
}

/** The model of a graph; a checkpoint with "num_classes" 0 has no head. */
export function defineTimm(config: JsonObject, graph: ModelGraph, head: string): ModelDefinition {
  return {
    graph,
    head,
    newModules: config.num_classes === 0 ? [head] : [],
    prefix: "",
    carried: batchCounters(graph),
    isIgnored: () => false,
  };
}

/** `pretrained_cfg.input_size` [channels, height, width], else 224 as all of torchvision's nets. */
function inputSize(config: JsonObject): ImageExtent {
  const size = readObject(config, "pretrained_cfg").input_size ?? [3, 224, 224];
  if (
    Array.isArray(size) &&
    size.length === 3 &&
    size.every((n) => Number.isSafeInteger(n) && n > 0)
  ) {
    return { height: size[1] as number, width: size[2] as number };
  }
  throw new LokoError(
    "ERR_CONFIG",
    `${originOf(config)}: "pretrained_cfg.input_size" must be [channels, height, width], got ` +
      `${describe(size)}.`,
  );
}
