// Drawn batches of a trial: what they hold does not matter for times, but both sides must learn the same.
import { MODELS, type ModelShape, type PictureShape } from "./models.js";
import { drawUniform } from "./random-weights.js";
import { sizeOf, type TensorSource, type Values } from "./tensors-file.js";
import type { Trial } from "./trials.js";

/** Batches [samples, batch, ...] and their labels [samples, batch]. */
export interface Samples {
  readonly inputs: TensorSource;
  readonly labels: TensorSource;
}

/** Classes come in groups of so many that look alike, as CIFAR-100's do. */
const GROUP = 5;
/** Patterns are drawn on a grid of so many cells a side. */
const GRID = 4;

const FIRST_WORD = 3;
const SEED = 20240607;

export function drawSamples(trial: Trial): Samples {
  const shape = MODELS.get(trial.model)!;
  const draw = drawUniform(SEED);
  const count = trial.samples * trial.batch;
  const labels = Int32Array.from({ length: count }, () => drawInteger(draw, trial.classes));
  const values =
    shape.kind === "text" ? drawTokens(trial, draw) : drawImages(shape, trial, labels, draw);
  const lead = [trial.samples, trial.batch];
  return {
    inputs: {
      name: shape.kind === "text" ? "input_ids" : "pixel_values",
      dtype: shape.kind === "text" ? "I32" : "F32",
      shape: [...lead, ...sampleShape(shape, trial.tokens)],
      values: () => values,
    },
    labels: { name: "labels", dtype: "I32", shape: lead, values: () => labels },
  };
}

function sampleShape(shape: ModelShape, tokens?: number): number[] {
  return shape.kind === "text" ? [tokens!] : [shape.channels, shape.size, shape.size];
}

function drawInteger(draw: () => number, below: number): number {
  return Math.min(below - 1, Math.floor(((draw() + 1) / 2) * below));
}

/** Whole texts without padding, which begin with token 0 as RoBERTa's do. */
function drawTokens({ samples, batch, tokens, model }: Trial, draw: () => number): Int32Array {
  const shape = MODELS.get(model)!;
  const words = shape.kind === "text" ? shape.vocabulary - FIRST_WORD : 0;
  return Int32Array.from({ length: samples * batch * tokens! }, (_, i) =>
    i % tokens! === 0 ? 0 : FIRST_WORD + drawInteger(draw, words),
  );
}

/** The pattern of a class under noise. */
function drawImages(
  shape: PictureShape,
  trial: Trial,
  labels: Int32Array,
  draw: () => number,
): Values {
  const prototypes = trial.begun ? classPrototypes(shape, trial.classes) : undefined;
  const size = sizeOf(sampleShape(shape));
  const values = new Float32Array(labels.length * size);
  for (let i = 0; i < values.length; i++) values[i] = draw();
  if (prototypes !== undefined) {
    labels.forEach((label, sample) => {
      const pattern = prototypes[label]!;
      for (let i = 0; i < size; i++) values[sample * size + i]! += pattern[i]!;
    });
  }
  return values;
}

/** One image for each class: the pattern of its group and, at half the height, one of its own. */
export function classPrototypes(shape: PictureShape, classes: number): Float32Array[] {
  const draw = drawUniform(SEED + 1);
  const groups = Array.from({ length: Math.ceil(classes / GROUP) }, () => drawPattern(shape, draw));
  return Array.from({ length: classes }, (_, label) => {
    const own = drawPattern(shape, draw);
    const group = groups[Math.floor(label / GROUP)]!;
    return own.map((value, i) => group[i]! + 0.5 * value);
  });
}

function drawPattern({ channels, size }: PictureShape, draw: () => number): Float32Array {
  const cells = Float32Array.from({ length: channels * GRID ** 2 }, draw);
  const cell = (i: number) => Math.floor(((i % size) * GRID) / size);
  return Float32Array.from({ length: channels * size ** 2 }, (_, i) => {
    const row = Math.floor(i / size);
    const channel = Math.floor(row / size);
    return cells[(channel * GRID + cell(row)) * GRID + cell(i)]!;
  });
}
