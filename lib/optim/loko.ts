import { LokoError } from "../errors.js";
import type { Model } from "../model.js";
import { checkLabels, checkValues } from "../models/inputs.js";
import type { NativeLokoOptions } from "../native/addon.js";
import {
  checkOptions,
  either,
  fraction,
  integerIn,
  nonNegativeNumber,
  type OptionRule,
  oneOf,
  positiveNumber,
} from "../options.js";
import { definedOnly, Optimizer, type Targets } from "./optimizer.js";

/**
 * Options of {@link LoKO}. Symbols: θ parameters, p the diagonal of their covariance, z logits,
 * π = softmax(z), C = diag(π) − ππᵀ, J = ∂z/∂θ, y one-hot target, e innovation, H observation
 * Jacobian, M = H·diag(p)·Hᵀ, R observation noise, S = M + R, m outputs, k rows.
 */
export interface LoKOOptions {
  /**
   * Starting values for the other options. `"paper"` is the published algorithm (Abdi et al., arXiv
   * 2410.11551): `observation: "softmax"`, `observationRank: "exact"`, `noise: "ema"`, no process
   * noise, no trust region. Options given beside it win. Default: none.
   */
  preset?: "paper";
  /**
   * What the filter observes. Default `"regression"` for a model whose `problemType` is that; for a
   * classifier `"categorical"`, or `"softmax"` where `noise`, `beta` or `r0` is given, which categorical
   * does not have.
   * - `"softmax"`: π against the one-hot label, H = C·J. Calm, but learns little from confident errors.
   * - `"categorical"`: the categorical likelihood in logit space, noise C. Keeps the full innovation
   *   where the model is confidently wrong.
   * - `"logits"`: z against the one-hot label, H = J: least squares on the logits.
   * - `"regression"`: z against float targets, H = J.
   */
  observation?: "softmax" | "categorical" | "logits" | "regression";
  /**
   * How many directions k of the m − 1 informative ones are propagated: `"exact"` all of them, a number
   * that many, `"auto"` the smallest k whose eigenvalues hold 1 − `rankEpsilon` of trace(C). Only for
   * `"softmax"` and `"categorical"`; the others propagate m rows. For `"categorical"` the direction of the innovation
   * is always among them, so that 1 is that alone: the cost of a gradient step whatever m, at little loss
   * (docs/streams.md); and `"auto"` takes at most max(10, (m − 1)/8) of them, unless `rankEpsilon` is 0.
   * Default `"auto"`.
   */
  observationRank?: "exact" | "auto" | number;
  /** Share of trace(C) that `"auto"` may leave out, in [0, 1). Default 0.02. */
  rankEpsilon?: number;
  /**
   * The observation noise R. Default `"ema"`; `"categorical"` has its own and takes none.
   * - `"ema"`: R ← β·R + (1 − β)·(e·eᵀ + M) before the gain (the paper).
   * - `"model"`: R = C. Only for `"softmax"`.
   * - `"residual"`: as `"ema"` with residual and covariance from after the update, which is unbiased
   *   and costs one more forward pass.
   * - `"fixed"`: R = r0·I.
   */
  noise?: "ema" | "model" | "residual" | "fixed";
  /** Forgetting factor β of R in [0, 1), per step. Only for `"ema"` and `"residual"`. Default 0.95. */
  beta?: number;
  /** R starts as r0·I, > 0. Not for `"model"` and `"categorical"`. Default 0.1. */
  r0?: number;
  /** Factor γ of the state transition p ← γ²·p + q, > 0. Default 1. */
  gamma?: number;
  /** Process noise q added to every variance at each step, >= 0. Default 0. */
  processNoise?: number;
  /**
   * Process noise in units of the largest initial variance, >= 0: q = processNoise + ratio·p0. For
   * streams that drift, 1e-4 to 1e-3. Default 0.
   */
  processNoiseRatio?: number;
  /**
   * Cap of p under process noise and an adaptive gain, against wind-up of parameters that the data do
   * not excite; > 0, `Infinity` for none. Default 10 times the largest initial variance, 100 times with
   * `gain: "adaptive"`.
   */
  pMax?: number;
  /** Floor of p relative to the smallest initial variance, in [0, 1). Default 1e-12. */
  pMinRatio?: number;
  /**
   * Trust region c: a step is scaled so that no logit moves by more than c in the linearised model; > 0,
   * `Infinity` turns it off. Default Infinity for `update: "iterated"`, whose steps end where the error
   * does, and for `"regression"`; 2 for `"categorical"` with `update: "linear"`, 1 otherwise.
   */
  trustRegion?: number;
  /**
   * Initial variance of every parameter, or of each parameter group, >= 0 (0 freezes a group while
   * there is no process noise). `"auto"` chooses it at the first step from the scale of the
   * observations: τ·trace(C)/‖H‖² for softmax, τ·k/‖UᵀJ‖² for categorical, τ·m/‖J‖² otherwise.
   * Default `"auto"`.
   */
  p0?: "auto" | number | { readonly loraA: number; readonly loraB: number; readonly head: number };
  /** Factor τ of `p0: "auto"`, > 0. Default 3 for `"categorical"` with `update: "linear"`, 1 otherwise. */
  tau?: number;
  /**
   * What the filter remembers of the covariance. Default `"lofi"` for `"categorical"` with `update:
   * "iterated"`, `"fdekf"` otherwise.
   * - `"fdekf"`: its diagonal p, p ← p − p²·diag(HᵀS⁻¹H), the paper's.
   * - `"vdekf"`: its diagonal, 1/p ← 1/p + diag(HᵀR⁻¹H), never larger.
   * - `"lofi"`: (diag(1/p) + WᵀW)⁻¹ with `covarianceRank` rows of W (LO-FI, arXiv 2305.19535): the directions that
   *   the samples determined best, with their correlations; the rest goes to 1/p. Memory and time of a step
   *   grow by `covarianceRank` numbers a parameter. Takes no process noise.
   */
  covariance?: "fdekf" | "vdekf" | "lofi";
  /** Rows of W of `covariance: "lofi"`, 1 to 256. Default 16. */
  covarianceRank?: number;
  /**
   * Where the likelihood of `"categorical"` is linearised. Default `"iterated"`, or `"linear"` with
   * process noise, a `gamma` that is not 1 or a finite `trustRegion`. The other observations have `"linear"`
   * only.
   * - `"linear"`: at the prediction, as an extended Kalman filter does. A confident error overshoots, and
   *   the trust region holds it.
   * - `"iterated"`: at the mode of the posterior, found by Newton steps between the k directions without
   *   another pass through the model.
   */
  update?: "linear" | "iterated";
  /**
   * Who says how plastic the filter is. Default `"adaptive"` with `update: "iterated"`, which it needs, and
   * without process noise; `"fixed"` otherwise.
   * - `"fixed"`: the covariance only falls, but for the process noise given.
   * - `"adaptive"`: the covariance also grows while larger steps would have predicted better, and falls while
   *   smaller ones would have, what was learned and does harm is taken back, and how sure the head is, is learned by itself
   *   (docs/filter.md). Three more numbers of memory a parameter.
   */
  gain?: "fixed" | "adaptive";
  /**
   * A step whose mean loss is below this, in nats, >= 0, ends after the forward pass: its samples are predicted and
   * nothing is learned from them, `rows` is 0. Only for `"softmax"` and `"categorical"`. With 0.05, a label that had a
   * probability of 0.95, a stream that is mostly predicted right takes half of the time, at no accuracy in the mean of
   * those in docs/streams.md. Default 0: learn from all.
   */
  minLoss?: number;
}

const positiveOrInfinite: OptionRule = {
  expected: "a number > 0 or Infinity",
  accepts: (value) => typeof value === "number" && value > 0,
};

const GROUPS = ["loraA", "loraB", "head"] as const;
const variancePerGroup: OptionRule = {
  expected: "{ loraA, loraB, head } with a finite number >= 0 each",
  accepts: (value) =>
    typeof value === "object" &&
    value !== null &&
    Object.keys(value).length === GROUPS.length &&
    GROUPS.every((group) => nonNegativeNumber.accepts((value as Record<string, unknown>)[group])),
};

/**
 * The Low-Rank Kalman Optimizer (Abdi, Sun, Zhang, Kaski, Pan, arXiv 2410.11551): an extended Kalman
 * filter whose state is the trainable parameters, with a diagonal or low-rank covariance. There is no learning
 * rate: the gain follows from the uncertainty of parameters and observations. The samples of a batch are one
 * observation of B·k rows: one step with all they say, at the cost of B·k backward rows and of an eigenproblem of
 * (B·k)³ operations. One sample a step is what it is made for.
 *
 * One step is: forward; k orthonormal directions U of the logits (the leading eigenvectors of C, and
 * that of e); G = Uᵀ·J by one backward pass with k cotangents; the gain a in those directions, by default at the
 * mode of the posterior, in k × k float64; θ ← θ + Σ·Gᵀa; the covariance Σ falls by what the sample determined, and
 * grows or falls with the adaptive gain. docs/filter.md has the formulas. When a number is not finite the step is
 * skipped and nothing changes.
 *
 * @example
 * ```ts
 * const optimizer = new LoKO(model);
 * const { loss, kalman } = await optimizer.step(inputs, Int32Array.of(3));
 * ```
 */
export class LoKO extends Optimizer {
  readonly #takesValues: boolean;

  /**
   * @throws LokoError `ERR_OPTION` for an unknown option, a value out of range, or options without a
   * meaning together; `ERR_NO_TRAINABLE_PARAMETERS`, `ERR_DISPOSED`, `ERR_INPUT_TYPE`.
   */
  constructor(model: Model, options: LoKOOptions = {}) {
    // Before the options are looked at, the model is not known to be one.
    const native = toNative(options, model?.problemType === "regression");
    super(model, { kind: "loko", ...native });
    this.#takesValues = native.observation === "regression";
  }

  /** The published algorithm; the same as `new LoKO(model, { ...options, preset: "paper" })`. */
  static paper(model: Model, options: Omit<LoKOOptions, "preset"> = {}): LoKO {
    return new LoKO(model, { ...options, preset: "paper" });
  }

  /** @internal */
  protected override checkTargets(targets: Targets, batch: number, outputs: number): void {
    if (this.#takesValues) checkValues(targets as Float32Array, batch, outputs);
    else checkLabels(targets as Int32Array, batch, outputs);
  }
}

function toNative(given: LoKOOptions, isRegression: boolean): NativeLokoOptions {
  if (typeof given === "object" && given !== null && Object.hasOwn(given, "lr")) {
    throw new LokoError("ERR_OPTION", "LoKO has no learning rate: leave lr out.");
  }
  checkOptions("LoKO", given, {
    preset: oneOf("paper"),
    observation: oneOf("softmax", "categorical", "logits", "regression"),
    observationRank: either(oneOf("exact", "auto"), integerIn(1, 2 ** 20)),
    rankEpsilon: fraction,
    noise: oneOf("ema", "model", "residual", "fixed"),
    beta: fraction,
    r0: positiveNumber,
    gamma: positiveNumber,
    processNoise: nonNegativeNumber,
    processNoiseRatio: nonNegativeNumber,
    pMax: positiveOrInfinite,
    pMinRatio: fraction,
    trustRegion: positiveOrInfinite,
    p0: either(either(oneOf("auto"), nonNegativeNumber), variancePerGroup),
    tau: positiveNumber,
    covariance: oneOf("fdekf", "vdekf", "lofi"),
    covarianceRank: integerIn(1, 256),
    update: oneOf("linear", "iterated"),
    gain: oneOf("fixed", "adaptive"),
    minLoss: nonNegativeNumber,
  });
  const { processNoise, processNoiseRatio, p0, ...same } = definedOnly(given);
  const ownNoise = same.preset ?? same.noise ?? same.beta ?? same.r0;
  const classified = ownNoise === undefined ? "categorical" : "softmax";
  const observation = same.observation ?? (isRegression ? "regression" : classified);
  return definedOnly<NativeLokoOptions>({
    ...same,
    ...categoricalDefaults(given, observation),
    observation,
    q: processNoise,
    qRatio: processNoiseRatio,
    p0: typeof p0 === "object" ? { a: p0.loraA, b: p0.loraB, head: p0.head } : p0,
  });
}

/**
 * Of a categorical observation: the iterated update, and with it an adaptive gain and a low-rank covariance. Who
 * gives an option of the linear filter (a trust region, process noise) has that one.
 */
function categoricalDefaults(
  { update, gain, covariance, processNoise, processNoiseRatio, gamma, trustRegion }: LoKOOptions,
  observation: LoKOOptions["observation"],
): Pick<LoKOOptions, "update" | "gain" | "covariance"> {
  if (observation !== "categorical") return {};
  const hasNoise = (processNoise ?? 0) > 0 || (processNoiseRatio ?? 0) > 0 || (gamma ?? 1) !== 1;
  const linear = gain !== "adaptive" && (hasNoise || (trustRegion ?? Infinity) < Infinity);
  if ((update ?? (linear ? "linear" : "iterated")) === "linear") return {};
  return {
    update: "iterated",
    gain: gain ?? (hasNoise ? "fixed" : "adaptive"),
    covariance: covariance ?? (hasNoise ? "fdekf" : "lofi"),
  };
}
