import { describe, LokoError } from "../errors.js";
import type { ModelGraph } from "../nn/graph.js";

/** A batch of images. */
export interface ImageInputs {
  /**
   * Pixels after the normalisation that the model was trained with, row-major [B, C, H, W]. Copied
   * before a call returns, so the array may be reused at once.
   */
  readonly pixelValues: Float32Array;
  /** [B, C, H, W]; C, H and W must be those of the model's configuration. */
  readonly shape: readonly number[];
}

/**
 * Checks a batch against the model; native code looks for NaN and infinities.
 *
 * @returns the batch size B.
 * @throws LokoError ERR_INPUT_TYPE, ERR_SHAPE_MISMATCH.
 */
export function checkInputs(inputs: ImageInputs, image: ModelGraph["image"]): number {
  if (typeof inputs !== "object" || inputs === null) {
    throw new LokoError(
      "ERR_INPUT_TYPE",
      `inputs must be { pixelValues, shape }, got ${describe(inputs)}.`,
    );
  }
  const { pixelValues, shape } = inputs;
  if (!(pixelValues instanceof Float32Array)) {
    throw new LokoError(
      "ERR_INPUT_TYPE",
      `inputs.pixelValues must be a Float32Array, got ${describe(pixelValues)}.`,
    );
  }
  if (!Array.isArray(shape) || !shape.every((extent) => Number.isSafeInteger(extent))) {
    throw new LokoError(
      "ERR_INPUT_TYPE",
      `inputs.shape must be an array of integers [B, C, H, W], got ${describe(shape)}.`,
    );
  }
  const { channels, height, width } = image;
  const [batch, ...sample] = shape as number[];
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
        `configuration says, got [${shape.join(", ")}].`,
    );
  }
  const expected = batch * channels * height * width;
  if (pixelValues.length !== expected) {
    throw new LokoError(
      "ERR_SHAPE_MISMATCH",
      `inputs.pixelValues must have ${expected} elements for the shape [${shape.join(", ")}], got ` +
        `${pixelValues.length}.`,
    );
  }
  return batch;
}

/**
 * Checks class indices: one for each sample, in [0, numLabels).
 *
 * @throws LokoError ERR_INPUT_TYPE, ERR_SHAPE_MISMATCH, ERR_LABEL_RANGE.
 */
export function checkLabels(labels: Int32Array, batch: number, numLabels: number): void {
  if (!(labels instanceof Int32Array)) {
    throw new LokoError(
      "ERR_INPUT_TYPE",
      `labels must be an Int32Array of ${batch} class indices, got ${describe(labels)}.`,
    );
  }
  if (labels.length !== batch) {
    throw new LokoError(
      "ERR_SHAPE_MISMATCH",
      `labels must have one entry for each of ${batch} samples, got ${labels.length}.`,
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
  if (!(targets instanceof Float32Array)) {
    throw new LokoError(
      "ERR_INPUT_TYPE",
      `targets must be a Float32Array of ${batch} x ${outputs} values, got ${describe(targets)}.`,
    );
  }
  if (targets.length !== batch * outputs) {
    throw new LokoError(
      "ERR_SHAPE_MISMATCH",
      `targets must have ${batch} x ${outputs} elements, got ${targets.length}.`,
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
