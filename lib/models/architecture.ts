import { describe, LokoError } from "../errors.js";
import type { Checkpoint } from "../io/checkpoint.js";
import { readString } from "../io/config.js";
import { originOf } from "../io/json.js";
import type { ModelGraph } from "../nn/graph.js";
import { bert, roberta } from "./bert.js";
import { vit } from "./vit.js";

/** What a file of `lib/models` defines: how `config.json` becomes a graph. */
export interface Architecture {
  /** `model_type` in `config.json`. */
  readonly modelType: string;
  /** The class of transformers that computes the same, for `architectures` in `config.json`. */
  readonly taskClass: string;
  /**
   * @param numLabels - outputs of the head; absent: as the configuration says.
   * @throws LokoError ERR_CONFIG, ERR_UNKNOWN_ACTIVATION.
   */
  define(checkpoint: Checkpoint, numLabels?: number): ModelDefinition;
}

/** What a model of text assumes about its tokens. */
export interface TokenRules {
  readonly padTokenId: number;
  /**
   * false: positions are 0, 1, 2, … . true: tokens other than padTokenId are numbered from padTokenId + 1
   * on, and padding has the position padTokenId, whatever the attention mask says.
   */
  readonly positionsSkipPadding: boolean;
}

/** One model as its checkpoint describes it. */
export interface ModelDefinition {
  readonly graph: ModelGraph;
  /** How tokens are numbered; only for models of text. */
  readonly tokens?: TokenRules;
  /** Path of the output head; its parts lie below it. */
  readonly head: string;
  /** Modules that are not in the checkpoint, since it is not of this task: they are drawn. */
  readonly newModules: readonly string[];
  /** What the names of the backbone begin with, and lack in a checkpoint of the backbone alone. */
  readonly prefix: string;
  /** Weights that a checkpoint may hold and the model does not need. */
  readonly isIgnored: (name: string) => boolean;
}

const ARCHITECTURES: readonly Architecture[] = [vit, bert, roberta];

/**
 * The architecture that `config.json` names.
 *
 * @throws LokoError ERR_UNKNOWN_MODEL_TYPE listing the supported ones.
 */
export function architectureOf(checkpoint: Checkpoint): Architecture {
  const modelType = readString(checkpoint.config, "model_type");
  const found = ARCHITECTURES.find((architecture) => architecture.modelType === modelType);
  if (found !== undefined) return found;
  const known = ARCHITECTURES.map((architecture) => architecture.modelType);
  throw new LokoError(
    "ERR_UNKNOWN_MODEL_TYPE",
    `${originOf(checkpoint.config)}: "model_type" must be one of ${known.map(describe).join(", ")}, ` +
      `got ${describe(modelType)}.`,
  );
}
