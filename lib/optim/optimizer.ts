import { types } from "node:util";
import { abortSignal } from "../abort.js";
import { describe, LokoError } from "../errors.js";
import { Model } from "../model.js";
import { checkInputs, checkLabels, checkValues, type ModelInputs } from "../models/inputs.js";
import { allocate } from "../models/runtime.js";
import type {
  NativeOptimizer,
  NativeOptimizerOptions,
  NativeStepControl,
} from "../native/addon.js";
import { checkOptions } from "../options.js";
import { loadOptimizerState, type StateHost, saveOptimizerState } from "./optimizer-state.js";

const ANOTHER_COPY =
  " A Model of another copy of the package is none here: `npm ls loko` shows whether there are two.";

/**
 * Why a step changed nothing: parameters and optimizer state are bit-identical to before.
 * - `"non-finite-logits"`: the outputs of the model hold NaN or an infinity.
 * - `"non-finite-jacobian"`: LoKO's M = G·diag(p)·Gᵀ does.
 * - `"non-finite-gain"`: the gain, or the change of the parameters, is not finite or out of range.
 * - `"non-finite-gradient"`: the gradient of a first-order optimizer is not finite.
 * - `"zero-jacobian"`: no parameter moves the outputs.
 * - `"factorisation-failed"`: S is not positive definite, even with the largest jitter.
 */
export type SkipReason =
  | "non-finite-logits"
  | "non-finite-jacobian"
  | "non-finite-gain"
  | "non-finite-gradient"
  | "zero-jacobian"
  | "factorisation-failed";

/** What one step saw and did. Logits, predictions and loss are from before anything was learned. */
export interface StepResult {
  /** [B * m], row-major. */
  readonly logits: Float32Array;
  /** Index of the largest logit of each sample [B]; -1 for all where the logits are not finite. */
  readonly predictions: Int32Array;
  /**
   * Mean over the batch: cross entropy in nats for labels; squared error over B * m elements for float
   * targets and for LoKO's `"logits"` observation.
   */
  readonly loss: number;
  /** How many of the B samples were predicted correctly; 0 for float targets. */
  readonly correct: number;
  /**
   * Cotangent rows that were propagated backwards: 1 for gradients, up to m - 1 or m for LoKO, 0 where LoKO's `minLoss`
   * ended the step.
   */
  readonly rows: number;
  /** `null`, or why nothing could be learned. */
  readonly skipped: SkipReason | null;
  /** Norm of the gradient before it was clipped; only where the `Trainer` clips. */
  readonly gradientNorm?: number;
  /** The numbers of the filter; absent for first-order optimizers. */
  readonly kalman?: KalmanStatistics;
}

/**
 * What the Kalman filter saw and did in a step. S = H·Σ·Hᵀ + R is the innovation covariance.
 * With `covariance: "lofi"` p is the diagonal part, which no variance exceeds.
 * `pMean`, `pMin` and `pMax` are of the posterior variances of the last applied step, before the process
 * noise of the next one is added; until a step was applied, of those that the first one starts from.
 */
export interface KalmanStatistics {
  /** Largest initial variance; 0 until the automatic rule has chosen it. */
  readonly p0: number;
  /** Trace of the observation noise R that entered the gain of this step. */
  readonly traceR: number;
  /** Normalised innovation squared per row, eᵀS⁻¹e / k; about 1 on average where R fits. */
  readonly nis: number;
  /** Factor that the trust region applied to the step; 1 where it did not act. */
  readonly trustScale: number;
  /** What had to be added to the diagonal of S before it could be factorised; 0 almost always. */
  readonly jitter: number;
  /** (largest / smallest Cholesky pivot)², a lower bound of the condition number of S. */
  readonly pivotRatio: number;
  /** By how much `gain: "adaptive"` has scaled the covariance so far, from 1/20 to 100; 1 with a fixed gain. */
  readonly gain: number;
  /**
   * The share, from −0.5 to 0.01, by which `gain: "adaptive"` stretched or took back in this step what the
   * parameters had moved from where the optimizer began; 0 with a fixed gain.
   */
  readonly stretch: number;
  /** Variances that the floor caught in this step. */
  readonly floored: number;
  /** Mean of the variances p. */
  readonly pMean: number;
  /** Smallest variance. */
  readonly pMin: number;
  /** Largest variance. */
  readonly pMax: number;
}

/** What a step learns from: class indices [B], or float targets [B * m]. */
export type Targets = Int32Array | Float32Array;

/**
 * The common part of all optimizers: one step predicts a batch and then learns from it once, in a
 * single native call off the JavaScript thread.
 */
export abstract class Optimizer {
  /** The model whose parameters it trains. */
  readonly model: Model;
  /** Whether it has a learning rate: all but LoKO. */
  readonly hasLearningRate: boolean;
  readonly #native: NativeOptimizer;
  readonly #options: NativeOptimizerOptions;

  /** @internal */
  protected constructor(model: Model, options: NativeOptimizerOptions) {
    if (!(model instanceof Model)) {
      throw new LokoError(
        "ERR_INPUT_TYPE",
        `${new.target.name} needs a Model, got ${describe(model)}.${Object(model) === model ? ANOTHER_COPY : ""}`,
      );
    }
    model.runtime.requireAlive();
    model.runtime.requireTrainable(new.target.name);
    if (model.problemType === "multi_label_classification") {
      throw new LokoError(
        "ERR_UNSUPPORTED",
        `${new.target.name}: the model's problem_type is "multi_label_classification", whose binary ` +
          "cross-entropy is not supported; the model can predict, and train as one of single labels.",
      );
    }
    this.model = model;
    this.hasLearningRate = options.kind !== "loko";
    this.#options = options;
    this.#native = model.runtime.call((session) => session.createOptimizer(options));
  }

  /**
   * Predicts the batch, then learns from it once. Await it before the next call on the same model.
   *
   * @param inputs - the batch; copied before the call returns.
   * @param targets - class indices [B] as an `Int32Array`, or float targets [B * m] as a
   * `Float32Array` where the optimizer takes those.
   * @throws LokoError `ERR_INPUT_TYPE`, `ERR_SHAPE_MISMATCH`, `ERR_LABEL_RANGE`,
   * `ERR_INPUT_NOT_FINITE`, `ERR_UNSUPPORTED`, `ERR_MODEL_BUSY`, `ERR_DISPOSED`,
   * `ERR_OUT_OF_MEMORY`; nothing has been learned then. Numbers that go wrong inside do not throw but
   * make a skipped step.
   */
  async step(inputs: ModelInputs, targets: Targets): Promise<StepResult> {
    return this.stepWith(inputs, targets, undefined);
  }

  /** @internal What the `Trainer` calls; `control` only for optimizers with a learning rate. */
  async stepWith(
    inputs: ModelInputs,
    targets: Targets,
    control: NativeStepControl | undefined,
  ): Promise<StepResult> {
    const { runtime, numLabels } = this.model;
    runtime.requireAlive();
    const batch = checkInputs(inputs, runtime.inputs);
    this.checkTargets(targets, batch.batch, numLabels);
    const logits = allocate([batch.batch, numLabels]);
    const result = await runtime.run((session) =>
      session.step(this.#native, batch, targets, logits, control),
    );
    // Native code makes no prediction from logits that are not finite.
    const predictions =
      result.predictions.length === batch.batch
        ? result.predictions
        : new Int32Array(batch.batch).fill(-1);
    return { logits, ...result, predictions, skipped: result.skipped as SkipReason | null };
  }

  /**
   * Writes θ and everything that the next steps depend on (for LoKO p, R and counters; for the others
   * moments and counters) as a safetensors file, bit by bit. The file appears complete or not at all.
   *
   * @param file - path of the file; one that exists is replaced.
   * @param options.signal - ends the saving: it rejects with `signal.reason`, and the file is as it was.
   * @throws LokoError `ERR_FILE_WRITE`, `ERR_INPUT_TYPE`, `ERR_DISPOSED`, `ERR_OUT_OF_MEMORY`;
   * `ERR_MODEL_BUSY` where the model does something else: wait for a step before, and for this before the next.
   */
  async saveState(file: string, options: { signal?: AbortSignal } = {}): Promise<void> {
    checkOptions("saveState", options, { signal: abortSignal });
    await saveOptimizerState(this.#host(), file, options.signal);
  }

  /**
   * Reads what {@link Optimizer.saveState} has written, into the optimizer and into the parameters of its
   * model: the next step is the one that the saved optimizer would have done, bit by bit.
   *
   * @param file - path of the file.
   * @param options.signal - ends the loading: it rejects with `signal.reason`, and nothing is changed.
   * @throws LokoError `ERR_CHECKPOINT_MISMATCH`, naming the difference, when it is of a model with other
   * parameters, of another optimizer or other options; `ERR_CHECKPOINT_FORMAT` for a file that is not one
   * of ours; `ERR_FILE_NOT_FOUND`, `ERR_FILE_READ`, those of a safetensors file; `ERR_INPUT_TYPE`,
   * `ERR_DISPOSED`, `ERR_MODEL_BUSY`, `ERR_OUT_OF_MEMORY`. Nothing is changed then.
   */
  async loadState(file: string, options: { signal?: AbortSignal } = {}): Promise<void> {
    checkOptions("loadState", options, { signal: abortSignal });
    await loadOptimizerState(this.#host(), file, options.signal);
  }

  /** @internal Learning rate of the options, or the default of the class; 0 where there is none. */
  get learningRate(): number {
    const options = this.#options;
    return options.kind === "loko" ? 0 : (options.lr ?? DEFAULT_RATES[options.kind]);
  }

  /** @internal Kind and options that were set, for a record of the run. */
  describe(): Readonly<Record<string, unknown>> {
    return { class: this.constructor.name, ...this.#options };
  }

  #host(): StateHost {
    const { runtime, modelType, numLabels } = this.model;
    return {
      runtime,
      model: { modelType, numLabels },
      native: this.#native,
      name: this.constructor.name,
      options: this.#options,
    };
  }

  /**
   * Labels for an Int32Array, values for a Float32Array; a regression has no labels. Overridden where only
   * one fits.
   *
   * @internal
   */
  protected checkTargets(targets: Targets, batch: number, outputs: number): void {
    if (types.isFloat32Array(targets) || this.model.problemType === "regression") {
      checkValues(targets as Float32Array, batch, outputs);
    } else {
      checkLabels(targets, batch, outputs);
    }
  }
}

/** As GradientOptions::defaults in native/filter/gradient_optimizer.cc. */
const DEFAULT_RATES = { sgd: 1e-3, adagrad: 1e-2, rmsprop: 1e-2, adam: 1e-3, adamw: 1e-3 } as const;

/** @internal Removes absent entries, so that native code sees only what was set. */
export function definedOnly<T extends object>(options: T): T {
  return Object.fromEntries(
    Object.entries(options).filter(([, value]) => value !== undefined),
  ) as T;
}
