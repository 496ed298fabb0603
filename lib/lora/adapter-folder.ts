// saveAdapter and loadAdapter: a model's adapter as a folder in PEFT's format.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { LokoError } from "../errors.js";
import { checkFolder, writeFolder } from "../io/output-folder.js";
import { bytesOf, type TensorSource, writeSafetensors } from "../io/safetensors-writer.js";
import type { Architecture } from "../models/architecture.js";
import { moduleOf, type ParameterLayout } from "../models/parameters.js";
import { allocate, type ModelRuntime } from "../models/runtime.js";
import { readWeight } from "../models/weight-reader.js";
import type { NativeAdapter } from "../native/addon.js";
import { type Dialect, type DialectChoice, dialectsOf } from "./dialect.js";
import { isWithin } from "./match.js";
import { modelCard } from "./model-card.js";
import { targetModulesOf } from "./modules.js";
import { formatPeftConfig } from "./peft-config.js";
import { type BaseModel, CONFIG_FILE, readAdapter, WEIGHTS_FILE } from "./peft-reader.js";
import { describeTargets } from "./peft-targets.js";
import { PREFIX } from "./peft-tensors.js";

/** Options of {@link Model.saveAdapter}. */
export interface SaveAdapterOptions {
  /** Whether the adapter of a folder that exists may be replaced; other files in it stay. Default false. */
  overwrite?: boolean;
  /**
   * The names of modules to write for models that transformers 5 renamed in memory (ViT): `"both"`, the
   * default, for a file that loads in either version, or `"v4"` or `"v5"` for half the size.
   */
  dialect?: DialectChoice;
  /** Ends the saving: it rejects with `signal.reason`, and the folder is as it was. */
  signal?: AbortSignal;
}

/** Options of {@link Model.loadAdapter}. */
export interface LoadAdapterOptions {
  /** Whether optimizers may train it. Default false, as in PEFT. */
  isTrainable?: boolean;
  /** Ends the loading: it rejects with `signal.reason`, and the model is unchanged. */
  signal?: AbortSignal;
}

/** What {@link Model.loadAdapter} found. */
export interface AdapterSummary {
  /** Paths of the modules with LoRA factors. */
  readonly adaptedModules: readonly string[];
  /** Paths of the modules that were trained in full. */
  readonly savedModules: readonly string[];
  /** `base_model_name_or_path`. */
  readonly baseModel: string | null;
  /** Keys of `adapter_config.json` that this version does not know and that hold something. */
  readonly unknownKeys: readonly string[];
}

/** The side of a model that its adapter is read from and written to. */
export interface AdapterHost extends BaseModel {
  readonly runtime: ModelRuntime;
  /** Where the base model was loaded from. */
  readonly directory: string;
  readonly architecture: Architecture;
}

const NO_ADAPTER: NativeAdapter = {
  lora: [],
  trained: [],
  biases: [],
  parameters: 0,
  init: "kaiming",
};

/** @throws LokoError as {@link Model.loadAdapter}; the model is unchanged then. */
export async function loadAdapter(
  host: AdapterHost,
  dir: string,
  { isTrainable = false, signal }: LoadAdapterOptions,
): Promise<AdapterSummary> {
  const { runtime } = host;
  signal?.throwIfAborted();
  const { peft, layout, values } = await readAdapter(dir, host);
  signal?.throwIfAborted();
  await runtime.run((session) => session.setAdapter(layout.native));
  try {
    await runtime.run((session) => session.writeParameters(values));
  } catch (error) {
    await runtime.run((session) => session.setAdapter(NO_ADAPTER));
    throw error;
  }
  runtime.layout = layout;
  runtime.isFrozen = !isTrainable;
  if (peft.unknownKeys.length > 0) {
    warn(
      "LOKO_ADAPTER_KEYS",
      `${join(dir, CONFIG_FILE)}: the keys ${peft.unknownKeys.join(", ")} are not known to this version ` +
        "and have no effect.",
    );
  }
  if (isTrainable && peft.loraDropout > 0) {
    warn(
      "LOKO_ADAPTER_DROPOUT",
      `${join(dir, CONFIG_FILE)}: lora_dropout ${peft.loraDropout} has no effect, training goes on ` +
        "without dropout.",
    );
  }
  return {
    adaptedModules: layout.plan.sites.map(({ path }) => path),
    savedModules: layout.plan.saved,
    baseModel: peft.baseModel,
    unknownKeys: peft.unknownKeys,
  };
}

function warn(code: string, message: string): void {
  process.emitWarning(message, { type: "LokoWarning", code });
}

/** @throws LokoError as {@link Model.saveAdapter}. */
export async function saveAdapter(
  host: AdapterHost,
  dir: string,
  { overwrite = false, dialect = "both", signal }: SaveAdapterOptions,
): Promise<void> {
  const { runtime } = host;
  const { layout } = runtime;
  if (layout === undefined) {
    throw new LokoError(
      "ERR_LORA_CONFIG",
      "saveAdapter needs a model with an adapter; call addAdapter or loadAdapter first.",
    );
  }
  const dialects = dialectsOf(host.modelType, dialect);
  const frozen = frozenModules(host, layout);
  const theta = allocate([layout.size]);
  await runtime.run((session) => session.readParameters(theta));

  const fill = async (folder: string) => {
    const tensors = [...trainedTensors(layout, theta), ...frozenTensors(host, frozen)];
    await writeSafetensors(join(folder, WEIGHTS_FILE), inDialects(tensors, dialects), {}, signal);
    await writeFile(join(folder, CONFIG_FILE), configText(host, layout, frozen, dialects));
    const hasNewHead = host.newWeights.some((name) => name.startsWith(`${host.head}.`));
    await writeFile(
      join(folder, "README.md"),
      modelCard({ ...host, numLabels: host.graph.outputs, hasNewHead }),
    );
  };
  await writeFolder(dir, fill, { overwrite, signal, ...ADAPTER_FOLDER });
}

const ADAPTER_FOLDER = {
  mustNotHold: ["config.json"],
  isReplaced: (name: string) => /^adapter_model\.(?:bin|safetensors)$/.test(name),
};

/** Whether {@link saveAdapter} could write there. @throws LokoError as it does. */
export function checkAdapterFolder(
  dir: string,
  { overwrite = false }: { overwrite?: boolean | undefined },
): Promise<void> {
  return checkFolder(dir, { overwrite, ...ADAPTER_FOLDER });
}

/**
 * Modules that are not trained and belong into the file all the same: those that were drawn, and for
 * sequence classification the head, without which PEFT does not load the file.
 */
function frozenModules(host: AdapterHost, { plan }: ParameterLayout): string[] {
  const isText = host.graph.input.kind === "text";
  const isDrawn = (path: string) => host.newWeights.some((name) => moduleOf(name) === path);
  const frozen = host.graph.modules.filter(
    (path) =>
      ((isText && isWithin(path, host.head)) || isDrawn(path)) && !plan.saved.includes(path),
  );
  const adapted = frozen.find((path) => plan.sites.some((site) => site.path === path));
  if (adapted === undefined) return frozen;
  throw new LokoError(
    "ERR_UNSUPPORTED",
    `saveAdapter: the weights of ${adapted} are new and not in ${host.directory}, and PEFT's format has ` +
      "no place for them beside LoRA factors. Train the module in full (modulesToSave), or save the base " +
      "model first.",
  );
}

function trainedTensors({ parameters }: ParameterLayout, theta: Float32Array): TensorSource[] {
  return parameters.map(({ name, shape, offset, size }) => ({
    name,
    shape,
    dtype: "F32",
    read: () => bytesOf(theta.subarray(offset, offset + size)),
  }));
}

function frozenTensors(
  { graph, runtime }: AdapterHost,
  modules: readonly string[],
): TensorSource[] {
  const trained = new Set(runtime.layout!.parameters.map(({ name }) => name));
  return graph.weights
    .filter(({ name }) => modules.includes(moduleOf(name)) && !trained.has(PREFIX + name))
    .map(({ name, shape }) => ({
      name: PREFIX + name,
      shape,
      dtype: "F32",
      read: () => readWeight(runtime, name, shape, "F32"),
    }));
}

/** Each tensor under its name in every dialect, once where they agree. */
function inDialects(
  tensors: readonly TensorSource[],
  dialects: readonly Dialect[],
): TensorSource[] {
  return tensors.flatMap((tensor) => {
    const path = tensor.name.slice(PREFIX.length);
    const names = new Set(dialects.map((dialect) => PREFIX + dialect.fromCheckpoint(path)));
    return [...names].map((name) => ({ ...tensor, name }));
  });
}

function configText(
  host: AdapterHost,
  { plan }: ParameterLayout,
  frozen: readonly string[],
  dialects: readonly Dialect[],
): string {
  const { graph, head, architecture } = host;
  const saved = [...plan.saved, ...frozen];
  const names = saved.flatMap((path) => {
    if (isWithin(path, head)) return [head];
    return dialects.map((dialect) => dialect.fromCheckpoint(path));
  });
  const isText = graph.input.kind === "text";
  return formatPeftConfig(plan.config, {
    base_model_name_or_path: host.directory,
    task_type: isText ? "SEQ_CLS" : null,
    auto_mapping:
      isText || architecture.pythonModule === null
        ? null
        : { base_model_class: architecture.taskClass, parent_library: architecture.pythonModule },
    modules_to_save: names.length === 0 ? null : [...new Set(names)],
    targets: describeTargets({ ...plan, saved, modules: targetModulesOf(graph), head }, dialects),
  });
}
