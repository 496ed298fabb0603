import { describe, LokoError } from "../errors.js";
import type { Checkpoint } from "../io/checkpoint.js";
import { isTimm, readString } from "../io/config.js";
import { originOf } from "../io/json.js";
import type { ModelGraph } from "../nn/graph.js";
import { bert, roberta } from "./bert.js";
import type { CarriedTensor, DerivedWeight } from "./carried.js";
import { densenets } from "./densenet.js";
import { dinov2 } from "./dinov2.js";
import type { ImageExtent } from "./image-size.js";
import { lenet } from "./lenet.js";
import { resnet } from "./resnet.js";
import { torchResnets } from "./torch-resnet.js";
import { vit } from "./vit.js";

/** What the user may ask for beside what the configuration says. */
export interface DefineOptions {
  /** Outputs of the head; absent: as the configuration says. */
  readonly numLabels?: number | undefined;
  /** Of the images; absent: as the configuration says. */
  readonly imageSize?: ImageExtent | undefined;
}

/** What a file of `lib/models` defines: how `config.json` becomes a graph. */
export interface Architecture {
  /** What `config.json` calls it. */
  readonly modelType: string;
  /** The key of `config.json` that names it: that of transformers, the default, or of timm. */
  readonly key?: "model_type" | "architecture";
  /** The class in Python that computes the same. */
  readonly taskClass: string;
  /** The module that holds the class; null where a user writes it. */
  readonly pythonModule: string | null;
  /** @throws LokoError ERR_CONFIG, ERR_UNKNOWN_ACTIVATION, ERR_UNSUPPORTED, ERR_SHAPE_MISMATCH. */
  define(checkpoint: Checkpoint, options?: DefineOptions): ModelDefinition;
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
  /** Weights that the graph needs in another form than the checkpoint has them. */
  readonly derived?: readonly DerivedWeight[];
  /** What `save` copies from the checkpoint, where that has it, so that Python misses nothing. */
  readonly carried?: readonly CarriedTensor[];
  /** Other weights that a checkpoint may hold and the model does not need. */
  readonly isIgnored: (name: string) => boolean;
}

const ARCHITECTURES: readonly Architecture[] = [
  vit,
  bert,
  roberta,
  resnet,
  dinov2,
  lenet,
  ...torchResnets,
  ...densenets,
];

/**
 * The architecture that `config.json` names, by "model_type", or without one by timm's "architecture".
 *
 * @throws LokoError ERR_UNKNOWN_MODEL_TYPE listing the supported ones.
 */
export function architectureOf(checkpoint: Checkpoint): Architecture {
  const { config } = checkpoint;
  const key = isTimm(config) ? "architecture" : "model_type";
  const name = readString(config, key);
  const ofKey = ARCHITECTURES.filter((architecture) => (architecture.key ?? "model_type") === key);
  const found = ofKey.find(({ modelType }) => modelType === name);
  if (found !== undefined) return found;
  throw new LokoError(
    "ERR_UNKNOWN_MODEL_TYPE",
    `${originOf(config)}: "${key}" must be one of ` +
      `${ofKey.map(({ modelType }) => describe(modelType)).join(", ")}, got ${describe(name)}.`,
  );
}
