// Small models with data for a Trainer.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Dataset } from "../../../lib/data/dataset.js";
import type { Model } from "../../../lib/model.js";
import type { ModelInputs } from "../../../lib/models/inputs.js";
import { AdaGrad, Adam, AdamW, AMSGrad, RMSProp, SGD } from "../../../lib/optim/gradient.js";
import { LoKO } from "../../../lib/optim/loko.js";
import type { Optimizer } from "../../../lib/optim/optimizer.js";
import type { OnlineSample } from "../../../lib/train/stream.js";
import type { TrainerState } from "../../../lib/train/trainer-state.js";
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

/** What `action` comes to, and the codes of the warnings of the process meanwhile. */
export async function withWarnings<T>(
  action: () => Promise<T>,
): Promise<{ result: T; codes: (string | undefined)[] }> {
  const codes: (string | undefined)[] = [];
  const listener = (warning: Error & { code?: string }) => codes.push(warning.code);
  process.on("warning", listener);
  try {
    const result = await action();
    // Warnings are told in a later turn of the event loop.
    await new Promise(setImmediate);
    return { result, codes };
  } finally {
    process.off("warning", listener);
  }
}

export function readState(outputDir: string, step: number): TrainerState {
  const path = join(outputDir, `checkpoint-${step}/trainer_state.json`);
  return JSON.parse(readFileSync(path, "utf8")) as TrainerState;
}

/** The log of a state without what depends on the clock. */
export const timelessLog = ({ log_history }: TrainerState) =>
  log_history.map((entry) =>
    Object.fromEntries(Object.entries(entry).filter(([key]) => !/runtime|per_second/.test(key))),
  );

/** Names of the checkpoints of a folder, the oldest first. */
export const checkpointsOf = (outputDir: string) =>
  readdirSync(outputDir)
    .filter((name) => name.startsWith("checkpoint-"))
    .sort((a, b) => Number(a.slice(11)) - Number(b.slice(11)));
