// The names of tensors in adapter_model.safetensors.

import { describe, LokoError, nearestNames } from "../errors.js";
import type { TensorInfo } from "../io/safetensors-header.js";
import type { ModelGraph } from "../nn/graph.js";
import type { Dialect } from "./dialect.js";
import { factorShapes, targetModulesOf } from "./modules.js";

/** Before the path of a module: PeftModel holds the tuner, which holds the model. */
export const PREFIX = "base_model.model.";

/** The tensors of an adapter by the names that they have with the paths of checkpoints. */
export interface AdapterTensors {
  /** Two entries where a file names a tensor in two dialects. */
  readonly byName: ReadonlyMap<string, readonly TensorInfo[]>;
  /** The dialects, those that the file speaks first. */
  readonly dialects: readonly Dialect[];
}

/** What the end of a name says: the module before it, and which of its parameters. */
const PARAMETER = /^(?<path>.+?)\.(?<parameter>lora_[AB]\.weight|base_layer\.bias|weight|bias)$/;

/** Biases of the copies of a head, which PEFT writes with `bias: "all"` beside the head itself. */
const NOISE = /\.(?:original_module|modules_to_save)\.(?:.+\.)?bias$/;

/** Ends of names that belong to something else than plain LoRA. */
const UNSUPPORTED: readonly (readonly [end: RegExp, feature: string])[] = [
  [/\.lora_magnitude_vector(?:\.weight)?$/, "DoRA"],
  [/\.lora_embedding_[AB]$/, "LoRA on embeddings"],
  [/\.lora_B\.bias$/, "lora_bias"],
  [/\.lora_[ABE]$/, "AdaLoRA"],
  [/\.ia3_l$/, "IA3"],
];

/**
 * Sorts the tensors of a file by what they are.
 *
 * @throws LokoError ERR_ADAPTER_FORMAT naming a tensor that no adapter has, ERR_UNSUPPORTED naming the
 * feature that a tensor belongs to.
 */
export function readTensorNames(
  tensors: ReadonlyMap<string, TensorInfo>,
  dialects: readonly Dialect[],
): AdapterTensors {
  const byName = new Map<string, TensorInfo[]>();
  const spoken = new Map(dialects.map((dialect) => [dialect, 0]));
  for (const info of tensors.values()) {
    if (NOISE.test(info.name)) continue;
    const path = splitName(info).path;
    const known = dialects.reduce((name, dialect) => dialect.toCheckpoint(name), path);
    const name = PREFIX + known + info.name.slice(PREFIX.length + path.length);
    byName.set(name, [...(byName.get(name) ?? []), info]);
    for (const dialect of dialects) {
      if (dialect.fromCheckpoint(known) === path) spoken.set(dialect, spoken.get(dialect)! + 1);
    }
  }
  return { byName, dialects: [...dialects].sort((a, b) => spoken.get(b)! - spoken.get(a)!) };
}

/** The module and the parameter that a name means. */
export function splitName({ name, path: file }: Pick<TensorInfo, "name" | "path">): {
  readonly path: string;
  readonly parameter: string;
} {
  if (!name.startsWith(PREFIX)) {
    throw new LokoError(
      "ERR_ADAPTER_FORMAT",
      `${file}: the names of an adapter's tensors begin with "${PREFIX}", got ${describe(name)}. Save ` +
        "it with PEFT's save_pretrained.",
    );
  }
  const feature = UNSUPPORTED.find(([end]) => end.test(name))?.[1];
  if (feature !== undefined) {
    throw new LokoError(
      "ERR_UNSUPPORTED",
      `${file}: ${describe(name)} belongs to ${feature}, which is not supported. Merge the adapter in ` +
        "Python with merge_and_unload() and load the merged model.",
    );
  }
  const { path, parameter } = PARAMETER.exec(name.slice(PREFIX.length))?.groups ?? {};
  if (path === undefined || parameter === undefined) throw foreign(file, name);
  return { path, parameter };
}

export function foreign(file: string, name: string): LokoError {
  return new LokoError(
    "ERR_ADAPTER_FORMAT",
    `${file}: ${describe(name)} has no place in this adapter. Remove it, or save the adapter again with ` +
      "PEFT's save_pretrained.",
  );
}

/**
 * Checks that LoRA tensors fit modules of the model, and trained ones its weights.
 *
 * @param baseModel - what the adapter says it was made for.
 * @throws LokoError ERR_ADAPTER_MISMATCH naming the first tensor that does not fit; ERR_UNSUPPORTED for
 * LoRA on a module that can have none.
 */
export function checkFit(
  { byName }: AdapterTensors,
  graph: ModelGraph,
  baseModel: string | null,
): void {
  const madeFor = baseModel === null ? "another model" : describe(baseModel);
  const mismatch = (info: TensorInfo, problem: string) =>
    new LokoError(
      "ERR_ADAPTER_MISMATCH",
      `${info.path}: ${describe(info.name)} ${problem}. The adapter was made for ${madeFor}.`,
    );
  const modules = targetModulesOf(graph);
  for (const [name, infos] of byName) {
    const info = infos[0]!;
    const { path, parameter } = splitName({ name, path: info.path });
    if (!parameter.startsWith("lora_")) continue;
    const module = modules.find((candidate) => candidate.path === path);
    if (module === undefined && graph.modules.includes(path)) throw notAdaptable(info, path);
    if (module === undefined) {
      const near = nearestNames(
        path,
        modules.map((candidate) => candidate.path),
        1,
      )[0];
      throw mismatch(
        info,
        `belongs to a module that the model lacks; the nearest is ${describe(near)}`,
      );
    }
    const isA = parameter === "lora_A.weight";
    // Its own rank, whatever the configuration says: that is compared later.
    const groups = isA ? 1 : (module.convolution?.groups ?? 1);
    const r = (info.shape[isA ? 0 : 1] ?? 0) * groups;
    const expected = factorShapes(module, r)[isA ? "a" : "b"];
    if (info.shape.join() !== expected.join()) {
      const rank = groups === 1 ? "r" : `r / ${groups}`;
      const shape = expected.map((extent, axis) => (axis === (isA ? 0 : 1) ? rank : extent));
      throw mismatch(
        info,
        `has the shape [${info.shape}], and the model needs [${shape.join(", ")}]`,
      );
    }
  }
  for (const { name, shape } of graph.weights) {
    for (const info of [PREFIX + name, PREFIX + name.replace(/bias$/, "base_layer.bias")].flatMap(
      (key) => byName.get(key) ?? [],
    )) {
      if (info.shape.join() === shape.join()) continue;
      const labels =
        info.shape[0] === shape[0] ? "" : ` (numLabels: ${info.shape[0]} may be what it needs)`;
      throw mismatch(info, `has the shape [${info.shape}], and the model's is [${shape}]${labels}`);
    }
  }
}

function notAdaptable(info: TensorInfo, path: string): LokoError {
  return new LokoError(
    "ERR_UNSUPPORTED",
    `${info.path}: ${describe(info.name)} adapts ${describe(path)}, which is not a linear module or ` +
      "a convolution, and only those can be adapted.",
  );
}
