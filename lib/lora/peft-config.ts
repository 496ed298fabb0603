// adapter_config.json of huggingface/peft 0.21: what is read from it, and what is written.

import { describe, LokoError } from "../errors.js";
import { type JsonObject, originOf } from "../io/json.js";
import { type AdapterConfig, type AdapterOptions, resolveAdapterOptions } from "./config.js";

/** An `adapter_config.json` whose every key was understood, or is listed in `unknownKeys`. */
export interface PeftConfig {
  readonly adapter: AdapterConfig;
  readonly taskType: string | null;
  /** `base_model_name_or_path`. */
  readonly baseModel: string | null;
  readonly loraDropout: number;
  /** Keys that this version does not know and that hold something. */
  readonly unknownKeys: readonly string[];
}

/** The version of PEFT whose format is written. */
const PEFT_VERSION = "0.21.0";

/** Keys with a meaning here, and the option that each becomes. */
const OPTION_KEYS: Readonly<Record<string, keyof AdapterOptions>> = {
  r: "r",
  lora_alpha: "loraAlpha",
  target_modules: "targetModules",
  exclude_modules: "excludeModules",
  layers_to_transform: "layersToTransform",
  layers_pattern: "layersPattern",
  rank_pattern: "rankPattern",
  alpha_pattern: "alphaPattern",
  use_rslora: "useRslora",
  modules_to_save: "modulesToSave",
  bias: "bias",
};

/** Keys of features that are not supported, with the value that PEFT writes where they are off. */
const UNSUPPORTED_KEYS: Readonly<Record<string, unknown>> = {
  alora_invocation_tokens: null,
  arrow_config: null,
  corda_config: null,
  ensure_weight_tying: false,
  eva_config: null,
  fan_in_fan_out: false,
  kasa_config: null,
  layer_replication: null,
  loftq_config: {},
  lora_bias: false,
  lora_ga_config: null,
  megatron_config: null,
  monteclora_config: null,
  target_parameters: null,
  trainable_token_indices: null,
  use_bdlora: null,
  use_dora: false,
  use_qalora: false,
  velora_config: null,
};

/** Keys that change no number here, with the values that are written. */
const INERT_KEYS: Readonly<Record<string, unknown>> = {
  auto_mapping: null,
  inference_mode: true,
  megatron_core: "megatron.core",
  peft_version: PEFT_VERSION,
  qalora_group_size: 16,
  revision: null,
};

/** Keys that are read one by one. */
const OTHER_KEYS = [
  "peft_type",
  "task_type",
  "base_model_name_or_path",
  "lora_dropout",
  "init_lora_weights",
];

/** Other tasks have another head, or none. */
const TASK_TYPES: readonly unknown[] = [null, "SEQ_CLS", "FEATURE_EXTRACTION"];

/** Ways to begin that leave the base model as it was; what the factors became is in the file. */
const HARMLESS_INITS: readonly unknown[] = [true, false, "gaussian", "orthogonal"];

/**
 * Reads an `adapter_config.json`. Only `peft_type` is required, as in PEFT.
 *
 * @param modelType - `model_type` of the base model, which chooses targets where the file has none.
 * @throws LokoError ERR_ADAPTER_FORMAT; ERR_UNSUPPORTED naming the key of a feature that is not
 * supported.
 */
export function parsePeftConfig(json: JsonObject, modelType: string): PeftConfig {
  const path = originOf(json, "adapter_config.json");
  const get = (key: string, absent: unknown = null) =>
    Object.hasOwn(json, key) ? json[key] : absent;

  requirePeftType(get("peft_type"), path);
  for (const key of Object.keys(UNSUPPORTED_KEYS)) {
    if (!isInactive(get(key))) throw unsupported(path, key, get(key));
  }
  if (!HARMLESS_INITS.includes(get("init_lora_weights", true))) {
    throw unsupportedInit(path, get("init_lora_weights"));
  }
  const taskType = get("task_type");
  if (!TASK_TYPES.includes(taskType)) throw unsupported(path, "task_type", taskType);

  const options: Record<string, unknown> = {};
  for (const [key, option] of Object.entries(OPTION_KEYS)) {
    // A rank and an alpha have no "not set": PEFT divides by what stands there.
    const isSet = NUMBERS.has(key) ? Object.hasOwn(json, key) : !isInactive(get(key));
    if (isSet) options[option] = get(key);
  }
  const baseModel = get("base_model_name_or_path");
  return {
    adapter: resolve(options as AdapterOptions, modelType, path),
    taskType: taskType as string | null,
    baseModel: typeof baseModel === "string" ? baseModel : null,
    loraDropout: readDropout(get("lora_dropout", 0), path),
    unknownKeys: Object.keys(json).filter((key) => !isKnown(key) && !isInactive(json[key])),
  };
}

const NUMBERS: ReadonlySet<string> = new Set(["r", "lora_alpha"]);

/** What PEFT takes for "not set". */
function isInactive(value: unknown): boolean {
  if (typeof value === "object" && value !== null) return Object.keys(value).length === 0;
  return value === undefined || value === null || value === false || value === "";
}

function isKnown(key: string): boolean {
  return (
    [OPTION_KEYS, UNSUPPORTED_KEYS, INERT_KEYS].some((keys) => Object.hasOwn(keys, key)) ||
    OTHER_KEYS.includes(key)
  );
}

function requirePeftType(type: unknown, path: string): void {
  if (type === "LORA") return;
  if (typeof type === "string") throw unsupported(path, "peft_type", type);
  throw new LokoError(
    "ERR_ADAPTER_FORMAT",
    `${path}: "peft_type" must be "LORA", got ${describe(type)}. Is it the configuration of an adapter?`,
  );
}

function unsupported(path: string, key: string, value: unknown): LokoError {
  return new LokoError(
    "ERR_UNSUPPORTED",
    `${path}: "${key}": ${describe(value)} is not supported. Merge the adapter in Python with ` +
      "merge_and_unload() and load the merged model.",
  );
}

function unsupportedInit(path: string, init: unknown): LokoError {
  return new LokoError(
    "ERR_UNSUPPORTED",
    `${path}: "init_lora_weights": ${describe(init)} may have changed the base model, so that the ` +
      "factors do not fit the original one. Convert the adapter in Python: save_pretrained(dir, " +
      "path_initial_model_for_weight_conversion=...), or merge it.",
  );
}

function readDropout(value: unknown, path: string): number {
  if (typeof value === "number" && value >= 0 && value <= 1) return value;
  throw new LokoError(
    "ERR_ADAPTER_FORMAT",
    `${path}: "lora_dropout" must be a number in [0, 1], got ${describe(value)}.`,
  );
}

/** The checks of `addAdapter`, in the words of the file. */
function resolve(options: AdapterOptions, modelType: string, path: string): AdapterConfig {
  try {
    return resolveAdapterOptions({ modulesToSave: [], ...options }, modelType);
  } catch (error) {
    if (!(error instanceof LokoError)) throw error;
    const message = Object.entries(OPTION_KEYS).reduce(
      (text, [key, option]) => text.replaceAll(option, key),
      error.message,
    );
    throw new LokoError("ERR_ADAPTER_FORMAT", `${path}: ${message}`, { cause: error });
  }
}

/** What differs from one adapter to the next. */
export interface PeftConfigValues {
  readonly base_model_name_or_path: string;
  readonly task_type: string | null;
  readonly auto_mapping: {
    readonly base_model_class: string;
    readonly parent_library: string;
  } | null;
  readonly modules_to_save: readonly string[] | null;
  readonly targets: PeftTargets;
}

/** The keys that decide which modules are adapted, and how. */
export interface PeftTargets {
  readonly target_modules: string | readonly string[];
  readonly exclude_modules: string | readonly string[] | null;
  readonly layers_to_transform: readonly number[] | null;
  readonly layers_pattern: readonly string[] | null;
  readonly rank_pattern: Readonly<Record<string, number>>;
  readonly alpha_pattern: Readonly<Record<string, number>>;
}

/** The text of an `adapter_config.json` with every key that PEFT writes, sorted as PEFT sorts them. */
export function formatPeftConfig(config: AdapterConfig, values: PeftConfigValues): string {
  const { targets, ...others } = values;
  const all: Record<string, unknown> = {
    ...UNSUPPORTED_KEYS,
    ...INERT_KEYS,
    peft_type: "LORA",
    r: config.r,
    lora_alpha: config.loraAlpha,
    lora_dropout: 0,
    use_rslora: config.useRslora,
    init_lora_weights: config.initLoraWeights,
    bias: config.bias,
    ...targets,
    ...others,
  };
  const sorted = Object.entries(all).sort(([a], [b]) => (a < b ? -1 : 1));
  return `${JSON.stringify(Object.fromEntries(sorted), null, 2)}\n`;
}
