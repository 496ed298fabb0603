// Trainings of small models on any device, for the tests that compare devices.
import type { Device, Precision } from "../../lib/device.js";
import { AdamW } from "../../lib/optim/gradient.js";
import { LoKO } from "../../lib/optim/loko.js";

import { loadAdapted, readVit } from "../parity/fixtures.js";

export type OptimizerName = "LoKO" | "AdamW";

/** What is left of a training. */
export interface Trained {
  readonly parameters: Float32Array;
  /** Of all steps, one after the other. */
  readonly logits: Float32Array;
  readonly skipped: number;
}

const CLASSES = 7;
const PIXELS = 3 * 16 * 16;

/** Uniform in [-1, 1), the same sequence in every run (a 32-bit linear congruential generator). */
function drawUniform(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

/**
 * Trains the tiny ViT of the fixtures from its adapter's values on a stream of noisy class prototypes: what
 * can be learned, so that a trajectory settles and rounding is not amplified from step to step.
 */
export async function trainTinyVit(
  optimizer: OptimizerName,
  { steps, ...options }: { steps: number; device: Device; precision?: Precision },
): Promise<Trained> {
  const fixture = await readVit("odd");
  using model = await loadAdapted("odd", fixture, options, true);
  const learner =
    optimizer === "LoKO"
      ? new LoKO(model, { observation: "softmax", observationRank: "exact" })
      : new AdamW(model, { lr: 1e-3 });
  const draw = drawUniform(1);
  const prototypes = Array.from({ length: CLASSES }, () =>
    Float32Array.from({ length: PIXELS }, draw),
  );
  const logits = new Float32Array(steps * CLASSES);
  let skipped = 0;
  for (let t = 0; t < steps; t++) {
    const label = Math.floor(((draw() + 1) / 2) * CLASSES);
    const pixelValues = prototypes[label]!.map((value) => value + 0.3 * draw());
    const result = await learner.step({ pixelValues, shape: [1, 3, 16, 16] }, Int32Array.of(label));
    logits.set(result.logits, t * CLASSES);
    if (result.skipped !== null) skipped++;
  }
  return { parameters: await model.readParameters(), logits, skipped };
}
