import { types } from "node:util";
import { describe, LokoError } from "../errors.js";
import type { NativeBatch } from "../native/addon.js";
import type { GraphInput } from "../nn/graph.js";
import { lengthOf } from "../tensor/typed-array.js";
import type { TokenRules } from "./architecture.js";

/**
 * A batch of texts as token numbers, as a tokenizer makes it: row-major [B, T] each, shorter texts padded.
 * Copied before a call returns, so the arrays may be reused at once.
 */
export interface TextInputs {
  /** Token ids, each in [0, vocabSize). */
  readonly inputIds: Int32Array;
  /** 1 for a token, 0 for padding, which attention does not see. Default all 1. */
  readonly attentionMask?: Int32Array | undefined;
  /** Which text of a pair a token belongs to, each in [0, typeVocabSize). Default all 0. */
  readonly tokenTypeIds?: Int32Array | undefined;
  /** [B, T]; T at most the model's `maxLength`, not counting columns that are padding in every sample. */
  readonly shape: readonly number[];
}

/** The checked arrays of a batch, and how many columns of it are worth computing. */
interface Tokens {
  readonly ids: Int32Array;
  readonly mask: Int32Array | undefined;
  readonly tokenTypes: Int32Array | undefined;
  readonly batch: number;
  readonly length: number;
  /** Columns up to the last one that is not padding in every sample. */
  readonly used: number;
}

/**
 * Checks a batch against the model and lays it out for native code. Columns at the end that every sample
 * masks are left out: attention gives them probability 0 and the output is read from the first token, so
 * that the result is the same.
 *
 * @throws LokoError ERR_INPUT_TYPE, ERR_SHAPE_MISMATCH, ERR_SEQUENCE_LENGTH, ERR_TOKEN_RANGE.
 */
export function checkTextInputs(
  inputs: TextInputs,
  limits: GraphInput & { kind: "text" },
  rules: TokenRules,
): NativeBatch {
  const { inputIds, attentionMask, tokenTypeIds, shape } = inputs;
  const ids = requireInt32(inputIds, "inputIds");
  const [batch, length] = checkShape(shape);
  const optional = (values: Int32Array | undefined, name: string) =>
    values === undefined ? undefined : requireInt32(values, name);
  const mask = optional(attentionMask, "attentionMask");
  const tokenTypes = optional(tokenTypeIds, "tokenTypeIds");
  for (const [name, values] of Object.entries({
    inputIds: ids,
    attentionMask: mask,
    tokenTypeIds: tokenTypes,
  })) {
    if (values !== undefined && values.length !== batch * length) {
      throw new LokoError(
        "ERR_SHAPE_MISMATCH",
        `inputs.${name} must have ${batch} x ${length} elements for the shape [${batch}, ${length}], ` +
          `got ${values.length}.`,
      );
    }
  }
  requireRange(ids, "inputIds", limits.vocabulary, length, "the model's vocabulary");
  if (mask !== undefined) requireRange(mask, "attentionMask", 2, length, "0 or 1");
  if (tokenTypes !== undefined) {
    requireRange(tokenTypes, "tokenTypeIds", limits.typeCount, length, "the model's token types");
  }
  const used = mask === undefined ? length : usedColumns(mask, batch, length);
  if (used > limits.maxTokens) {
    throw new LokoError(
      "ERR_SEQUENCE_LENGTH",
      `inputs have ${used} tokens, and the model has positions for ${limits.maxTokens}; truncate them ` +
        `(maxLength: ${limits.maxTokens} for a tokenizer).`,
    );
  }
  return {
    values: layOut({ ids, mask, tokenTypes, batch, length, used }, rules),
    batch,
    tokens: used,
  };
}

function checkShape(shape: unknown): [batch: number, length: number] {
  const extents: unknown[] = Array.isArray(shape) ? [shape[0], shape[1]] : [];
  const isPair = Array.isArray(shape) && shape.length === 2;
  if (!isPair || !extents.every((extent) => Number.isSafeInteger(extent) && Number(extent) >= 1)) {
    throw new LokoError(
      isPair ? "ERR_SHAPE_MISMATCH" : "ERR_INPUT_TYPE",
      "inputs.shape must be [B, T], two integers >= 1, got " +
        `${isPair ? `[${extents.map(describe).join(", ")}]` : describe(shape)}.`,
    );
  }
  return extents as [number, number];
}

/** A view of its own: properties of the caller's array could hide its length or its methods. */
function requireInt32(values: unknown, name: string): Int32Array {
  if (!types.isInt32Array(values)) {
    throw new LokoError(
      "ERR_INPUT_TYPE",
      `inputs.${name} must be an Int32Array, got ${describe(values)}.`,
    );
  }
  return new Int32Array(values.buffer, values.byteOffset, lengthOf(values));
}

function requireRange(
  values: Int32Array,
  name: string,
  end: number,
  length: number,
  what: string,
): void {
  const at = values.findIndex((value) => value < 0 || value >= end);
  if (at < 0) return;
  throw new LokoError(
    "ERR_TOKEN_RANGE",
    `inputs.${name} must be in [0, ${end}) (${what}), got ${values[at]} at token ${at % length} of ` +
      `sample ${Math.floor(at / length)}.`,
  );
}

function usedColumns(mask: Int32Array, batch: number, length: number): number {
  let used = 0;
  for (let b = 0; b < batch; b++) {
    const last = mask.subarray(b * length, (b + 1) * length).lastIndexOf(1) + 1;
    if (last === 0) {
      throw new LokoError(
        "ERR_INPUT_TYPE",
        `inputs.attentionMask must leave at least one token of each sample, got 0 for all of sample ${b}.`,
      );
    }
    used = Math.max(used, last);
  }
  return used;
}

/** Four blocks [B, T]: ids, positions, types, and what is added to the scores of attention. */
function layOut(tokens: Tokens, rules: TokenRules): Float32Array {
  const { ids, mask, tokenTypes, batch, length, used } = tokens;
  const block = batch * used;
  const values = new Float32Array(4 * block);
  const row = (source: Int32Array, b: number) => source.subarray(b * length, b * length + used);
  for (let b = 0; b < batch; b++) {
    const target = (which: number) =>
      values.subarray(which * block + b * used, which * block + (b + 1) * used);
    target(0).set(row(ids, b));
    writePositions(target(1), row(ids, b), rules);
    if (tokenTypes !== undefined) target(2).set(row(tokenTypes, b));
    if (mask !== undefined) {
      const scores = target(3);
      row(mask, b).forEach((present, t) => {
        if (present === 0) scores[t] = Number.NEGATIVE_INFINITY;
      });
    }
  }
  return values;
}

function writePositions(target: Float32Array, ids: Int32Array, rules: TokenRules): void {
  const { padTokenId, positionsSkipPadding } = rules;
  let position = padTokenId;
  for (let t = 0; t < target.length; t++) {
    if (!positionsSkipPadding) target[t] = t;
    else target[t] = ids[t] === padTokenId ? padTokenId : ++position;
  }
}
