// Reads an adapter folder that PEFT, or this package, has written.

import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, LokoError } from "../errors.js";
import { exists } from "../io/files.js";
import { readJsonObject } from "../io/json.js";
import { openSafetensors, readTensor } from "../io/safetensors.js";
import type { TensorInfo } from "../io/safetensors-header.js";
import {
  type AdapterPlan,
  layOutParameters,
  type ParameterInfo,
  type ParameterLayout,
  trainedBiases,
} from "../models/parameters.js";
import type { ModelGraph } from "../nn/graph.js";
import { dialectsOf } from "./dialect.js";
import { isWithin, savedParameterName, selectTargets } from "./match.js";
import { type LoraSite, targetModulesOf } from "./modules.js";
import { type PeftConfig, parsePeftConfig } from "./peft-config.js";
import { type AdapterTensors, checkFit, foreign, readTensorNames } from "./peft-tensors.js";

export const CONFIG_FILE = "adapter_config.json";
export const WEIGHTS_FILE = "adapter_model.safetensors";
const PICKLE_FILE = "adapter_model.bin";

/** The model that an adapter is read for. */
export interface BaseModel {
  readonly modelType: string;
  readonly graph: ModelGraph;
  /** Path of the output head. */
  readonly head: string;
  /** Weights that the base model does not have and that were drawn. */
  readonly newWeights: readonly string[];
}

/** An adapter that fits its model. */
export interface PeftAdapter {
  readonly peft: PeftConfig;
  readonly layout: ParameterLayout;
  /** theta. */
  readonly values: Float32Array;
}

/**
 * Reads an adapter folder for a model, in any dialect. Every tensor must have a place and every place a
 * tensor.
 *
 * @throws LokoError ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_CONFIG and those of a safetensors file;
 * ERR_ADAPTER_FORMAT, ERR_ADAPTER_MISMATCH, ERR_UNSUPPORTED, ERR_WEIGHT_NOT_FINITE.
 */
export async function readAdapter(dir: string, base: BaseModel): Promise<PeftAdapter> {
  await requireFiles(dir);
  const peft = parsePeftConfig(await readJsonObject(join(dir, CONFIG_FILE)), base.modelType);
  const file = await openSafetensors(join(dir, WEIGHTS_FILE));
  const tensors = readTensorNames(file.tensors, dialectsOf(base.modelType));
  checkFit(tensors, base.graph, peft.baseModel);

  const plan = planOf(peft, tensors, base);
  const layout = layOutParameters(base.graph, plan);
  requireNewWeights(file.path, base, plan);
  requireTensors(file.path, layout, tensors);
  const values = new Float32Array(layout.size);
  for (const parameter of layout.parameters) {
    values.set(await readParameter(tensors.byName.get(parameter.name)!), parameter.offset);
  }
  return { peft, layout, values };
}

async function requireFiles(dir: string): Promise<void> {
  if (!(await exists(join(dir, CONFIG_FILE)))) {
    const named = await subFolders(dir);
    const hint =
      named.length === 0 ? "" : `; there are adapters in ${named.map(describe).join(", ")}`;
    throw new LokoError(
      "ERR_FILE_NOT_FOUND",
      `${dir}: expected an adapter folder with ${CONFIG_FILE}, and it is not there${hint}.`,
    );
  }
  if (await exists(join(dir, WEIGHTS_FILE))) return;
  if (await exists(join(dir, PICKLE_FILE))) {
    throw new LokoError(
      "ERR_UNSUPPORTED",
      `${dir}: found only ${PICKLE_FILE}, a Python pickle, which can run code when it is read. Convert ` +
        "it in Python: PeftModel.from_pretrained(base_model, dir).save_pretrained(dir).",
    );
  }
  throw new LokoError(
    "ERR_FILE_NOT_FOUND",
    `${dir}: expected ${WEIGHTS_FILE} beside ${CONFIG_FILE}, and it is not there.`,
  );
}

/** PEFT puts an adapter that is not named "default" into a sub-folder of its name. */
async function subFolders(dir: string): Promise<string[]> {
  const names = await readdir(dir).catch(() => []);
  const isAdapter = await Promise.all(names.map((name) => exists(join(dir, name, CONFIG_FILE))));
  return names.filter((_, i) => isAdapter[i]).map((name) => join(dir, name));
}

/** What the configuration selects, and what else the file holds in full. */
function planOf(peft: PeftConfig, tensors: AdapterTensors, base: BaseModel): AdapterPlan {
  const { graph, head } = base;
  const names = [
    ...(peft.adapter.modulesToSave ?? []),
    // PEFT adds the head for this task, whatever the file says.
    ...(peft.taskType === "SEQ_CLS" ? [head] : []),
  ];
  const saved = graph.modules.filter(
    (path) =>
      tensors.byName.has(savedParameterName(path, "weight")) ||
      tensors.dialects.some((dialect) =>
        names.some((name) => isWithin(dialect.fromCheckpoint(path), name)),
      ),
  );
  const sites = sitesOf(peft, tensors, base, saved);
  const config = { ...peft.adapter, modulesToSave: saved };
  return { config, sites, saved, biases: trainedBiases(graph, config, sites, saved) };
}

/** What the configuration selects in any naming of the modules, the file's own first. */
function sitesOf(
  peft: PeftConfig,
  { dialects }: AdapterTensors,
  { graph, head }: BaseModel,
  saved: readonly string[],
): LoraSite[] {
  const modules = targetModulesOf(graph);
  const sites = new Map<string, LoraSite>();
  for (const dialect of dialects) {
    const rename = (path: string) => dialect.fromCheckpoint(path);
    const renamed = modules.map((module) => ({ ...module, path: rename(module.path) }));
    const config = { ...peft.adapter, modulesToSave: saved.map(rename) };
    for (const site of selectTargets(renamed, head, config)) {
      const path = dialect.toCheckpoint(site.path);
      if (!sites.has(path)) sites.set(path, { ...site, path });
    }
  }
  return modules.flatMap(({ path }) => sites.get(path) ?? []);
}

/** Without them the predictions would depend on a seed. */
function requireNewWeights(file: string, { newWeights }: BaseModel, plan: AdapterPlan): void {
  const missing = newWeights.find(
    (name) => !plan.saved.some((path) => name.startsWith(`${path}.`)),
  );
  if (missing === undefined) return;
  throw new LokoError(
    "ERR_ADAPTER_FORMAT",
    `${file}: holds no ${describe(missing)}, and the base model has none either. Save the adapter with ` +
      "that module in modules_to_save, or load a base model that has it.",
  );
}

function requireTensors(file: string, layout: ParameterLayout, { byName }: AdapterTensors): void {
  for (const parameter of layout.parameters) {
    const info = byName.get(parameter.name)?.[0];
    if (info === undefined) throw missingTensor(file, parameter);
    if (info.shape.join() !== parameter.shape.join()) {
      throw new LokoError(
        "ERR_ADAPTER_FORMAT",
        `${file}: ${describe(info.name)} has the shape [${info.shape}], but ${CONFIG_FILE} gives this ` +
          `module the rank ${parameter.shape[parameter.group === "loraA" ? 0 : 1]}. Correct "r" or ` +
          '"rank_pattern".',
      );
    }
  }
  const known = new Set(layout.parameters.map(({ name }) => name));
  for (const [name, [info]] of byName) {
    if (!known.has(name)) throw foreign(file, info!.name);
  }
}

function missingTensor(file: string, { name, group }: ParameterInfo): LokoError {
  const problem =
    group === "head"
      ? "this module was trained in full, and its weights are not in the file"
      : `${CONFIG_FILE} names it, and it is not in the file`;
  return new LokoError(
    "ERR_ADAPTER_FORMAT",
    `${file}: expected ${describe(name)}: ${problem}. Save the adapter again with PEFT's ` +
      "save_pretrained.",
  );
}

/** In float32, as PEFT does. A tensor under two names must be the same twice. */
async function readParameter(infos: readonly TensorInfo[]): Promise<Float32Array> {
  const [values, ...copies] = await Promise.all(infos.map(readFloats));
  for (const [i, copy] of copies.entries()) {
    if (Buffer.compare(Buffer.from(values!.buffer), Buffer.from(copy.buffer)) === 0) continue;
    throw new LokoError(
      "ERR_ADAPTER_FORMAT",
      `${infos[0]!.path}: ${describe(infos[0]!.name)} and ${describe(infos[i + 1]!.name)} are names of ` +
        "one tensor, and hold different values.",
    );
  }
  return values!;
}

async function readFloats(info: TensorInfo): Promise<Float32Array> {
  const values = await readTensor(info);
  if (!(values instanceof Float32Array || values instanceof Float64Array)) {
    throw new LokoError(
      "ERR_ADAPTER_FORMAT",
      `${info.path}: ${describe(info.name)} has dtype ${info.dtype}; expected F32, F16, BF16 or F64.`,
    );
  }
  const floats = Float32Array.from(values);
  const bad = floats.findIndex((value) => !Number.isFinite(value));
  if (bad < 0) return floats;
  throw new LokoError(
    "ERR_WEIGHT_NOT_FINITE",
    `${info.path}: ${describe(info.name)} holds ${values[bad]} at element ${bad}.`,
  );
}
