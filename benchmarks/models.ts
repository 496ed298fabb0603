// The models of the trials: shapes of published ones with drawn weights. Times do not depend on the values.
import { type ResNetShape, resnetConfig, resnetWeights } from "./resnet.js";

/** Sizes of an encoder; its MLP is 4 times as wide as `hidden`. */
interface EncoderShape {
  readonly hidden: number;
  readonly layers: number;
  readonly heads: number;
}

export interface TextShape extends EncoderShape {
  readonly kind: "text";
  readonly vocabulary: number;
  readonly maxTokens: number;
}

export interface ImageShape extends EncoderShape {
  readonly kind: "image";
  readonly size: number;
  readonly patch: number;
  readonly channels: number;
}

export type ModelShape = TextShape | ImageShape | ResNetShape;
/** Models that read a square image. */
export type PictureShape = ImageShape | ResNetShape;

const BASE = { hidden: 768, layers: 12, heads: 12 } as const;

/** Models by the names that trial files use. */
export const MODELS: ReadonlyMap<string, ModelShape> = new Map<string, ModelShape>([
  ["roberta-base", { kind: "text", ...BASE, vocabulary: 50265, maxTokens: 512 }],
  ["vit-base", { kind: "image", ...BASE, size: 224, patch: 16, channels: 3 }],
  [
    "resnet-50",
    {
      kind: "resnet",
      size: 224,
      channels: 3,
      embedding: 64,
      hiddenSizes: [256, 512, 1024, 2048],
      depths: [3, 4, 6, 3],
    },
  ],
  // For the gate of CI: large enough that a step is arithmetic, small enough to take milliseconds.
  ["small", { kind: "text", hidden: 256, layers: 4, heads: 4, vocabulary: 1000, maxTokens: 128 }],
  ["tiny", { kind: "text", hidden: 64, layers: 2, heads: 4, vocabulary: 1000, maxTokens: 64 }],
  // Its arithmetic takes about a microsecond: what remains of a step is the way to it and back.
  ["smallest", { kind: "image", hidden: 8, layers: 1, heads: 1, size: 4, patch: 4, channels: 1 }],
]);

/** RoBERTa counts positions from here on, and pads with token 1. */
const FIRST_POSITION = 2;

/** `config.json` of a model with a head of so many classes; without dropout, as an online learner needs. */
export function configOf(shape: ModelShape, classes: number): Record<string, unknown> {
  const labels = Array.from({ length: classes }, (_, label) => label);
  const names = {
    id2label: Object.fromEntries(labels.map((label) => [label, `LABEL_${label}`])),
    label2id: Object.fromEntries(labels.map((label) => [`LABEL_${label}`, label])),
  };
  if (shape.kind === "resnet") return { ...resnetConfig(shape), ...names };
  const encoder = {
    hidden_size: shape.hidden,
    num_hidden_layers: shape.layers,
    num_attention_heads: shape.heads,
    intermediate_size: 4 * shape.hidden,
    hidden_act: "gelu",
    hidden_dropout_prob: 0,
    attention_probs_dropout_prob: 0,
    ...names,
  };
  if (shape.kind === "image") {
    return {
      model_type: "vit",
      architectures: ["ViTForImageClassification"],
      ...encoder,
      layer_norm_eps: 1e-12,
      image_size: shape.size,
      patch_size: shape.patch,
      num_channels: shape.channels,
    };
  }
  return {
    model_type: "roberta",
    architectures: ["RobertaForSequenceClassification"],
    ...encoder,
    layer_norm_eps: 1e-5,
    vocab_size: shape.vocabulary,
    max_position_embeddings: shape.maxTokens + FIRST_POSITION,
    type_vocab_size: 1,
    pad_token_id: FIRST_POSITION - 1,
  };
}

export interface WeightShape {
  readonly name: string;
  readonly shape: readonly number[];
}

/** All weights of a model with its head, named as in a checkpoint of transformers. */
export function weightsOf(shape: ModelShape, classes: number): WeightShape[] {
  if (shape.kind === "resnet") return resnetWeights(shape, classes);
  return shape.kind === "text" ? robertaWeights(shape, classes) : vitWeights(shape, classes);
}

function robertaWeights(shape: TextShape, classes: number): WeightShape[] {
  const { hidden, vocabulary, maxTokens } = shape;
  const embeddings = "roberta.embeddings";
  return [
    { name: `${embeddings}.word_embeddings.weight`, shape: [vocabulary, hidden] },
    {
      name: `${embeddings}.position_embeddings.weight`,
      shape: [maxTokens + FIRST_POSITION, hidden],
    },
    { name: `${embeddings}.token_type_embeddings.weight`, shape: [1, hidden] },
    ...norm(`${embeddings}.LayerNorm`, hidden),
    ...blocks("roberta", shape, "self", ["attention.output.LayerNorm", "output.LayerNorm"]),
    ...linear("classifier.dense", hidden, hidden),
    ...linear("classifier.out_proj", hidden, classes),
  ];
}

function vitWeights(shape: ImageShape, classes: number): WeightShape[] {
  const { hidden, channels, patch } = shape;
  const embeddings = "vit.embeddings";
  const projection = `${embeddings}.patch_embeddings.projection`;
  return [
    { name: `${embeddings}.cls_token`, shape: [1, 1, hidden] },
    { name: `${embeddings}.position_embeddings`, shape: [1, tokensOf(shape), hidden] },
    { name: `${projection}.weight`, shape: [hidden, channels, patch, patch] },
    { name: `${projection}.bias`, shape: [hidden] },
    ...blocks("vit", shape, "attention", ["layernorm_before", "layernorm_after"]),
    ...norm("vit.layernorm", hidden),
    ...linear("classifier", hidden, classes),
  ];
}

/** Tokens of an image: its patches and the one that is classified from. */
export function tokensOf({ size, patch }: ImageShape): number {
  return (size / patch) ** 2 + 1;
}

function blocks(
  model: string,
  { hidden, layers }: EncoderShape,
  attention: string,
  norms: readonly string[],
): WeightShape[] {
  return Array.from({ length: layers }, (_, layer) => `${model}.encoder.layer.${layer}`).flatMap(
    (path) => [
      ...["query", "key", "value"].flatMap((part) =>
        linear(`${path}.attention.${attention}.${part}`, hidden, hidden),
      ),
      ...linear(`${path}.attention.output.dense`, hidden, hidden),
      ...linear(`${path}.intermediate.dense`, hidden, 4 * hidden),
      ...linear(`${path}.output.dense`, 4 * hidden, hidden),
      ...norms.flatMap((name) => norm(`${path}.${name}`, hidden)),
    ],
  );
}

function linear(module: string, inputs: number, outputs: number): WeightShape[] {
  return [
    { name: `${module}.weight`, shape: [outputs, inputs] },
    { name: `${module}.bias`, shape: [outputs] },
  ];
}

function norm(module: string, width: number): WeightShape[] {
  return ["weight", "bias"].map((name) => ({ name: `${module}.${name}`, shape: [width] }));
}
