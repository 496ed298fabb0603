import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { Command } from "commander";
import { describe, LokoError } from "../errors.js";
import { type Checkpoint, openCheckpoint } from "../io/checkpoint.js";
import { exists } from "../io/files.js";
import { readJsonObject } from "../io/json.js";
import { openSafetensors } from "../io/safetensors.js";
import type { TensorInfo } from "../io/safetensors-header.js";
import { architectureOf } from "../models/architecture.js";
import { labelCount, readLabels } from "../models/labels.js";
import { elementsOf } from "../tensor/shape.js";
import { addCommonOptions, type CommonOptions, SharedOptions } from "./options.js";
import {
  byteSize,
  count,
  counted,
  printFacts,
  printJson,
  printLine,
  printTable,
} from "./output.js";
import { describeLabels } from "./report.js";

const EXAMPLES = `
Examples:
  loko inspect ./bert
  loko inspect adapter
  loko inspect ./bert/model.safetensors --json`;

export function define(command: Command): void {
  command
    .argument("<path>", "folder of a model or an adapter, or a .safetensors file")
    .addHelpText("after", EXAMPLES);
  const options = addCommonOptions(new SharedOptions(command));
  command.action((path: string) => inspect(path, options.resolve<CommonOptions>([])));
}

async function inspect(path: string, { json = false }: CommonOptions): Promise<void> {
  if (await isFolder(path)) {
    if (await exists(join(path, "adapter_config.json"))) await inspectAdapter(path, json);
    else await inspectModel(path, json);
  } else if (path.endsWith(".safetensors")) {
    await inspectFile(path, json);
  } else {
    throw new LokoError(
      "ERR_UNSUPPORTED",
      `${path}: expected a folder of a model or an adapter, or a .safetensors file.`,
    );
  }
}

async function isFolder(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (cause) {
    throw new LokoError("ERR_FILE_NOT_FOUND", `${path}: no such file or folder.`, { cause });
  }
}

/** Keys of `config.json` that say how large a model is. */
const SIZES = [
  "hidden_size",
  "num_hidden_layers",
  "num_attention_heads",
  "intermediate_size",
  "vocab_size",
  "max_position_embeddings",
  "type_vocab_size",
  "image_size",
  "patch_size",
  "num_channels",
];
const TOKENIZER_FILES = ["tokenizer.json", "vocab.txt", "vocab.json", "merges.txt"];

async function inspectModel(dir: string, json: boolean): Promise<void> {
  const checkpoint = await openCheckpoint(dir);
  const { config } = checkpoint;
  const found = await Promise.all(TOKENIZER_FILES.map((name) => exists(join(dir, name))));
  const facts = {
    kind: "model",
    modelType: config.model_type,
    architectures: config.architectures,
    sizes: Object.fromEntries(
      SIZES.filter((key) => key in config).map((key) => [key, config[key]]),
    ),
    labels: readLabels(config, labelCount(config)).id2label,
    ...totals(checkpoint.weights.values()),
    tokenizer: TOKENIZER_FILES.filter((_, i) => found[i]),
    ...describeModules(checkpoint),
  };
  if (json) {
    await printJson(facts);
    return;
  }
  await printFacts([
    ["model", `${facts.modelType} (${facts.architectures ?? "no architectures"})`],
    ...Object.entries(facts.sizes).map(([name, value]) => [name, String(value)] as const),
    ["labels", describeLabels(facts.labels)],
    ["weights", describeTotals(facts)],
    ["tokenizer", facts.tokenizer.join(", ") || "none"],
    ["loko", facts.problem === undefined ? "knows this model" : `cannot: ${facts.problem}`],
  ]);
  if (facts.linears.length === 0) return;
  await printLine("\nLinear modules; targetModules takes the end of a name, as query:");
  await printTable([
    ["module", "count", "in", "out"],
    ...facts.linears.map((l) => [
      l.module,
      `${l.count}`,
      count(l.inFeatures),
      count(l.outFeatures),
    ]),
  ]);
}

interface LinearGroup {
  /** Path with N for the number of the layer. */
  readonly module: string;
  readonly count: number;
  readonly inFeatures: number;
  readonly outFeatures: number;
}

/** The linear modules, those of all layers together; or why the model is not supported. */
function describeModules(checkpoint: Checkpoint): { linears: LinearGroup[]; problem?: string } {
  try {
    const { graph } = architectureOf(checkpoint).define(checkpoint);
    const groups = new Map<string, LinearGroup>();
    for (const { path, inFeatures, outFeatures } of graph.linears) {
      const module = path.replace(/\.\d+\./g, ".N.");
      const before = groups.get(module)?.count ?? 0;
      groups.set(module, { module, count: before + 1, inFeatures, outFeatures });
    }
    return { linears: [...groups.values()] };
  } catch (error) {
    if (!(error instanceof LokoError)) throw error;
    return { linears: [], problem: `${error.code}: ${error.message}` };
  }
}

async function inspectAdapter(dir: string, json: boolean): Promise<void> {
  const config = await readJsonObject(join(dir, "adapter_config.json"));
  const { tensors } = await openSafetensors(join(dir, "adapter_model.safetensors"));
  if (json) {
    const list = tensorList(tensors.values());
    await printJson({ kind: "adapter", config, ...totals(tensors.values()), tensors: list });
    return;
  }
  const set = Object.entries(config).filter(([, value]) => isSet(value));
  await printFacts([
    ...set.map(([key, value]) => [key, showValue(value)] as const),
    ["tensors", describeTotals(totals(tensors.values()))],
  ]);
  await printLine("");
  await printTensors(tensors.values());
}

/** Most keys of PEFT's file are at a default that means nothing. */
function isSet(value: unknown): boolean {
  if (value === null || value === false) return false;
  return typeof value !== "object" || Object.keys(value).length > 0;
}

function showValue(value: unknown): string {
  if (Array.isArray(value)) return value.join(", ");
  return typeof value === "string" ? value : JSON.stringify(value);
}

async function inspectFile(path: string, json: boolean): Promise<void> {
  const { tensors, metadata } = await openSafetensors(path);
  if (json) {
    const list = tensorList(tensors.values());
    const about = { kind: "safetensors", metadata: Object.fromEntries(metadata) };
    await printJson({ ...about, ...totals(tensors.values()), tensors: list });
    return;
  }
  await printTensors(tensors.values());
  await printLine("");
  await printFacts([
    ["tensors", describeTotals(totals(tensors.values()))],
    ...[...metadata].map(([key, value]) => [key, describe(value)] as const),
  ]);
}

interface Totals {
  readonly tensorCount: number;
  readonly parameters: number;
  readonly bytes: number;
  readonly dtypes: readonly string[];
}

function totals(tensors: Iterable<TensorInfo>): Totals {
  const all = [...tensors];
  return {
    tensorCount: all.length,
    parameters: all.reduce((sum, { shape }) => sum + elementsOf(shape), 0),
    bytes: all.reduce((sum, { byteLength }) => sum + byteLength, 0),
    dtypes: [...new Set(all.map(({ dtype }) => dtype))],
  };
}

function describeTotals({ tensorCount, parameters, bytes, dtypes }: Totals): string {
  const tensors = `${counted(tensorCount, "tensor")}, ${dtypes.join(", ")}`;
  return `${counted(parameters, "parameter")} in ${tensors}, ${byteSize(bytes)}`;
}

function tensorList(tensors: Iterable<TensorInfo>) {
  return [...tensors].map(({ name, dtype, shape, byteOffset, byteLength }) => ({
    name,
    dtype,
    shape,
    byteOffset,
    byteLength,
  }));
}

function printTensors(tensors: Iterable<TensorInfo>): Promise<boolean> {
  return printTable([
    ["dtype", "shape", "name"],
    ...[...tensors].map(({ name, dtype, shape }) => [dtype, `[${shape.join(", ")}]`, name]),
  ]);
}
