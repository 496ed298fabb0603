import { types } from "node:util";
import { describe, LokoError } from "../errors.js";
import type { NativeBatch } from "../native/addon.js";
import type { GraphInput } from "../nn/graph.js";
import { lengthOf } from "../tensor/typed-array.js";
import type { TokenRules } from "./architecture.js";
import { checkTextInputs, type TextInputs } from "./text-inputs.js";

/** A batch of images. */
export interface ImageInputs {
  /**
   * Pixels after the normalisation that the model was trained with, row-major [B, C, H, W]. Copied
   * before a call returns, so the array may be reused at once.
   */
  readonly pixelValues: Float32Array;
  /** [B, C, H, W]; C, H and W are those of `model.input`. */
  readonly shape: readonly number[];
}

/** A batch for a model of images or of texts. */
export type ModelInputs = ImageInputs | TextInputs;

/** What a model takes. */
export interface InputRules {
  readonly input: GraphInput;
  /** Only for texts. */
  readonly tokens: TokenRules | undefined;
}

/**
 * Checks a batch against the model, reading each property once: what a getter of the caller answers later
 * has no effect. Native code looks for NaN and infinities.
 *
 * @throws LokoError ERR_INPUT_TYPE, ERR_SHAPE_MISMATCH, ERR_SEQUENCE_LENGTH, ERR_TOKEN_RANGE.
 */
export function checkInputs(inputs: ModelInputs, { input, tokens }: InputRules): NativeBatch {
  if (typeof inputs !== "object" || inputs === null) {
    throw new LokoError(
      "ERR_INPUT_TYPE",
      `inputs must be { ${input.kind === "text" ? "inputIds" : "pixelValues"}, shape }, got ` +
        `${describe(inputs)}.`,
    );
  }
  return input.kind === "text"
    ? checkTextInputs(inputs as TextInputs, input, tokens!)
    : checkImageInputs(inputs as ImageInputs, input);
}

function checkImageInputs(inputs: ImageInputs, image: GraphInput & { kind: "image" }): NativeBatch {
  const { pixelValues, shape } = inputs;
  if (!types.isFloat32Array(pixelValues)) {
    throw new LokoError(
      "ERR_INPUT_TYPE",
      `inputs.pixelValues must be a Float32Array, got ${describe(pixelValues)}.`,
    );
  }
  const extents = firstExtents(shape);
  if (!extents?.every((extent) => Number.isSafeInteger(extent))) {
    throw new LokoError(
      "ERR_INPUT_TYPE",
      `inputs.shape must be an array of integers [B, C, H, W], got ${describe(shape)}.`,
    );
  }
  const { channels, height, width } = image;
  const [batch, ...sample] = extents as number[];
  const got = extents.length > 4 ? describe(shape) : `[${extents.join(", ")}]`;
  if (
    batch === undefined ||
    batch < 1 ||
    sample.length !== 3 ||
    sample[0] !== channels ||
    sample[1] !== height ||
    sample[2] !== width
  ) {
    throw new LokoError(
      "ERR_SHAPE_MISMATCH",
      `inputs.shape must be [B, ${channels}, ${height}, ${width}] with B >= 1, as the model's ` +
        `configuration and the option imageSize of Model.fromPretrained say, got ${got}.`,
    );
  }
  const expected = batch * channels * height * width;
  const length = lengthOf(pixelValues);
  if (length !== expected) {
    throw new LokoError(
      "ERR_SHAPE_MISMATCH",
      `inputs.pixelValues must have ${expected} elements for the shape ${got}, got ${length}.`,
    );
  }
  return { values: pixelValues, batch, tokens: 0 };
}

/** A copy of the shape, cut after five extents: four are wanted, and a length may be anything. */
function firstExtents(shape: unknown): unknown[] | undefined {
  if (!Array.isArray(shape)) return undefined;
  if (shape.length > 4) return Array.from({ length: 5 }, () => 0);
  return Array.from({ length: shape.length }, (_, axis) => shape[axis]);
}

/**
 * Checks class indices: one for each sample, in [0, numLabels).
 *
 * @throws LokoError ERR_INPUT_TYPE, ERR_SHAPE_MISMATCH, ERR_LABEL_RANGE.
 */
export function checkLabels(labels: Int32Array, batch: number, numLabels: number): void {
  if (!types.isInt32Array(labels)) {
    throw new LokoError(
      "ERR_INPUT_TYPE",
      `labels must be an Int32Array of ${batch} class indices, got ${describe(labels)}.`,
    );
  }
  if (lengthOf(labels) !== batch) {
    throw new LokoError(
      "ERR_SHAPE_MISMATCH",
      `labels must have one entry for each of ${batch} samples, got ${lengthOf(labels)}.`,
    );
  }
  const at = labels.findIndex((label) => label < 0 || label >= numLabels);
  if (at >= 0) {
    throw new LokoError(
      "ERR_LABEL_RANGE",
      `labels[${at}] must be in [0, ${numLabels}), as the model has ${numLabels} labels, got ` +
        `${labels[at]}.`,
    );
  }
}

/**
 * Checks float targets: m for each sample, all finite.
 *
 * @throws LokoError ERR_INPUT_TYPE, ERR_SHAPE_MISMATCH, ERR_INPUT_NOT_FINITE.
 */
export function checkValues(targets: Float32Array, batch: number, outputs: number): void {
  if (!types.isFloat32Array(targets)) {
    throw new LokoError(
      "ERR_INPUT_TYPE",
      `targets must be a Float32Array of ${batch} x ${outputs} values, got ${describe(targets)}.`,
    );
  }
  if (lengthOf(targets) !== batch * outputs) {
    throw new LokoError(
      "ERR_SHAPE_MISMATCH",
      `targets must have ${batch} x ${outputs} elements, got ${lengthOf(targets)}.`,
    );
  }
  requireFinite(targets, "targets");
}

/** @throws LokoError ERR_INPUT_NOT_FINITE with the position of the first NaN or infinity. */
export function requireFinite(values: Float32Array, name: string): void {
  const at = values.findIndex((value) => !Number.isFinite(value));
  if (at >= 0) {
    throw new LokoError(
      "ERR_INPUT_NOT_FINITE",
      `${name}[${at}] must be finite, got ${values[at]}.`,
    );
  }
}

export type { TextInputs } from "./text-inputs.js";
