// Who learns from the streams: LoKO with an adaptive gain, its variants, and gradient methods over a grid of
// learning rates. Each has a name that stays the same from run to run.

import {
  AdaGrad,
  AdamW,
  AMSGrad,
  LoKO,
  type LoKOOptions,
  type Model,
  type Optimizer,
  RMSProp,
  SGD,
} from "loko";

export interface Contender {
  readonly name: string;
  /** Gradient methods: the name without the learning rate. */
  readonly family: string;
  readonly make: (model: Model) => Optimizer;
}

type GradientMethod = new (model: Model, options: { lr: number }) => Optimizer;

/** Seven learning rates each, half decades, wide enough that the best is not at an end of the grid. */
const GRIDS: readonly (readonly [string, GradientMethod, readonly number[]])[] = [
  ["SGD", SGD, [1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1]],
  ["AdaGrad", AdaGrad, [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]],
  ["RMSProp", RMSProp, [3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]],
  ["AdamW", AdamW, [3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]],
  ["AMSGrad", AMSGrad, [3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]],
];

export const BASELINES: readonly Contender[] = GRIDS.flatMap(([family, Method, rates]) =>
  rates.map((lr) => ({
    name: `${family} ${lr}`,
    family,
    make: (model: Model) => new Method(model, { lr }),
  })),
);

/** Predicts and learns nothing. */
export const FROZEN: Contender = {
  name: "frozen",
  family: "frozen",
  make: (model) => new SGD(model, { lr: 0 }),
};

export const loko = (name: string, options: LoKOOptions = {}): Contender => ({
  name,
  family: name,
  make: (model) => new LoKO(model, options),
});
