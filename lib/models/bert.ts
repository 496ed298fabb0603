// BERT (Devlin et al., arXiv 1810.04805) and RoBERTa (Liu et al., arXiv 1907.11692) as
// BertForSequenceClassification and RobertaForSequenceClassification of Hugging Face transformers compute
// them in eval mode, with the weight names of their checkpoints. They share the encoder; what differs is
// how positions are counted and what sits on the first token.

import { describe, LokoError } from "../errors.js";
import type { Checkpoint } from "../io/checkpoint.js";
import { readNumber, readString } from "../io/config.js";
import { type JsonObject, originOf } from "../io/json.js";
import type { Activation } from "../native/addon.js";
import { GraphBuilder, type ModelGraph, type Value } from "../nn/graph.js";
import type { Architecture } from "./architecture.js";
import type { ImageExtent } from "./image-size.js";
import { labelCount } from "./labels.js";
import {
  addFeedForward,
  hasHead,
  readActivation,
  requireLayers,
  requireMultiple,
} from "./transformer.js";

const HEAD = "classifier";

interface EncoderConfig {
  readonly hidden: number;
  readonly layers: number;
  readonly heads: number;
  readonly intermediate: number;
  readonly activation: Activation;
  readonly eps: number;
  readonly vocabulary: number;
  readonly positionCount: number;
  readonly typeCount: number;
  readonly padTokenId: number;
}

/** What tells the two models apart. */
interface Variant {
  readonly modelType: "bert" | "roberta";
  readonly taskClass: string;
  /** A weight that only a checkpoint with a head of the task has. */
  readonly headWeight: string;
  /** RoBERTa numbers the tokens that are not padding, from padTokenId + 1 on. */
  readonly positionsSkipPadding: boolean;
  /** Between the first token and the output. */
  readonly pooler: string;
  readonly output: string;
  /** Weights that a checkpoint may hold and a classifier does not need, without the prefix. */
  readonly ignored: RegExp;
}

const BERT: Variant = {
  modelType: "bert",
  taskClass: "BertForSequenceClassification",
  headWeight: `${HEAD}.weight`,
  positionsSkipPadding: false,
  pooler: "bert.pooler.dense",
  output: HEAD,
  ignored: /^(?:cls\.(?:predictions|seq_relationship)\.|embeddings\.position_ids$)/,
};

const ROBERTA: Variant = {
  modelType: "roberta",
  taskClass: "RobertaForSequenceClassification",
  headWeight: `${HEAD}.out_proj.weight`,
  positionsSkipPadding: true,
  pooler: `${HEAD}.dense`,
  output: `${HEAD}.out_proj`,
  ignored: /^(?:lm_head\.|pooler\.|embeddings\.(?:position_ids|token_type_ids)$)/,
};

export const bert = architecture(BERT);
export const roberta = architecture(ROBERTA);

function architecture(variant: Variant): Architecture {
  const prefix = `${variant.modelType}.`;
  return {
    modelType: variant.modelType,
    taskClass: variant.taskClass,
    pythonModule: `transformers.models.${variant.modelType}.modeling_${variant.modelType}`,
    define(checkpoint, { numLabels, imageSize } = {}) {
      const { config } = checkpoint;
      refuseImageSize(imageSize);
      const sizes = readConfig(config, variant);
      requireLayers(checkpoint, prefix, sizes.layers);
      return {
        graph: build(sizes, variant, numLabels ?? labelCount(config)),
        tokens: {
          padTokenId: sizes.padTokenId,
          positionsSkipPadding: variant.positionsSkipPadding,
        },
        head: HEAD,
        newModules: newModules(checkpoint, variant),
        prefix,
        isIgnored: (name) =>
          variant.ignored.test(name.startsWith(prefix) ? name.slice(prefix.length) : name),
      };
    },
  };
}

function refuseImageSize(imageSize: ImageExtent | undefined): void {
  if (imageSize === undefined) return;
  throw new LokoError("ERR_OPTION", "imageSize is an option of models of images, not of texts.");
}

/** A checkpoint of a pretraining task lacks the head, and that of masked language modelling the pooler. */
function newModules(checkpoint: Checkpoint, variant: Variant): string[] {
  if (hasHead(checkpoint, variant.taskClass, variant.headWeight)) return [];
  const hasPooler = [...checkpoint.weights.keys()].some((name) => /\bpooler\.dense\./.test(name));
  return variant === BERT && !hasPooler ? [variant.pooler, HEAD] : [HEAD];
}

/** No defaults: transformers' own differ between versions and from the files of the hub. */
function readConfig(config: JsonObject, variant: Variant): EncoderConfig {
  const size = (key: string) => readNumber(config, key, { integer: true, min: 1, max: 2 ** 20 });
  refuseVariants(config);
  const table = (key: string) => readNumber(config, key, { integer: true, min: 1, max: 2 ** 24 });
  const result: EncoderConfig = {
    hidden: size("hidden_size"),
    layers: size("num_hidden_layers"),
    heads: size("num_attention_heads"),
    intermediate: size("intermediate_size"),
    activation: readActivation(config),
    eps: readNumber(config, "layer_norm_eps", { min: 0 }),
    vocabulary: table("vocab_size"),
    positionCount: table("max_position_embeddings"),
    typeCount: table("type_vocab_size"),
    padTokenId: readNumber(config, "pad_token_id", { integer: true, min: 0 }),
  };
  requireMultiple(config, "hidden_size", result.hidden, "num_attention_heads", result.heads);
  if (variant.positionsSkipPadding && result.positionCount < result.padTokenId + 2) {
    throw new LokoError(
      "ERR_CONFIG",
      `${originOf(config)}: "max_position_embeddings" must be at least "pad_token_id" + 2, since ` +
        `positions are counted from there, got ${result.positionCount} and ${result.padTokenId}.`,
    );
  }
  return result;
}

/** What changes the numbers of an encoder and is not computed here. */
function refuseVariants(config: JsonObject): void {
  const positions = readString(config, "position_embedding_type", { default: "absolute" });
  const refused =
    positions !== "absolute"
      ? `"position_embedding_type" ${describe(positions)}`
      : config.is_decoder === true
        ? '"is_decoder" true'
        : config.add_cross_attention === true
          ? '"add_cross_attention" true'
          : undefined;
  if (refused === undefined) return;
  throw new LokoError(
    "ERR_UNSUPPORTED",
    `${originOf(config)}: ${refused} is not supported; an encoder with absolute positions is.`,
  );
}

function build(config: EncoderConfig, variant: Variant, numLabels: number): ModelGraph {
  const { hidden, eps } = config;
  const path = variant.modelType;
  const g = new GraphBuilder();
  const embedded = g.embedTokens({
    words: `${path}.embeddings.word_embeddings`,
    positions: `${path}.embeddings.position_embeddings`,
    types: `${path}.embeddings.token_type_embeddings`,
    vocabulary: config.vocabulary,
    positionCount: config.positionCount,
    typeCount: config.typeCount,
    width: hidden,
    maxTokens: variant.positionsSkipPadding
      ? config.positionCount - config.padTokenId - 1
      : config.positionCount,
  });
  let x = g.layerNorm(embedded, { module: `${path}.embeddings.LayerNorm`, eps });
  for (let layer = 0; layer < config.layers; layer++) {
    x = addBlock(g, x, `${path}.encoder.layer.${layer}`, config);
  }
  const [pooled] = g.linear(g.selectFirst(x), [{ module: variant.pooler, out: hidden }], {
    activation: "tanh",
  });
  const [logits] = g.linear(pooled, [{ module: variant.output, out: numLabels }]);
  return g.finish(logits);
}

/** Norms come after the sums, other than in ViT. */
function addBlock(g: GraphBuilder, input: Value, path: string, config: EncoderConfig): Value {
  const { hidden, heads, eps } = config;
  const [q, k, v] = g.linear(input, [
    { module: `${path}.attention.self.query`, out: hidden },
    { module: `${path}.attention.self.key`, out: hidden },
    { module: `${path}.attention.self.value`, out: hidden },
  ]);
  const [attended] = g.linear(
    g.attention(q, k, v, heads),
    [{ module: `${path}.attention.output.dense`, out: hidden }],
    { residual: input },
  );
  const middle = g.layerNorm(attended, { module: `${path}.attention.output.LayerNorm`, eps });
  const output = addFeedForward(g, middle, { path, residual: middle, ...config });
  return g.layerNorm(output, { module: `${path}.output.LayerNorm`, eps });
}
