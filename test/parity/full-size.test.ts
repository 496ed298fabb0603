import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Checkpoint } from "../../lib/io/checkpoint.js";
import { Model } from "../../lib/model.js";
import { architectureOf } from "../../lib/models/architecture.js";
import { logitsOf } from "./compare.js";
import { FIXTURES, maxAbsError } from "./fixtures.js";
import { hashPixels, writeHashedModel } from "./hash-weights.js";

interface FullModel {
  readonly config: Readonly<Record<string, unknown>>;
  readonly gain: number;
  readonly shape: readonly number[];
  readonly logits: readonly number[];
}

const MODELS = JSON.parse(readFileSync(join(FIXTURES, "vision/full.json"), "utf8")) as Record<
  string,
  FullModel
>;

// torchvision (resnet18, densenet121) and transformers in float64. The gains of the weights keep logits of
// order 1, where PyTorch's own float32 differs from its float64 by up to 2e-6; the bar is the project's.
const TOLERANCE = 1e-4;

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "loko-full-"));
});
afterEach(() => rm(folder, { recursive: true }));

/** The weights of a checkpoint: those of the graph at the size that the configuration names. */
function weightsOf(config: FullModel["config"]) {
  const layers = Array.from({ length: Number(config.num_hidden_layers ?? 0) }, (_, layer) => {
    const name = `encoder.layer.${layer}.w`;
    const info = { name, dtype: "F32", shape: [], path: "", byteOffset: 0, byteLength: 4 } as const;
    return [name, info] as const;
  });
  const checkpoint: Checkpoint = { dir: "", config, weights: new Map(layers) };
  return architectureOf(checkpoint).define(checkpoint).graph.weights;
}

test.each(Object.entries(MODELS))("%s of full size has PyTorch's logits", async (_, full) => {
  const { config, gain, shape, logits } = full;
  await writeHashedModel(folder, config, weightsOf(config), gain);
  using model = await Model.fromPretrained(folder, { imageSize: shape[2]! });
  const inputs = { pixelValues: hashPixels(shape), shape };
  expect(maxAbsError(await logitsOf(model, { inputs }), logits)).toBeLessThan(TOLERANCE);
});
