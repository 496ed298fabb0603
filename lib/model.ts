import { stat } from "node:fs/promises";
import { types } from "node:util";
import { type Device, resolveDevice } from "./device.js";
import { describe, fromNative, LokoError } from "./errors.js";
import { openCheckpoint } from "./io/checkpoint.js";
import { type AdapterOptions, resolveAdapterOptions } from "./lora/config.js";
import { architectureOf } from "./models/architecture.js";
import { checkInputs, type ImageInputs, lengthOf, requireFinite } from "./models/inputs.js";
import { layOutParameters, type ParameterInfo } from "./models/parameters.js";
import { allocate, ModelRuntime } from "./models/runtime.js";
import { findWeights } from "./models/weights.js";
import { loadAddon } from "./native/loader.js";
import { checkOptions, integerIn, oneOf, trueOrFalse } from "./options.js";
import { Tensor } from "./tensor/tensor.js";

/** Options of {@link Model.fromPretrained}. */
export interface ModelOptions {
  /** Where to compute. Default `"auto"`. */
  device?: Device;
  /**
   * CPU threads of this model; results do not depend on it. 0, the default: physical cores within the
   * affinity mask and the cgroup quota of the process.
   */
  threads?: number;
  /**
   * Number of labels m. Default: what the configuration says (entries of `id2label`, else 2, as in
   * transformers). Another number than the head of the checkpoint has is an error unless
   * `ignoreMismatchedSizes` is set.
   */
  numLabels?: number;
  /** Seeds what is drawn: a new head, and the LoRA factors of `addAdapter`. Default 0. */
  seed?: number;
  /**
   * Replace a head of another size by a new one: weights N(0, 0.02²), bias 0. Default false. A
   * checkpoint without a head always gets a new one; `newWeights` lists it.
   */
  ignoreMismatchedSizes?: boolean;
}

/** Options of {@link Model.jacobian}. */
export interface JacobianOptions {
  /** Derivative of the logits, or of their softmax. Default `"logits"`. */
  observation?: "logits" | "softmax";
}

/**
 * A pretrained model, frozen but for what an adapter adds. All computation runs on one native thread of
 * the model (and its workers), never on the JavaScript thread; one operation at a time.
 *
 * @example
 * ```ts
 * using model = await Model.fromPretrained("vit-base", { numLabels: 10, ignoreMismatchedSizes: true });
 * await model.addAdapter({ r: 8, loraAlpha: 16, targetModules: ["query", "value"] });
 * const optimizer = new LoKO(model);
 * const { predictions } = await optimizer.step({ pixelValues, shape: [1, 3, 224, 224] }, labels);
 * ```
 */
export class Model implements Disposable {
  /** `model_type` of the configuration. */
  readonly modelType: string;
  /** Number of labels m, the width of the logits. */
  readonly numLabels: number;
  /** [C, H, W] of one input. */
  readonly inputShape: readonly [channels: number, height: number, width: number];
  /** Weights that were drawn because the checkpoint has none that fit: those of a new head. */
  readonly newWeights: readonly string[];
  /** Weights of the checkpoint that this model does not use, but for those known to be unneeded. */
  readonly unusedWeights: readonly string[];

  /** @internal */
  readonly runtime: ModelRuntime;
  readonly #head: string;

  private constructor(
    runtime: ModelRuntime,
    facts: {
      modelType: string;
      head: string;
      newWeights: readonly string[];
      unusedWeights: readonly string[];
    },
  ) {
    const { channels, height, width } = runtime.graph.image;
    this.runtime = runtime;
    this.modelType = facts.modelType;
    this.numLabels = runtime.graph.outputs;
    this.inputShape = Object.freeze([channels, height, width] as const);
    this.newWeights = Object.freeze([...facts.newWeights]);
    this.unusedWeights = Object.freeze([...facts.unusedWeights]);
    this.#head = facts.head;
  }

  /**
   * Loads a model folder in Hugging Face format: `config.json` and `model.safetensors`, or several
   * shards with `model.safetensors.index.json`. Supported is `ViTForImageClassification`, and
   * `ViTModel` with a new head; weights may be F32, F16, BF16 or F64. Dropout is never applied: an
   * online learner predicts and learns with the same exact model.
   *
   * @param dir - path of the folder.
   * @throws LokoError
   * - files: `ERR_FILE_NOT_FOUND`, `ERR_FILE_READ`, `ERR_SAFETENSORS_TRUNCATED`,
   *   `ERR_SAFETENSORS_HEADER`, `ERR_SAFETENSORS_OFFSETS`, `ERR_UNKNOWN_DTYPE`, `ERR_CONFIG`
   * - the model: `ERR_UNKNOWN_MODEL_TYPE`, `ERR_UNKNOWN_ACTIVATION`, `ERR_WEIGHT_MISSING`,
   *   `ERR_WEIGHT_SHAPE`, `ERR_WEIGHT_NOT_FINITE`, `ERR_NUM_LABELS`, `ERR_UNSUPPORTED`
   * - the machine: `ERR_DEVICE_UNAVAILABLE`, `ERR_OUT_OF_MEMORY`, `ERR_NATIVE_LOAD`
   * - `ERR_OPTION`, `ERR_INPUT_TYPE` for the arguments
   */
  static async fromPretrained(dir: string, options: ModelOptions = {}): Promise<Model> {
    if (typeof dir !== "string") {
      throw new LokoError("ERR_INPUT_TYPE", `dir must be a string, got ${describe(dir)}.`);
    }
    checkOptions("Model.fromPretrained", options, {
      device: oneOf("auto", "cpu", "cuda", "ref"),
      threads: integerIn(0, 1024),
      numLabels: integerIn(1, 2 ** 20),
      seed: integerIn(0),
      ignoreMismatchedSizes: trueOrFalse,
    });
    const { numLabels, threads = 0, seed = 0, ignoreMismatchedSizes = false } = options;
    const device = resolveDevice(options.device ?? "auto");

    await refuseFile(dir);
    const checkpoint = await openCheckpoint(dir);
    const architecture = architectureOf(checkpoint);
    const definition = architecture.define(checkpoint, numLabels);
    const sources = findWeights(definition, checkpoint, { numLabels, ignoreMismatchedSizes });
    const { graph, head } = definition;
    const session = createSession({
      device,
      threads,
      seed,
      graph: graph.spec,
      weights: sources.weights,
    });
    const runtime = new ModelRuntime(session, graph);
    try {
      await runtime.run((native) => native.load());
    } catch (error) {
      runtime.dispose();
      throw error;
    }
    return new Model(runtime, { modelType: architecture.modelType, head, ...sources });
  }

  /**
   * Adds a LoRA adapter (PEFT's matching rules and initialisation) and makes it, together with
   * `modulesToSave`, the trainable parameters. With the default initialisation B is zero, so the
   * model computes the same as before.
   *
   * @throws LokoError `ERR_LORA_RANK`, `ERR_LORA_CONFIG` (also when the model has an adapter already),
   * `ERR_TARGET_MODULES`, `ERR_UNSUPPORTED`, `ERR_DISPOSED`, `ERR_MODEL_BUSY`, `ERR_OUT_OF_MEMORY`.
   * The model is unchanged then.
   */
  async addAdapter(options: AdapterOptions = {}): Promise<void> {
    this.runtime.requireAlive();
    if (this.runtime.layout !== undefined) {
      throw new LokoError(
        "ERR_LORA_CONFIG",
        "The model already has an adapter; load it again with Model.fromPretrained to add another.",
      );
    }
    const config = resolveAdapterOptions(options, this.modelType);
    const layout = layOutParameters(this.runtime.graph, this.#head, config);
    await this.runtime.run((session) => session.setAdapter(layout.native));
    this.runtime.layout = layout;
  }

  /**
   * Predicts without learning.
   *
   * @param inputs - a batch of any size B.
   * @returns the logits [B, m].
   * @throws LokoError `ERR_INPUT_TYPE`, `ERR_SHAPE_MISMATCH`, `ERR_INPUT_NOT_FINITE`, `ERR_DISPOSED`,
   * `ERR_MODEL_BUSY`, `ERR_OUT_OF_MEMORY`.
   */
  async forward(inputs: ImageInputs): Promise<Tensor> {
    this.runtime.requireAlive();
    const { pixelValues, batch } = checkInputs(inputs, this.runtime.graph.image);
    const shape = [batch, this.numLabels];
    const logits = allocate(shape);
    await this.runtime.run((session) => session.forward(pixelValues, batch, logits));
    return new Tensor(logits, shape);
  }

  /**
   * The exact derivative of the outputs with respect to the trainable parameters, by m backward rows.
   *
   * @returns [B, m, n], in the order of {@link Model.parameters}. With `observation: "softmax"` the
   * derivative of softmax(z), that is (diag(π) − π·πᵀ)·∂z/∂θ.
   * @throws LokoError as {@link Model.forward}, `ERR_NO_TRAINABLE_PARAMETERS`, `ERR_OPTION`.
   */
  async jacobian(inputs: ImageInputs, options: JacobianOptions = {}): Promise<Tensor> {
    this.runtime.requireAlive();
    this.runtime.requireTrainable("jacobian");
    checkOptions("Model.jacobian", options, { observation: oneOf("logits", "softmax") });
    const { observation = "logits" } = options;
    const { pixelValues, batch } = checkInputs(inputs, this.runtime.graph.image);
    const shape = [batch, this.numLabels, this.runtime.parameterCount];
    const values = allocate(shape);
    await this.runtime.run((session) => session.jacobian(pixelValues, batch, observation, values));
    return new Tensor(values, shape);
  }

  /**
   * The trainable parameters in the order of θ: for each adapted module A then B, then weight and bias
   * of each module trained in full. Empty without an adapter.
   *
   * @throws LokoError `ERR_DISPOSED`.
   */
  parameters(): readonly ParameterInfo[] {
    this.runtime.requireAlive();
    return this.runtime.layout?.parameters ?? Object.freeze([]);
  }

  /**
   * @returns a copy of θ, of length n.
   * @throws LokoError `ERR_DISPOSED`, `ERR_MODEL_BUSY`.
   */
  async readParameters(): Promise<Float32Array> {
    this.runtime.requireAlive();
    const values = allocate([this.runtime.parameterCount]);
    await this.runtime.run((session) => session.readParameters(values));
    return values;
  }

  /**
   * Replaces θ. The state of optimizers is kept.
   *
   * @param values - length n, all finite; copied before the call returns.
   * @throws LokoError `ERR_INPUT_TYPE`, `ERR_SHAPE_MISMATCH`, `ERR_INPUT_NOT_FINITE`, `ERR_DISPOSED`,
   * `ERR_MODEL_BUSY`.
   */
  async writeParameters(values: Float32Array): Promise<void> {
    this.runtime.requireAlive();
    if (!types.isFloat32Array(values)) {
      throw new LokoError(
        "ERR_INPUT_TYPE",
        `writeParameters needs a Float32Array, got ${describe(values)}.`,
      );
    }
    if (lengthOf(values) !== this.runtime.parameterCount) {
      throw new LokoError(
        "ERR_SHAPE_MISMATCH",
        `writeParameters needs ${this.runtime.parameterCount} values, one per trainable parameter, ` +
          `got ${lengthOf(values)}.`,
      );
    }
    requireFinite(values, "values");
    await this.runtime.run((session) => session.writeParameters(values));
  }

  /**
   * Frees the native memory. Idempotent, and does not wait: an operation that runs is finished first
   * and its promise settles; whatever is called later throws `ERR_DISPOSED`.
   */
  dispose(): void {
    this.runtime.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** What does not exist at all is for the reader of the folder to report. */
async function refuseFile(dir: string): Promise<void> {
  const isFolder = await stat(dir).then(
    (stats) => stats.isDirectory(),
    () => true,
  );
  if (isFolder) return;
  throw new LokoError(
    "ERR_FILE_NOT_FOUND",
    `${dir}: expected a folder with config.json and the weights, got a file.`,
  );
}

function createSession(options: Parameters<ReturnType<typeof loadAddon>["createSession"]>[0]) {
  const addon = loadAddon();
  try {
    return addon.createSession(options);
  } catch (error) {
    throw fromNative(error);
  }
}
