// The first-order optimizers, equal to torch.optim of PyTorch 2.x: same formulas, same defaults, names in
// camelCase. They take batches of any size; the loss is the mean cross entropy for labels and the mean
// squared error for float targets.

import type { Model } from "../model.js";
import type { NativeGradientOptions } from "../native/addon.js";
import {
  checkOptions,
  fraction,
  nonNegativeNumber,
  numberThat,
  type OptionRule,
  trueOrFalse,
} from "../options.js";
import { definedOnly, Optimizer } from "./optimizer.js";

/** Options of {@link SGD}, as `torch.optim.SGD`. */
export interface SGDOptions {
  /** Learning rate, >= 0. Default 1e-3. */
  lr?: number;
  /** Momentum factor, >= 0. Default 0. */
  momentum?: number;
  /** Dampening of the momentum's input. Default 0. */
  dampening?: number;
  /** L2 penalty added to the gradient, >= 0. Default 0. */
  weightDecay?: number;
  /** Nesterov momentum; needs `momentum` > 0 and no `dampening`. Default false. */
  nesterov?: boolean;
}

/** Options of {@link AdaGrad}, as `torch.optim.Adagrad`. */
export interface AdaGradOptions {
  /** Learning rate, >= 0. Default 1e-2. */
  lr?: number;
  /** The rate of step t is lr / (1 + (t − 1)·lrDecay), >= 0. Default 0. */
  lrDecay?: number;
  /** L2 penalty added to the gradient, >= 0. Default 0. */
  weightDecay?: number;
  /** Start of the sum of squared gradients, >= 0. Default 0. */
  initialAccumulatorValue?: number;
  /** Added to the root of the sum, >= 0. Default 1e-10. */
  eps?: number;
}

/** Options of {@link RMSProp}, as `torch.optim.RMSprop`. */
export interface RMSPropOptions {
  /** Learning rate, >= 0. Default 1e-2. */
  lr?: number;
  /** Smoothing of the squared gradients, >= 0. Default 0.99. */
  alpha?: number;
  /** Added to the root, outside of it, >= 0. Default 1e-8. */
  eps?: number;
  /** L2 penalty added to the gradient, >= 0. Default 0. */
  weightDecay?: number;
  /** Momentum factor, >= 0. Default 0. */
  momentum?: number;
  /** Divide by the estimated variance of the gradient. Default false. */
  centered?: boolean;
}

/** Options of {@link Adam}, {@link AdamW} and {@link AMSGrad}, as `torch.optim.Adam` and `AdamW`. */
export interface AdamOptions {
  /** Learning rate, >= 0. Default 1e-3. */
  lr?: number;
  /** Smoothing of gradient and squared gradient, each in [0, 1). Default [0.9, 0.999]. */
  betas?: readonly [number, number];
  /** Added to the root, >= 0. Default 1e-8. */
  eps?: number;
  /**
   * For Adam and AMSGrad an L2 penalty added to the gradient, default 0; for AdamW decoupled decay
   * θ ← (1 − lr·weightDecay)·θ, default 1e-2. >= 0.
   */
  weightDecay?: number;
  /** Divide by the running maximum of the second moment (Reddi et al. 2018). Default false. */
  amsgrad?: boolean;
}

const finite = numberThat("a finite number", () => true);
const betas: OptionRule = {
  expected: "two numbers in [0, 1)",
  accepts: (value) =>
    Array.isArray(value) && value.length === 2 && value.every((beta) => fraction.accepts(beta)),
};

const ADAM_RULES = {
  lr: nonNegativeNumber,
  betas,
  eps: nonNegativeNumber,
  weightDecay: nonNegativeNumber,
  amsgrad: trueOrFalse,
};

function adamOptions(owner: string, options: AdamOptions): NativeGradientOptions {
  checkOptions(owner, options, ADAM_RULES);
  const { betas, ...same } = options;
  return definedOnly<NativeGradientOptions>({ ...same, beta1: betas?.[0], beta2: betas?.[1] });
}

/** Stochastic gradient descent, with momentum and Nesterov's variant; `torch.optim.SGD`. */
export class SGD extends Optimizer {
  /** @throws LokoError `ERR_OPTION`, `ERR_NO_TRAINABLE_PARAMETERS`, `ERR_DISPOSED`. */
  constructor(model: Model, options: SGDOptions = {}) {
    checkOptions("SGD", options, {
      lr: nonNegativeNumber,
      momentum: nonNegativeNumber,
      dampening: finite,
      weightDecay: nonNegativeNumber,
      nesterov: trueOrFalse,
    });
    super(model, { kind: "sgd", ...definedOnly(options) });
  }
}

/** AdaGrad (Duchi, Hazan, Singer 2011); `torch.optim.Adagrad`. */
export class AdaGrad extends Optimizer {
  /** @throws LokoError `ERR_OPTION`, `ERR_NO_TRAINABLE_PARAMETERS`, `ERR_DISPOSED`. */
  constructor(model: Model, options: AdaGradOptions = {}) {
    checkOptions("AdaGrad", options, {
      lr: nonNegativeNumber,
      lrDecay: nonNegativeNumber,
      weightDecay: nonNegativeNumber,
      initialAccumulatorValue: nonNegativeNumber,
      eps: nonNegativeNumber,
    });
    const { initialAccumulatorValue: initialAccumulator, ...same } = options;
    super(model, { kind: "adagrad", ...definedOnly({ ...same, initialAccumulator }) });
  }
}

/** RMSProp (Tieleman, Hinton 2012); `torch.optim.RMSprop`. */
export class RMSProp extends Optimizer {
  /** @throws LokoError `ERR_OPTION`, `ERR_NO_TRAINABLE_PARAMETERS`, `ERR_DISPOSED`. */
  constructor(model: Model, options: RMSPropOptions = {}) {
    checkOptions("RMSProp", options, {
      lr: nonNegativeNumber,
      alpha: nonNegativeNumber,
      eps: nonNegativeNumber,
      weightDecay: nonNegativeNumber,
      momentum: nonNegativeNumber,
      centered: trueOrFalse,
    });
    super(model, { kind: "rmsprop", ...definedOnly(options) });
  }
}

/** Adam (Kingma, Ba 2015); `torch.optim.Adam`. */
export class Adam extends Optimizer {
  /** @throws LokoError `ERR_OPTION`, `ERR_NO_TRAINABLE_PARAMETERS`, `ERR_DISPOSED`. */
  constructor(model: Model, options: AdamOptions = {}) {
    super(model, { kind: "adam", ...adamOptions("Adam", options) });
  }
}

/** Adam with decoupled weight decay (Loshchilov, Hutter 2019); `torch.optim.AdamW`. */
export class AdamW extends Optimizer {
  /** @throws LokoError `ERR_OPTION`, `ERR_NO_TRAINABLE_PARAMETERS`, `ERR_DISPOSED`. */
  constructor(model: Model, options: AdamOptions = {}) {
    super(model, { kind: "adamw", ...adamOptions("AdamW", options) });
  }
}

/** Adam with `amsgrad: true` (Reddi, Kale, Kumar 2018). */
export class AMSGrad extends Optimizer {
  /** @throws LokoError `ERR_OPTION`, `ERR_NO_TRAINABLE_PARAMETERS`, `ERR_DISPOSED`. */
  constructor(model: Model, options: Omit<AdamOptions, "amsgrad"> = {}) {
    const { amsgrad: _, ...rules } = ADAM_RULES;
    checkOptions("AMSGrad", options, rules);
    super(model, { kind: "adam", ...adamOptions("AMSGrad", options), amsgrad: true });
  }
}
