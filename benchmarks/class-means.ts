// A head for a model that has begun to learn its stream: the frozen features' distance to class means.
import { Model } from "loko";
import { type ImageShape, MODELS } from "./models.js";
import type { PreparedTrial } from "./prepare.js";
import { classPrototypes, drawSamples } from "./samples.js";
import { mean } from "./statistics.js";

/** Mean probability of the right class: more often right than wrong, and not yet sure. */
const CONFIDENCE = 0.7;

export interface Head {
  /** [classes, hidden] */
  readonly weight: Float32Array;
  readonly bias: Float32Array;
}

/** Logits −α/2 · |f − f_c|² up to a constant; α is such that the stream's labels get {@link CONFIDENCE}. */
export async function classMeansHead(trial: PreparedTrial): Promise<Head> {
  const shape = MODELS.get(trial.model) as ImageShape;
  using extractor = await featureModel(trial.modelDir, shape.hidden);
  const prototypes = classPrototypes(shape, trial.classes);
  const means = await features(extractor, prototypes);
  const centre = means[0]!.map((_, i) => mean(means.map((f) => f[i]!)));
  const directions = means.map((f) => f.map((value, i) => value - centre[i]!));
  const offsets = directions.map((d) => -dot(d, centre) - dot(d, d) / 2);

  const { inputs, labels } = drawSamples(trial);
  const pixels = inputs.values() as Float32Array;
  const size = prototypes[0]!.length;
  const count = pixels.length / size;
  const seen = await features(
    extractor,
    Array.from({ length: count }, (_, i) => pixels.subarray(i * size, (i + 1) * size)),
  );
  const scores = seen.map((f) => directions.map((d, label) => dot(d, f) + offsets[label]!));
  const alpha = findScale(scores, labels.values());
  return {
    weight: Float32Array.from(directions.flatMap((d) => Array.from(d, (value) => alpha * value))),
    bias: Float32Array.from(offsets, (value) => alpha * value),
  };
}

/** The model with an identity for a head: its logits are the features. */
async function featureModel(dir: string, hidden: number): Promise<Model> {
  const model = await Model.fromPretrained(dir, { numLabels: hidden, ignoreMismatchedSizes: true });
  await model.addAdapter({ r: 1, targetModules: ["query"] });
  const parameters = await model.readParameters();
  for (const { group, shape, offset, size } of model.parameters()) {
    if (group !== "head") continue;
    parameters.fill(0, offset, offset + size);
    if (shape.length < 2) continue;
    for (let i = 0; i < hidden; i++) parameters[offset + i * hidden + i] = 1;
  }
  await model.writeParameters(parameters);
  return model;
}

async function features(model: Model, images: readonly Float32Array[]): Promise<Float32Array[]> {
  const sample = model.input.kind === "image" ? model.input.shape : [];
  const results: Float32Array[] = [];
  for (const pixelValues of images) {
    using logits = await model.forward({ pixelValues, shape: [1, ...sample] });
    results.push((await logits.data()) as Float32Array);
  }
  return results;
}

function dot(a: Float32Array, b: Float32Array): number {
  return a.reduce((sum, value, i) => sum + value * b[i]!, 0);
}

/** The factor of the scores by bisection of its logarithm: confidence grows with it. */
function findScale(scores: readonly number[][], labels: ArrayLike<number>): number {
  let [low, high] = [1e-6, 1e6];
  for (let i = 0; i < 60; i++) {
    const middle = Math.sqrt(low * high);
    if (mean(scores.map((row, s) => probability(row, labels[s]!, middle))) < CONFIDENCE)
      low = middle;
    else high = middle;
  }
  return Math.sqrt(low * high);
}

function probability(scores: readonly number[], label: number, scale: number): number {
  const sum = scores.reduce(
    (total, score) => total + Math.exp(scale * (score - scores[label]!)),
    0,
  );
  return 1 / sum;
}
