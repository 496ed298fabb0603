import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { types } from "node:util";
import { abortable, abortSignal } from "./abort.js";
import { type Device, type ModelDevice, type Precision, resolveDevice } from "./device.js";
import { describe, fromNative, LokoError } from "./errors.js";
import { openCheckpoint } from "./io/checkpoint.js";
import {
  type AdapterHost,
  type AdapterSummary,
  type LoadAdapterOptions,
  loadAdapter,
  type SaveAdapterOptions,
  saveAdapter,
} from "./lora/adapter-folder.js";
import { type AdapterOptions, resolveAdapterOptions } from "./lora/config.js";
import { architectureOf, type ModelDefinition } from "./models/architecture.js";
import { deriveWeights, readCarried } from "./models/carried.js";
import { type ImageSizeOption, imageExtent, imageSizeRule } from "./models/image-size.js";
import { checkInputs, type InputRules, type ModelInputs, requireFinite } from "./models/inputs.js";
import { type Labels, type ProblemType, readLabels } from "./models/labels.js";
import {
  type ModelHost,
  type ModelSource,
  type SaveOptions,
  type SaveSummary,
  saveModel,
} from "./models/model-folder.js";
import {
  countWeights,
  layOutParameters,
  type ParameterInfo,
  planAdapter,
} from "./models/parameters.js";
import { allocate, ModelRuntime } from "./models/runtime.js";
import { findWeights } from "./models/weights.js";
import { loadAddon } from "./native/loader.js";
import { checkOptions, integerIn, oneOf, trueOrFalse } from "./options.js";
import { Tensor } from "./tensor/tensor.js";
import { lengthOf } from "./tensor/typed-array.js";

/** Options of {@link Model.fromPretrained}. */
export interface ModelOptions {
  /** Where to compute. Default `"auto"`. */
  device?: Device;
  /**
   * How a GPU multiplies with frozen weights. Default `"float32"`, the only one that other devices have.
   */
  precision?: Precision;
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
   * Height and width of the images, for models of images; a number stands for both. Convolutional nets take
   * any size (default 224, or what timm's configuration says; their features are 1/32 of it, so enlarge
   * images of 28 or 32 pixels), ViT and DINOv2 multiples of their patch, for which the position embeddings
   * are interpolated as transformers does (default the configuration's `image_size`).
   */
  imageSize?: ImageSizeOption;
  /**
   * Replace a head of another size by a new one: weights N(0, 0.02²), bias 0. Default false. A
   * checkpoint without a head always gets a new one; `newWeights` lists it.
   */
  ignoreMismatchedSizes?: boolean;
  /** Ends the loading: `fromPretrained` rejects with `signal.reason` at once, and what was read is freed. */
  signal?: AbortSignal;
}

/** What one sample of a model is. */
export type ModelInput =
  | {
      /** Tells the two apart. */
      readonly kind: "image";
      /** [C, H, W] of one image, in pixels. */
      readonly shape: readonly [channels: number, height: number, width: number];
    }
  | {
      /** Tells the two apart. */
      readonly kind: "text";
      /** Number of token ids. */
      readonly vocabSize: number;
      /** Most tokens of one text. */
      readonly maxLength: number;
      /** Number of token types; 1 where texts of a pair are not told apart by type. */
      readonly typeVocabSize: number;
      /** The token that fills up shorter texts. */
      readonly padTokenId: number;
    };

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
  /** `model_type` of the configuration, or timm's `architecture`. */
  readonly modelType: string;
  /** Number of labels m, the width of the logits. */
  readonly numLabels: number;
  /** What one sample is: an image of this shape, or a text of at most so many tokens. */
  readonly input: ModelInput;
  /** Name of each label, m entries; `"LABEL_0"` and so on where the configuration has none. */
  readonly id2label: readonly string[];
  /** The other way round. */
  readonly label2id: ReadonlyMap<string, number>;
  /** What the outputs mean; one label without a `problem_type` is a regression, as in transformers. */
  readonly problemType: ProblemType;
  /** The folder it was loaded from, as an absolute path. */
  readonly directory: string;
  /** Where it computes; where `"auto"` took no GPU, `note` says why. */
  readonly device: ModelDevice;
  /** Weights that were drawn because the checkpoint has none that fit: those of a new head. */
  readonly newWeights: readonly string[];
  /** Weights of the checkpoint that this model does not use, but for those known to be unneeded. */
  readonly unusedWeights: readonly string[];

  /** @internal */
  readonly runtime: ModelRuntime;
  readonly #definition: ModelDefinition;
  readonly #source: ModelSource;

  private constructor(
    runtime: ModelRuntime,
    facts: {
      directory: string;
      device: ModelDevice;
      definition: ModelDefinition;
      labels: Labels;
      newWeights: readonly string[];
      unusedWeights: readonly string[];
      source: ModelSource;
    },
  ) {
    this.runtime = runtime;
    this.directory = facts.directory;
    this.device = facts.device;
    this.modelType = facts.source.architecture.modelType;
    this.numLabels = runtime.graph.outputs;
    this.input = describeInput(runtime.inputs);
    this.id2label = facts.labels.id2label;
    this.label2id = facts.labels.label2id;
    this.problemType = facts.labels.problemType;
    this.newWeights = Object.freeze([...facts.newWeights]);
    this.unusedWeights = Object.freeze([...facts.unusedWeights]);
    this.#definition = facts.definition;
    this.#source = facts.source;
  }

  /**
   * Loads a model folder in Hugging Face format: `config.json` and `model.safetensors`, or several
   * shards with `model.safetensors.index.json`. Supported are `BertForSequenceClassification`,
   * `RobertaForSequenceClassification`, `ViTForImageClassification`, `Dinov2ForImageClassification` and
   * `ResNetForImageClassification`, checkpoints of their backbones alone or of masked language modelling,
   * which get a new head, and the ResNets and DenseNets of torchvision and timm (docs/models.md); weights
   * may be F32, F16, BF16 or F64. Dropout is never applied and batch norms use their running statistics: an
   * online learner predicts and learns with the same exact model.
   *
   * @param dir - path of the folder.
   * @throws LokoError
   * - files: `ERR_FILE_NOT_FOUND`, `ERR_FILE_READ`, `ERR_SAFETENSORS_TRUNCATED`,
   *   `ERR_SAFETENSORS_HEADER`, `ERR_SAFETENSORS_OFFSETS`, `ERR_UNKNOWN_DTYPE`, `ERR_CONFIG`
   * - the model: `ERR_UNKNOWN_MODEL_TYPE`, `ERR_UNKNOWN_ACTIVATION`, `ERR_WEIGHT_MISSING`,
   *   `ERR_WEIGHT_SHAPE`, `ERR_WEIGHT_NOT_FINITE`, `ERR_NUM_LABELS`, `ERR_UNSUPPORTED`,
   *   `ERR_SHAPE_MISMATCH` for an `imageSize` that the model cannot take
   * - the machine: `ERR_DEVICE_UNAVAILABLE`, `ERR_OUT_OF_MEMORY`, `ERR_NATIVE_LOAD`
   * - `ERR_OPTION`, `ERR_INPUT_TYPE` for the arguments
   */
  static async fromPretrained(dir: string, options: ModelOptions = {}): Promise<Model> {
    if (typeof dir !== "string") {
      throw new LokoError("ERR_INPUT_TYPE", `dir must be a string, got ${describe(dir)}.`);
    }
    checkOptions("Model.fromPretrained", options, {
      device: oneOf("auto", "cpu", "cuda", "ref"),
      precision: oneOf("float32", "tf32", "bfloat16"),
      threads: integerIn(0, 1024),
      numLabels: integerIn(1, 2 ** 20),
      seed: integerIn(0),
      ignoreMismatchedSizes: trueOrFalse,
      imageSize: imageSizeRule,
      signal: abortSignal,
    });
    const { numLabels, threads = 0, seed = 0, ignoreMismatchedSizes = false, signal } = options;
    signal?.throwIfAborted();
    const imageSize = options.imageSize === undefined ? undefined : imageExtent(options.imageSize);
    const { precision = "float32" } = options;
    const device = resolveDevice(options.device, precision);

    await refuseFile(dir);
    const checkpoint = await abortable(openCheckpoint(dir), signal);
    const architecture = architectureOf(checkpoint);
    const definition = architecture.define(checkpoint, { numLabels, imageSize });
    const { graph, derived = [] } = definition;
    const sources = findWeights(definition, checkpoint, { numLabels, ignoreMismatchedSizes });
    const carried = await abortable(readCarried(sources.carried), signal);
    const labels = readLabels(checkpoint.config, graph.outputs);
    const weights = await deriveWeights(sources.weights, sources.carried, derived, graph);
    signal?.throwIfAborted();
    const session = createSession({
      device: device.name,
      precision,
      threads,
      seed,
      graph: graph.spec,
      weights,
    });
    const runtime = new ModelRuntime(session, definition);
    try {
      await abortable(
        runtime.run((native) => native.load()),
        signal,
      );
    } catch (error) {
      runtime.dispose();
      throw error;
    }
    return new Model(runtime, {
      ...sources,
      directory: resolve(dir),
      device,
      definition,
      labels,
      source: { architecture, config: checkpoint.config, weights: sources.weights, carried },
    });
  }

  /**
   * Adds a LoRA adapter (PEFT's matching rules and initialisation) and makes it, together with
   * `modulesToSave`, the trainable parameters. With the default initialisation B is zero, so the
   * model computes the same as before.
   *
   * @param options - rank, targets and so on; without any r = 8 on the default modules of the model.
   * @throws LokoError `ERR_LORA_RANK`, `ERR_LORA_CONFIG` (also when the model has an adapter already),
   * `ERR_TARGET_MODULES`, `ERR_UNSUPPORTED`, `ERR_DISPOSED`, `ERR_MODEL_BUSY`, `ERR_OUT_OF_MEMORY`.
   * The model is unchanged then.
   */
  async addAdapter(options: AdapterOptions = {}): Promise<void> {
    this.#requireNoAdapter();
    const config = resolveAdapterOptions(options, this.modelType);
    const { graph } = this.runtime;
    const layout = layOutParameters(graph, planAdapter(graph, this.#definition.head, config));
    await this.runtime.run((session) => session.setAdapter(layout.native));
    this.runtime.layout = layout;
    this.runtime.isFrozen = false;
  }

  /**
   * Writes the adapter as a folder that PEFT opens: `adapter_config.json`, `adapter_model.safetensors`
   * and a model card. The folder appears complete or not at all.
   *
   * @param dir - path of the folder.
   * @throws LokoError `ERR_OUTPUT_EXISTS` when it is not empty and `overwrite` is not set, or holds a
   * model; `ERR_FILE_WRITE`, `ERR_LORA_CONFIG` without an adapter, `ERR_UNSUPPORTED`, `ERR_OPTION`,
   * `ERR_INPUT_TYPE`, `ERR_DISPOSED`, `ERR_MODEL_BUSY`, `ERR_OUT_OF_MEMORY`.
   */
  async saveAdapter(dir: string, options: SaveAdapterOptions = {}): Promise<void> {
    this.runtime.requireAlive();
    requireFolder(dir);
    checkOptions("Model.saveAdapter", options, {
      overwrite: trueOrFalse,
      dialect: oneOf("both", "v4", "v5"),
      signal: abortSignal,
    });
    await saveAdapter(this.#host(), dir, options);
  }

  /**
   * Reads an adapter folder that PEFT or {@link Model.saveAdapter} has written, with the module names of
   * transformers 4 or 5. Every tensor must have a place and every place a tensor; keys that ask for
   * something that is not supported are errors, and unknown ones are warned of. As in PEFT the adapter is
   * frozen unless `isTrainable` is set. Dropout of the adapter is never applied.
   *
   * @param dir - path of the folder.
   * @throws LokoError
   * - the folder: `ERR_FILE_NOT_FOUND`, `ERR_FILE_READ`, `ERR_CONFIG`, those of a safetensors file
   * - what is in it: `ERR_ADAPTER_FORMAT`, `ERR_ADAPTER_MISMATCH` for an adapter of another model,
   *   `ERR_UNSUPPORTED`, `ERR_WEIGHT_NOT_FINITE`
   * - `ERR_LORA_CONFIG` when the model has an adapter already; `ERR_OPTION`, `ERR_INPUT_TYPE`,
   *   `ERR_DISPOSED`, `ERR_MODEL_BUSY`, `ERR_OUT_OF_MEMORY`
   *
   * The model is unchanged then.
   */
  async loadAdapter(dir: string, options: LoadAdapterOptions = {}): Promise<AdapterSummary> {
    this.#requireNoAdapter();
    requireFolder(dir);
    checkOptions("Model.loadAdapter", options, { isTrainable: trueOrFalse, signal: abortSignal });
    return loadAdapter(this.#host(), dir, options);
  }

  /**
   * Makes the adapter part of the weights, W + scale·B·A in float32; modules trained in full and biases
   * replace theirs. The model computes the same and has no adapter then: `save` writes it, and another
   * adapter may be added.
   *
   * @returns `largestChange`, the largest |change| of an element of a weight with LoRA factors, and the path
   * of the `module` it is in.
   * @throws LokoError `ERR_LORA_CONFIG` without an adapter, `ERR_DISPOSED`, `ERR_MODEL_BUSY`,
   * `ERR_OUT_OF_MEMORY`. The model is unchanged then.
   */
  async mergeAdapter(): Promise<{ readonly largestChange: number; readonly module: string }> {
    this.runtime.requireAlive();
    if (this.runtime.layout === undefined) {
      throw new LokoError("ERR_LORA_CONFIG", "mergeAdapter needs a model with an adapter.");
    }
    const { largestChange, weight } = await this.runtime.run((session) => session.mergeAdapter());
    this.runtime.layout = undefined;
    this.runtime.isFrozen = false;
    return { largestChange, module: weight.replace(/\.weight$/, "") };
  }

  /**
   * Writes the whole model as a folder that transformers opens: `config.json`, `model.safetensors` with
   * the names of the model with its head, each tensor in the type that it has in the checkpoint (float32
   * where it is new), and the files of the tokenizer or the image processor. The folder appears complete
   * or not at all.
   *
   * @param dir - path of the folder.
   * @throws LokoError `ERR_LORA_CONFIG` for a model with an adapter that is not merged;
   * `ERR_OUTPUT_EXISTS` when the folder is not empty and `overwrite` is not set, or holds an adapter;
   * `ERR_FILE_WRITE`, `ERR_OPTION`, `ERR_INPUT_TYPE`, `ERR_DISPOSED`, `ERR_MODEL_BUSY`.
   */
  async save(dir: string, options: SaveOptions = {}): Promise<SaveSummary> {
    this.runtime.requireAlive();
    requireFolder(dir);
    checkOptions("Model.save", options, { overwrite: trueOrFalse, signal: abortSignal });
    return saveModel(this.#host(), dir, options);
  }

  /**
   * Predicts without learning.
   *
   * @param inputs - a batch of any size B.
   * @returns the logits [B, m].
   * @throws LokoError `ERR_INPUT_TYPE`, `ERR_SHAPE_MISMATCH`, `ERR_INPUT_NOT_FINITE`, for texts
   * `ERR_TOKEN_RANGE` and `ERR_SEQUENCE_LENGTH`; `ERR_DISPOSED`, `ERR_MODEL_BUSY`, `ERR_OUT_OF_MEMORY`.
   */
  async forward(inputs: ModelInputs): Promise<Tensor> {
    this.runtime.requireAlive();
    const batch = checkInputs(inputs, this.runtime.inputs);
    const shape = [batch.batch, this.numLabels];
    const logits = allocate(shape);
    await this.runtime.run((session) => session.forward(batch, logits));
    return new Tensor(logits, shape);
  }

  /**
   * The exact derivative of the outputs with respect to the trainable parameters, by m backward rows.
   *
   * @param inputs - a batch of any size B; the result takes 4·B·m·n bytes.
   * @returns [B, m, n], in the order of {@link Model.parameters}. With `observation: "softmax"` the
   * derivative of softmax(z), that is (diag(π) − π·πᵀ)·∂z/∂θ.
   * @throws LokoError as {@link Model.forward}, `ERR_NO_TRAINABLE_PARAMETERS`, `ERR_OPTION`.
   */
  async jacobian(inputs: ModelInputs, options: JacobianOptions = {}): Promise<Tensor> {
    this.runtime.requireAlive();
    this.runtime.requireTrainable("jacobian");
    checkOptions("Model.jacobian", options, { observation: oneOf("logits", "softmax") });
    const { observation = "logits" } = options;
    const batch = checkInputs(inputs, this.runtime.inputs);
    const shape = [batch.batch, this.numLabels, this.runtime.parameterCount];
    const values = allocate(shape);
    await this.runtime.run((session) => session.jacobian(batch, observation, values));
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
   * How many parameters there are, as PEFT's `print_trainable_parameters` counts: `trainable` is n, or 0
   * while a loaded adapter is frozen, and `all` is the whole model and θ, so that a head which is trained
   * in full counts twice, once as the frozen original.
   *
   * @throws LokoError `ERR_DISPOSED`.
   */
  parameterCounts(): { readonly trainable: number; readonly all: number } {
    this.runtime.requireAlive();
    const { parameterCount, isFrozen } = this.runtime;
    return {
      trainable: isFrozen ? 0 : parameterCount,
      all: countWeights(this.#definition) + parameterCount,
    };
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

  /** {@link Model.dispose}, at the end of the block of a `using` declaration. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  #requireNoAdapter(): void {
    this.runtime.requireAlive();
    if (this.runtime.layout === undefined) return;
    throw new LokoError(
      "ERR_LORA_CONFIG",
      "The model already has an adapter; load it again with Model.fromPretrained to add another.",
    );
  }

  #host(): AdapterHost & ModelHost {
    const { runtime, modelType, newWeights, directory, id2label } = this;
    const { graph } = runtime;
    return {
      runtime,
      graph,
      modelType,
      newWeights,
      directory,
      id2label,
      head: this.#definition.head,
      ...this.#source,
    };
  }
}

function requireFolder(dir: unknown): void {
  if (typeof dir === "string" && dir !== "") return;
  throw new LokoError("ERR_INPUT_TYPE", `dir must be the path of a folder, got ${describe(dir)}.`);
}

function describeInput({ input, tokens }: InputRules): ModelInput {
  if (input.kind === "image") {
    const { channels, height, width } = input;
    return Object.freeze({
      kind: "image",
      shape: Object.freeze([channels, height, width] as const),
    });
  }
  return Object.freeze({
    kind: "text",
    vocabSize: input.vocabulary,
    maxLength: input.maxTokens,
    typeVocabSize: input.typeCount,
    padTokenId: tokens!.padTokenId,
  });
}

/** What cannot be looked at is for the reader of the folder to report. */
async function refuseFile(dir: string): Promise<void> {
  const stats = await stat(dir).catch((error: NodeJS.ErrnoException) => error);
  if (stats instanceof Error) {
    if (stats.code !== "ENOENT") return;
    throw new LokoError(
      "ERR_FILE_NOT_FOUND",
      `${dir}: no such folder. A model is read from a folder on this machine that holds config.json and ` +
        "the weights; nothing is downloaded.",
    );
  }
  if (stats.isDirectory()) return;
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
