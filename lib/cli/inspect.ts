import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { Command } from "commander";
import { describe, LokoError } from "../errors.js";
import { type Checkpoint, openCheckpoint } from "../io/checkpoint.js";
import { exists } from "../io/files.js";
import { readJsonObject } from "../io/json.js";
import { openSafetensors } from "../io/safetensors.js";
import type { TensorInfo } from "../io/safetensors-header.js";
import { type TargetModule, targetModulesOf } from "../lora/modules.js";
import { architectureOf } from "../models/architecture.js";
import { labelCount, readLabels } from "../models/labels.js";
import { elementsOf } from "../tensor/shape.js";
import { extentOf } from "./extent.js";
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
  "mlp_ratio",
  "layer_type",
  "embedding_size",
  "hidden_sizes",
  "depths",
  "conv_channels",
];
const TOKENIZER_FILES = ["tokenizer.json", "vocab.txt", "vocab.json", "merges.txt"];

async function inspectModel(dir: string, json: boolean): Promise<void> {
  const checkpoint = await openCheckpoint(dir);
  const { config } = checkpoint;
  const found = await Promise.all(TOKENIZER_FILES.map((name) => exists(join(dir, name))));
  const facts = {
    kind: "model",
    modelType: config.model_type ?? config.architecture,
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
    [
      "model",
      `${facts.modelType} (${facts.architectures ?? facts.taskClass ?? "no architectures"})`,
    ],
    ...Object.entries(facts.sizes).map(([name, value]) => [name, String(value)] as const),
    ["labels", describeLabels(facts.labels)],
    ["weights", describeTotals(facts)],
    ["tokenizer", facts.tokenizer.join(", ") || "none"],
    ["loko", facts.problem === undefined ? "knows this model" : `cannot: ${facts.problem}`],
  ]);
  if (facts.linears.length > 0) {
    await printLine("\nLinear modules; targetModules takes the end of a name, as query:");
    await printTable([["module", "count", "in", "out"], ...facts.linears.map(moduleRow)]);
  }
  if (facts.convolutions.length > 0) {
    await printLine("\nConvolutions; targetModules takes the end of a name:");
    await printTable([
      ["module", "count", "in", "out", "kernel"],
      ...facts.convolutions.map((group) => [...moduleRow(group), group.kernel!.join("x")]),
    ]);
  }
}

interface ModuleGroup {
  /** Path with N for the numbers of layers. */
  readonly module: string;
  readonly count: number;
  /** One number, or the least and the most. */
  readonly inFeatures: number | readonly [number, number];
  readonly outFeatures: number | readonly [number, number];
  readonly kernel?: readonly number[];
}

interface ModuleFacts {
  readonly taskClass?: string;
  readonly linears: readonly ModuleGroup[];
  readonly convolutions: readonly ModuleGroup[];
  readonly problem?: string;
}

/** The modules that can be adapted, those of all layers together; or why the model is not supported. */
function describeModules(checkpoint: Checkpoint): ModuleFacts {
  try {
    const architecture = architectureOf(checkpoint);
    const { graph, prefix } = architecture.define(checkpoint);
    const modules = targetModulesOf(graph);
    const ofKind = (isConvolution: boolean) =>
      grouped(
        modules.filter(({ convolution }) => (convolution !== undefined) === isConvolution),
        prefix,
      );
    return {
      taskClass: architecture.taskClass,
      linears: ofKind(false),
      convolutions: ofKind(true),
    };
  } catch (error) {
    if (!(error instanceof LokoError)) throw error;
    return { linears: [], convolutions: [], problem: `${error.code}: ${error.message}` };
  }
}

/** @param prefix - of the backbone, whose name may end in a number that is none of a layer: `dinov2.` */
function grouped(modules: readonly TargetModule[], prefix: string): ModuleGroup[] {
  const groups = new Map<string, TargetModule[]>();
  for (const module of modules) {
    const start = module.path.startsWith(prefix) ? prefix.length : 0;
    const name = prefix.slice(0, start) + module.path.slice(start).replace(/\d+(?=\.)/g, "N");
    const key = `${name} ${module.convolution?.kernel ?? ""}`;
    groups.set(key, [...(groups.get(key) ?? []), module]);
  }
  return [...groups].map(([key, members]) => {
    const kernel = members[0]!.convolution?.kernel;
    return {
      module: key.slice(0, key.indexOf(" ")),
      count: members.length,
      inFeatures: range(members.map(({ inFeatures }) => inFeatures)),
      outFeatures: range(members.map(({ outFeatures }) => outFeatures)),
      ...(kernel === undefined ? {} : { kernel }),
    };
  });
}

function range(values: readonly number[]): number | readonly [number, number] {
  const [least, most] = extentOf(values);
  return least === most ? least : [least, most];
}

function moduleRow({ module, count: number, inFeatures, outFeatures }: ModuleGroup): string[] {
  const show = (size: number | readonly [number, number]) =>
    typeof size === "number" ? count(size) : size.map(count).join("-");
  return [module, `${number}`, show(inFeatures), show(outFeatures)];
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
