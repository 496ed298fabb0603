import { LokoError } from "../errors.js";
import type { Task } from "../metrics/accumulator.js";
import type { Model } from "../model.js";
import { AdaGrad, Adam, AdamW, AMSGrad, RMSProp, SGD } from "../optim/gradient.js";
import { LoKO } from "../optim/loko.js";
import type { Optimizer } from "../optim/optimizer.js";

/** By the names of the command line. */
export const OPTIMIZERS = {
  loko: LoKO,
  adamw: AdamW,
  adam: Adam,
  amsgrad: AMSGrad,
  adagrad: AdaGrad,
  rmsprop: RMSProp,
  sgd: SGD,
} as const;

export interface OptimizerChoice {
  readonly optimizer: keyof typeof OPTIMIZERS;
  readonly lr?: number;
  readonly optimizerOptions?: object;
}

/**
 * Refuses what LoKO has not, before anything is loaded.
 *
 * @throws LokoError ERR_OPTION.
 */
export function checkOptimizer({ optimizer, lr }: OptimizerChoice): void {
  if (optimizer !== "loko") return;
  if (lr !== undefined) {
    throw new LokoError(
      "ERR_OPTION",
      "--lr: LoKO has no learning rate. Leave it out, or choose another --optimizer.",
    );
  }
}

/** @throws LokoError ERR_OPTION for bad `optimizerOptions`. */
export function createOptimizer(
  model: Model,
  { optimizer, lr, optimizerOptions }: OptimizerChoice,
  task: Task,
): Optimizer {
  if (optimizer === "loko") {
    const observation = task === "regression" ? ({ observation: "regression" } as const) : {};
    return new LoKO(model, { ...observation, ...optimizerOptions });
  }
  return new OPTIMIZERS[optimizer](model, {
    ...(lr === undefined ? {} : { lr }),
    ...optimizerOptions,
  });
}

/** What a run says about its optimizer: `loko (no learning rate)`. */
export function describeOptimizer({ optimizer, lr }: OptimizerChoice): string {
  if (optimizer === "loko") return "loko (no learning rate)";
  return `${optimizer} (${lr === undefined ? "PyTorch's learning rate" : `learning rate ${lr}`})`;
}
