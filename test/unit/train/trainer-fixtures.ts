// Small models with data for a Trainer.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Dataset } from "../../../lib/data/dataset.js";
import type { Model } from "../../../lib/model.js";
import type { ModelInputs } from "../../../lib/models/inputs.js";
import { AdaGrad, Adam, AdamW, AMSGrad, RMSProp, SGD } from "../../../lib/optim/gradient.js";
import { LoKO } from "../../../lib/optim/loko.js";
import type { Optimizer } from "../../../lib/optim/optimizer.js";
import type { OnlineSample } from "../../../lib/train/stream.js";
import { loadAdapted, loadAdaptedText, readText, readVit } from "../../parity/fixtures.js";

export const OPTIMIZERS = {
  LoKO: (model: Model): Optimizer => new LoKO(model),
  SGD: (model: Model): Optimizer => new SGD(model, { lr: 0.01, momentum: 0.9 }),
  AdaGrad: (model: Model): Optimizer => new AdaGrad(model, { lr: 0.01 }),
  RMSProp: (model: Model): Optimizer => new RMSProp(model, { lr: 1e-3, momentum: 0.5 }),
  AdamW: (model: Model): Optimizer => new AdamW(model, { lr: 1e-3 }),
  AMSGrad: (model: Model): Optimizer => new AMSGrad(model, { lr: 1e-3 }),
  Adam: (model: Model): Optimizer => new Adam(model, { lr: 1e-3 }),
};
export type OptimizerName = keyof typeof OPTIMIZERS;

export const MODELS = {
  ViT: async () => loadAdapted("odd", await readVit("odd")),
  BERT: async () => loadAdaptedText("bert_small", await readText("bert_small")),
  RoBERTa: async () => loadAdaptedText("roberta_small", await readText("roberta_small")),
};
export type ModelName = keyof typeof MODELS;

/** One labelled sample of a model, the same for the same number. */
export function sampleOf({ input, numLabels }: Model, i: number): OnlineSample {
  return { inputs: inputsOf(input, i), labels: Int32Array.of((5 * i + 1) % numLabels) };
}

function inputsOf(input: Model["input"], i: number): ModelInputs {
  if (input.kind === "image") {
    const [channels, height, width] = input.shape;
    const pixelValues = Float32Array.from({ length: channels * height * width }, (_, j) =>
      Math.sin(0.7 * j + 3 * i + 1),
    );
    return { pixelValues, shape: [1, channels, height, width] };
  }
  const tokens = 3 + (i % 4);
  // Above the special tokens of either model.
  const id = (t: number) => 5 + ((7 * t + 3 * i) % (input.vocabSize - 5));
  return { inputIds: Int32Array.from({ length: tokens }, (_, t) => id(t)), shape: [1, tokens] };
}

export function samplesOf(model: Model, count: number): Dataset<OnlineSample> {
  return Dataset.from(Array.from({ length: count }, (_, i) => sampleOf(model, i)));
}

/** Batches of images. */
export function stack(samples: readonly OnlineSample[]): OnlineSample {
  const images = samples.map(({ inputs }) => inputs as ModelInputs & { pixelValues: Float32Array });
  const { shape, pixelValues } = images[0]!;
  const size = pixelValues.length;
  const all = new Float32Array(size * images.length);
  for (const [i, image] of images.entries()) all.set(image.pixelValues, i * size);
  return {
    inputs: { pixelValues: all, shape: [images.length, ...shape.slice(1)] },
    labels: Int32Array.from(samples, ({ labels }) => labels[0]!),
  };
}

/** A folder that goes with the block. */
export function temporaryFolder(): { path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), "loko-trainer-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}
