import { describe, LokoError, nearestNames } from "../errors.js";
import { compilePattern } from "./pattern.js";

/** Which biases an adapter trains, in PEFT's words. */
export type AdapterBias = "none" | "lora_only" | "all";

/**
 * Options of a LoRA adapter, with the names and the meaning of PEFT's `LoraConfig` in camelCase
 * (https://huggingface.co/docs/peft/package_reference/lora).
 */
export interface AdapterOptions {
  /** Rank r of the update B·A, an integer >= 1. Default 8. */
  r?: number;
  /** Numerator alpha of the scale alpha / r. Default 8. */
  loraAlpha?: number;
  /**
   * The linear modules and convolutions to adapt. An entry of a list matches a module whose path equals it
   * or ends with "." + entry; a string is a regular expression for the whole path; "all-linear" is every
   * linear module but those of the output head, and no convolution. Default by model type:
   * `["query", "value"]` for `bert`, `roberta`, `vit` and `dinov2`, and for convolutional nets every
   * convolution (`lenet`: and every linear module) but the head.
   */
  targetModules?: string | readonly string[];
  /** Modules never to adapt, by the same rules. Default none. */
  excludeModules?: string | readonly string[];
  /** Adapt only layers with these indices; needs a list in `targetModules`. Default all. */
  layersToTransform?: number | readonly number[];
  /** Regular expression for the path segment before the layer index, as "layer". Default any. */
  layersPattern?: string | readonly string[];
  /** Other ranks for some modules; a key is a regular expression for the end of a path. */
  rankPattern?: Readonly<Record<string, number>>;
  /** Other alphas for some modules, with keys as in `rankPattern`. */
  alphaPattern?: Readonly<Record<string, number>>;
  /** Scale by alpha / sqrt(r) (rank-stabilised LoRA, arXiv 2312.03732). Default false. */
  useRslora?: boolean;
  /** Modules trained and saved in full. Default the output head; `[]` freezes it. */
  modulesToSave?: readonly string[];
  /**
   * `true`: A Kaiming-uniform with a = sqrt(5), that is U(-1/sqrt(in), 1/sqrt(in)), and B zero.
   * `"gaussian"`: A normal with standard deviation 1/r, B zero. `false`: A as with `true` and B
   * U(-1/sqrt(r), 1/sqrt(r)), so that the adapter changes the model at once, for tests. Default `true`.
   */
  initLoraWeights?: boolean | "gaussian";
  /** Dropout before A. Only 0, the default. */
  loraDropout?: number;
  /**
   * Which biases to train beside the factors: those of the adapted modules (`"lora_only"`) or of every
   * module, layer norms included (`"all"`). Default `"none"`.
   */
  bias?: AdapterBias;
}

/** {@link AdapterOptions} after validation, with every default filled in. */
export interface AdapterConfig {
  readonly r: number;
  readonly loraAlpha: number;
  readonly targetModules: string | readonly string[];
  readonly excludeModules: string | readonly string[];
  /** `null` means all layers. */
  readonly layersToTransform: readonly number[] | null;
  /** Empty means any segment. */
  readonly layersPattern: readonly string[];
  readonly rankPattern: Readonly<Record<string, number>>;
  readonly alphaPattern: Readonly<Record<string, number>>;
  readonly useRslora: boolean;
  /** `null` means the output head. */
  readonly modulesToSave: readonly string[] | null;
  readonly initLoraWeights: boolean | "gaussian";
  readonly bias: AdapterBias;
}

const QUERY_AND_VALUE: readonly string[] = ["query", "value"];

/**
 * Those of PEFT. It has none for image models and refuses them; for ViT those of its examples, for
 * convolutional nets every convolution.
 */
const DEFAULT_TARGETS: readonly (readonly [modelType: RegExp, targets: readonly string[]])[] = [
  [/^(?:bert|roberta|vit|dinov2)$/, QUERY_AND_VALUE],
  [/^resnet$/, ["convolution"]],
  [/^resnet(?:18|34)$/, ["conv1", "conv2", "downsample.0"]],
  [/^resnet\d+$/, ["conv1", "conv2", "conv3", "downsample.0"]],
  [/^densenet\d+$/, ["conv0", "conv1", "conv2", "conv"]],
  [/^lenet$/, ["conv1", "conv2", "fc1", "fc2"]],
];

function defaultTargets(modelType: string): readonly string[] | undefined {
  return DEFAULT_TARGETS.find(([types]) => types.test(modelType))?.[1];
}

const OPTION_NAMES: readonly string[] = [
  "r",
  "loraAlpha",
  "targetModules",
  "excludeModules",
  "layersToTransform",
  "layersPattern",
  "rankPattern",
  "alphaPattern",
  "useRslora",
  "modulesToSave",
  "initLoraWeights",
  "loraDropout",
  "bias",
] satisfies (keyof AdapterOptions)[];

/**
 * Checks adapter options and fills in the defaults. An option set to `undefined` counts as absent.
 *
 * @param modelType - `model_type` of the checkpoint, which chooses the default targets.
 * @throws LokoError ERR_LORA_RANK, ERR_LORA_CONFIG (unknown option, wrong type, bad regular expression,
 * options that exclude each other), ERR_TARGET_MODULES (no targets), ERR_UNSUPPORTED.
 */
export function resolveAdapterOptions(options: AdapterOptions, modelType: string): AdapterConfig {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw configError("adapter options", "an object", options);
  }
  for (const key of Object.keys(options)) {
    if (!OPTION_NAMES.includes(key)) {
      const near = nearestNames(key, OPTION_NAMES, 1)[0];
      throw new LokoError(
        "ERR_LORA_CONFIG",
        `Unknown adapter option ${describe(key)}; did you mean "${near}"?`,
      );
    }
  }
  refuseDropout(options);

  const {
    r = 8,
    loraAlpha = 8,
    useRslora = false,
    initLoraWeights = true,
    bias = "none",
  } = options;
  const targetModules = readModules(options, "targetModules") ?? defaultTargets(modelType);
  if (targetModules === undefined || targetModules.length === 0) {
    throw new LokoError(
      "ERR_TARGET_MODULES",
      `targetModules must name at least one module: model type ${describe(modelType)} ` +
        `${defaultTargets(modelType) ? "was given an empty one" : "has no default"}.`,
    );
  }
  const layersToTransform = readLayers(options.layersToTransform);
  const layersPattern = readLayersPattern(options.layersPattern);
  if (layersToTransform === null && layersPattern.length > 0) {
    throw new LokoError("ERR_LORA_CONFIG", "layersPattern needs layersToTransform as well.");
  }
  if (layersToTransform !== null && typeof targetModules === "string") {
    throw new LokoError(
      "ERR_LORA_CONFIG",
      "layersToTransform needs a list in targetModules; a regular expression can name the layers " +
        "itself.",
    );
  }
  return {
    r: readRank(r, "r"),
    loraAlpha: readAlpha(loraAlpha, "loraAlpha"),
    targetModules,
    excludeModules: readModules(options, "excludeModules") ?? [],
    layersToTransform,
    layersPattern,
    rankPattern: readPattern(options, "rankPattern", readRank),
    alphaPattern: readPattern(options, "alphaPattern", readAlpha),
    useRslora: readFlag(useRslora, "useRslora"),
    modulesToSave: readNames(options.modulesToSave, "modulesToSave") ?? null,
    initLoraWeights: readInit(initLoraWeights),
    bias: readBias(bias),
  };
}

function configError(name: string, expected: string, got: unknown): LokoError {
  return new LokoError("ERR_LORA_CONFIG", `${name} must be ${expected}, got ${describe(got)}.`);
}

function refuseDropout({ loraDropout = 0 }: AdapterOptions): void {
  if (typeof loraDropout !== "number" || !(loraDropout >= 0 && loraDropout < 1)) {
    throw configError("loraDropout", "a number in [0, 1)", loraDropout);
  }
  if (loraDropout === 0) return;
  throw new LokoError(
    "ERR_UNSUPPORTED",
    `loraDropout ${loraDropout} is not supported; use 0. A Kalman update needs the exact Jacobian ` +
      "of the model that predicted.",
  );
}

function readRank(value: unknown, name: string): number {
  if (Number.isSafeInteger(value) && (value as number) >= 1) return value as number;
  throw new LokoError("ERR_LORA_RANK", `${name} must be an integer >= 1, got ${describe(value)}.`);
}

function readAlpha(value: unknown, name: string): number {
  // With a scale of 0 the adapter has no effect and no gradient: nothing would train, silently.
  if (typeof value === "number" && Number.isFinite(value) && value > 0) return value;
  throw configError(name, "a finite number > 0", value);
}

function readFlag(value: unknown, name: string): boolean {
  if (typeof value === "boolean") return value;
  throw configError(name, "true or false", value);
}

function readInit(value: unknown): boolean | "gaussian" {
  if (typeof value === "boolean" || value === "gaussian") return value;
  throw configError("initLoraWeights", 'true, false or "gaussian"', value);
}

function readBias(value: unknown): AdapterBias {
  if (value === "none" || value === "lora_only" || value === "all") return value;
  throw configError("bias", '"none", "lora_only" or "all"', value);
}

function readNames(value: unknown, name: string): readonly string[] | undefined {
  if (value === undefined) return undefined;
  if (Array.isArray(value) && value.every((entry) => typeof entry === "string" && entry !== "")) {
    return value;
  }
  throw configError(name, "an array of module names", value);
}

function readModules(
  options: AdapterOptions,
  name: "targetModules" | "excludeModules",
): string | readonly string[] | undefined {
  const value: unknown = options[name];
  if (typeof value !== "string") return readNames(value, name);
  compilePattern(value, name);
  return value;
}

function readLayers(value: unknown): readonly number[] | null {
  if (value === undefined) return null;
  const layers: unknown[] = Array.isArray(value) ? value : [value];
  if (layers.length > 0 && layers.every((n) => Number.isSafeInteger(n) && (n as number) >= 0)) {
    return layers as number[];
  }
  throw configError("layersToTransform", "an integer >= 0 or a non-empty array of them", value);
}

function readLayersPattern(value: unknown): readonly string[] {
  const patterns = readNames(typeof value === "string" ? [value] : value, "layersPattern") ?? [];
  for (const pattern of patterns) compilePattern(pattern, "layersPattern");
  return patterns;
}

function readPattern(
  options: AdapterOptions,
  name: "rankPattern" | "alphaPattern",
  read: (value: unknown, name: string) => number,
): Readonly<Record<string, number>> {
  const { [name]: value = {} }: Partial<Record<typeof name, unknown>> = options;
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw configError(name, "an object from patterns to numbers", value);
  }
  for (const [key, entry] of Object.entries(value)) {
    compilePattern(key, name);
    read(entry, `${name}[${describe(key)}]`);
  }
  return value as Record<string, number>;
}
