// Floating-point operations that a step needs, a multiply-add counted as two. What no trained parameter and
// no output depends on is left out ("pruned"), whether or not an implementation computes it all the same;
// so are norms, activations, softmax and embeddings, together below 1 %.
import { type ImageShape, type ModelShape, type TextShape, tokensOf } from "./models.js";
import { countResnet, resnetAdapterSize } from "./resnet.js";

type EncoderModel = TextShape | ImageShape;

/** Operations of one sample. */
export interface SampleFlops {
  readonly forward: number;
  /** Of one cotangent row on its way back. */
  readonly backward: number;
}

export interface FlopOptions {
  /** Tokens of a text; images have their own number. */
  readonly tokens?: number;
  readonly classes: number;
  readonly rank: number;
  readonly targetModules: readonly string[];
  /** Leave out what nothing depends on. Default true. */
  readonly pruned?: boolean;
}

/**
 * Counts a model that classifies from its first token, with LoRA on projections of its attention in every
 * block and a trained head. Pruned are, in the last block, all rows but the first of query, output
 * projection and MLP; in the first block, the way back below the adapted projections.
 */
export function countFlops(shape: ModelShape, options: FlopOptions): SampleFlops {
  return shape.kind === "resnet" ? countResnet(shape, options) : countEncoder(shape, options);
}

function countEncoder(shape: EncoderModel, options: FlopOptions): SampleFlops {
  const tokens = shape.kind === "image" ? tokensOf(shape) : options.tokens!;
  const { classes, pruned = true } = options;
  let forward = inputFlops(shape, tokens) + headFlops(shape, classes);
  // To the first token, and the gradient of the head itself.
  let backward = 2 * headFlops(shape, classes);
  for (let layer = 0; layer < shape.layers; layer++) {
    const block = countBlock(shape.hidden, tokens, options, {
      isLast: pruned && layer === shape.layers - 1,
      isFirst: pruned && layer === 0,
    });
    forward += block.forward;
    backward += block.backward;
  }
  return { forward, backward };
}

/** Patches are projected; tokens are looked up. */
function inputFlops(shape: EncoderModel, tokens: number): number {
  if (shape.kind === "text") return 0;
  return 2 * (tokens - 1) * shape.channels * shape.patch ** 2 * shape.hidden;
}

/** One token: RoBERTa's head has a square layer before the output. */
function headFlops({ kind, hidden }: EncoderModel, classes: number): number {
  return 2 * hidden * classes + (kind === "text" ? 2 * hidden ** 2 : 0);
}

function countBlock(
  width: number,
  tokens: number,
  { rank, targetModules }: FlopOptions,
  { isFirst, isLast }: { isFirst: boolean; isLast: boolean },
): SampleFlops {
  // Rows of query, output projection and MLP; keys and values keep all.
  const rows = isLast ? 1 : tokens;
  const rowsOf = (part: string) => (part === "query" ? rows : tokens);
  const square = 2 * width ** 2;
  const projections = (parts: readonly string[]) =>
    parts.reduce((sum, part) => sum + rowsOf(part) * square, 0);
  // Output projection, and two matrices of the MLP that are each four times as large.
  const afterAttention = rows * square * 9;
  const product = 2 * rows * tokens * width;
  const lora = (passes: number) =>
    targetModules.reduce((sum, part) => sum + passes * 2 * rowsOf(part) * width * rank, 0);

  const all = ["query", "key", "value"];
  // Forward two products (scores, weighted sum); back dP, dV, dQ, dK.
  const attentionBack = isFirst ? countFirstAttention(targetModules) : 4;
  return {
    forward: projections(all) + afterAttention + 2 * product + lora(2),
    // Back dY·B, dB, dA, and the adapter's share of dX, which ends in the first block.
    backward:
      (isFirst ? 0 : projections(all)) +
      afterAttention +
      attentionBack * product +
      lora(isFirst ? 3 : 4),
  };
}

/** Products on the way back to the adapted projections of the first block. */
function countFirstAttention(targets: readonly string[]): number {
  const scores = targets.filter((target) => target !== "value").length;
  return (scores > 0 ? 1 + scores : 0) + (targets.includes("value") ? 1 : 0);
}

/** Parameters of the adapter's factors, whose rows of the Jacobian are stored. */
export function adapterSize(shape: ModelShape, { rank, targetModules }: FlopOptions): number {
  if (shape.kind === "resnet") return resnetAdapterSize(shape, rank);
  return shape.layers * targetModules.length * 2 * shape.hidden * rank;
}

/** Innovation covariance, half of a symmetric k × k product over n parameters, and update of p. */
export function kalmanFlops(rows: number, parameters: number): number {
  return rows * (rows + 1) * parameters + 2 * rows ** 2 * parameters;
}

/** Operations of one step of a batch. `rows`: cotangent rows of a LoKO step, of its one sample. */
export function stepFlops(
  sample: SampleFlops,
  step: { work: "adamw" | "loko" | "predict"; batch: number; rows: number; parameters: number },
): number {
  const { forward, backward } = sample;
  switch (step.work) {
    case "predict":
      return step.batch * forward;
    case "adamw":
      return step.batch * (forward + backward);
    case "loko":
      return forward + step.rows * backward + kalmanFlops(step.rows, step.parameters);
  }
}
