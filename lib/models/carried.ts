// Tensors of a checkpoint beside the weights that the graph reads as they are: what a weight is derived
// from, and what only Python needs. Both are read when the model is loaded, because `save` must be able to
// write them after the folder was replaced.

import { describe, LokoError } from "../errors.js";
import { readInto, withFile } from "../io/files.js";
import { readTensor } from "../io/safetensors.js";
import type { TensorInfo } from "../io/safetensors-header.js";
import { isWritable, type TensorSource } from "../io/safetensors-writer.js";
import type { NativeWeight } from "../native/addon.js";
import type { ModelGraph } from "../nn/graph.js";

/** A tensor of the checkpoint that the class in Python has and no output depends on. */
export interface CarriedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** false: a buffer, which PyTorch does not count. */
  readonly isParameter: boolean;
}

/** A weight whose values are computed from the checkpoint's when the model is loaded. */
export interface DerivedWeight {
  readonly name: string;
  /** Its shape in the checkpoint. */
  readonly sourceShape: readonly number[];
  compute(values: Float32Array): Float32Array;
}

/** A tensor of the checkpoint, with its name in the task model. */
export interface CarriedSource {
  readonly name: string;
  readonly info: TensorInfo;
}

/**
 * Reads the tensors that `save` writes as they were.
 *
 * @throws LokoError ERR_UNSUPPORTED for a type that cannot be written; ERR_FILE_READ and others of files.
 */
export async function readCarried(sources: readonly CarriedSource[]): Promise<TensorSource[]> {
  const tensors: TensorSource[] = [];
  for (const { name, info } of sources) {
    const { dtype, shape, path } = info;
    if (!isWritable(dtype)) {
      throw new LokoError(
        "ERR_UNSUPPORTED",
        `${path}: ${describe(info.name)} has dtype ${dtype}, which is not supported.`,
      );
    }
    const bytes = new Uint8Array(info.byteLength);
    await withFile(path, ({ handle }) => readInto(handle, bytes, info.byteOffset));
    tensors.push({ name, dtype, shape, read: () => bytes });
  }
  return tensors;
}

/**
 * The weights that native code takes: each derived one with its computed values.
 *
 * @param weights - all of them, derived ones as they are in the checkpoint.
 * @throws LokoError ERR_WEIGHT_NOT_FINITE; ERR_FILE_READ and others of `readTensor`.
 */
export async function deriveWeights(
  weights: readonly NativeWeight[],
  sources: readonly CarriedSource[],
  derived: readonly DerivedWeight[],
  graph: ModelGraph,
): Promise<readonly NativeWeight[]> {
  const computed = new Map<string, NativeWeight>();
  for (const { name, compute } of derived) {
    const { info } = sources.find((source) => source.name === name)!;
    // Every type that a weight may have is read as floats.
    const values = compute(Float32Array.from((await readTensor(info)) as Float32Array));
    if (!values.every(Number.isFinite)) {
      throw new LokoError(
        "ERR_WEIGHT_NOT_FINITE",
        `${info.path}: ${describe(info.name)} holds numbers that are not finite in float32.`,
      );
    }
    const { shape } = graph.weights.find((weight) => weight.name === name)!;
    computed.set(name, { name, shape, values });
  }
  return weights.map((weight) => computed.get(weight.name) ?? weight);
}
