// Optimizer.saveState and loadState: θ and the state of an optimizer as a safetensors file.

import { describe, LokoError } from "../errors.js";
import { writeOutputFile } from "../io/output-file.js";
import { openSafetensors, readTensor, type SafetensorsFile } from "../io/safetensors.js";
import { bytesOf, type TensorSource, writeSafetensors } from "../io/safetensors-writer.js";
import type { ModelRuntime } from "../models/runtime.js";
import type { NativeOptimizer, NativeOptimizerOptions, NativeStateEntry } from "../native/addon.js";

/** What a state is read from and written to. */
export interface StateHost {
  readonly runtime: ModelRuntime;
  readonly model: { readonly modelType: string; readonly numLabels: number };
  readonly native: NativeOptimizer;
  /** Name of the optimizer's class, for messages. */
  readonly name: string;
  readonly options: NativeOptimizerOptions;
}

/** Of the layout of the file; raised when an older version could not read it. */
const FORMAT_VERSION = "1";

/**
 * What must be the same where a state is restored, each a text that can be compared and shown. The scale
 * of an adapted module is no part of the shapes, and changes what its parameters mean.
 */
function identityOf({ runtime, model, options, name }: StateHost): Record<string, string> {
  if (runtime.layout === undefined) {
    throw new LokoError(
      "ERR_OPTION",
      `${name}: the optimizer was made for an adapter that the model no longer has; create a new one.`,
    );
  }
  const { parameters, native } = runtime.layout;
  const { kind, ...rest } = options;
  return {
    model_type: model.modelType,
    num_labels: String(model.numLabels),
    optimizer: kind,
    options: canonical(rest),
    parameters: JSON.stringify(parameters.map(({ name, shape }) => [name, ...shape])),
    scales: JSON.stringify(native.lora.map(({ scale }) => scale)),
  };
}

/** JSON with sorted keys in which an infinity survives. */
function canonical(value: object): string {
  return JSON.stringify(value, (_, entry: unknown) => {
    if (typeof entry === "number" && !Number.isFinite(entry)) return String(entry);
    if (typeof entry !== "object" || entry === null || Array.isArray(entry)) return entry;
    return Object.fromEntries(Object.entries(entry).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}

/** @throws LokoError as {@link Optimizer.saveState}. */
export async function saveOptimizerState(
  host: StateHost,
  path: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  requirePath(path);
  await writeOutputFile(path, (temporary) => writeOptimizerState(host, temporary, signal), {
    signal,
  });
}

/** As {@link saveOptimizerState}, inside a folder that appears whole. */
async function writeOptimizerState(
  host: StateHost,
  path: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { runtime, native } = host;
  const entries = await runtime.run((session) => session.describeOptimizerState(native));
  const values = allocateDoubles(entries.reduce((sum, { size }) => sum + size, 0));
  await runtime.run((session) => session.readOptimizerState(native, values));
  let offset = 0;
  const tensors = entries.map((entry) => {
    const part = values.subarray(offset, offset + entry.size);
    offset += entry.size;
    return toTensor(entry, part);
  });
  const metadata = { loko_state: FORMAT_VERSION, class: host.name, ...identityOf(host) };
  await writeSafetensors(path, tensors, metadata, signal);
}

/** In float32 where that holds every value, as it does for what the CPU keeps. */
function toTensor({ name, shape }: NativeStateEntry, values: Float64Array): TensorSource {
  const isNumber = shape.length === 0;
  const single = isNumber ? undefined : toSingle(values);
  if (single === undefined) return { name, shape, dtype: "F64", read: () => bytesOf(values) };
  return { name, shape, dtype: "F32", read: () => bytesOf(single) };
}

function toSingle(values: Float64Array): Float32Array | undefined {
  const single = new Float32Array(values);
  for (let i = 0; i < values.length; i++) {
    if (single[i] !== values[i] && !Number.isNaN(values[i])) return undefined;
  }
  return single;
}

/** @throws LokoError as {@link Optimizer.loadState}. */
export async function loadOptimizerState(
  host: StateHost,
  path: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  requirePath(path);
  const { runtime, native } = host;
  runtime.requireAlive();
  signal?.throwIfAborted();
  const file = await openSafetensors(path);
  requireSame(host, file);
  const entries = await runtime.run((session) => session.describeOptimizerState(native));
  checkEntries(file, entries);
  const values = allocateDoubles(entries.reduce((sum, { size }) => sum + size, 0));
  let offset = 0;
  for (const { name, size } of entries) {
    values.set((await readTensor(file.tensors.get(name)!)) as Float64Array | Float32Array, offset);
    offset += size;
    signal?.throwIfAborted();
  }
  try {
    await runtime.run((session) => session.writeOptimizerState(native, values));
  } catch (error) {
    if (!(error instanceof LokoError) || error.code !== "ERR_OPTION") throw error;
    throw new LokoError("ERR_CHECKPOINT_FORMAT", `${path}: ${error.message}.`, { cause: error });
  }
}

/** θ of a state file, which must be one of the same model and optimizer. */
export async function readStateParameters(path: string): Promise<Float32Array> {
  const { tensors } = await openSafetensors(path);
  const theta = tensors.get("theta");
  if (theta === undefined) throw notOurs(path, 'no tensor "theta"');
  return Float32Array.from((await readTensor(theta)) as Float32Array | Float64Array);
}

function notOurs(path: string, reason: string): LokoError {
  return new LokoError(
    "ERR_CHECKPOINT_FORMAT",
    `${path}: is not the state of an optimizer that this version can read: ${reason}. ` +
      "Use a file that Optimizer.saveState has written.",
  );
}

function requireSame(host: StateHost, { metadata, path }: SafetensorsFile): void {
  const version = metadata.get("loko_state");
  if (version === undefined) throw notOurs(path, 'its metadata have no "loko_state"');
  if (version !== FORMAT_VERSION) {
    throw notOurs(path, `version ${describe(version)} instead of ${describe(FORMAT_VERSION)}`);
  }
  for (const [key, expected] of Object.entries(identityOf(host))) {
    const got = metadata.get(key);
    if (got === undefined) throw notOurs(path, `its metadata have no ${describe(key)}`);
    if (got === expected) continue;
    throw new LokoError(
      "ERR_CHECKPOINT_MISMATCH",
      `${path}: ${differenceOf(key, expected, got)}. Nothing was loaded.`,
    );
  }
}

const SUBJECTS: Readonly<Record<string, string>> = {
  model_type: "is of a model of another type",
  num_labels: "is of a model with another number of labels",
  optimizer: "is of another optimizer",
  options: "is of an optimizer with other options",
  scales: "is of an adapter with another scale (loraAlpha / r)",
};

function differenceOf(key: string, expected: string, got: string): string {
  if (key === "parameters") return differentParameters(expected, got);
  return `${SUBJECTS[key]}: expected ${describe(expected)}, got ${describe(got)}`;
}

type NamedShape = readonly [name: string, ...shape: number[]];

function differentParameters(expected: string, got: string): string {
  const show = (entry: NamedShape | undefined) =>
    entry === undefined ? "nothing" : `${entry[0]} [${entry.slice(1).join(", ")}]`;
  const [ours, theirs] = [parseShapes(expected), parseShapes(got)];
  for (let i = 0; i < Math.max(ours.length, theirs.length); i++) {
    if (show(ours[i]) === show(theirs[i])) continue;
    return (
      `is of a model with other trainable parameters: number ${i} must be ${show(ours[i])}, got ` +
      show(theirs[i])
    );
  }
  return "is of a model with other trainable parameters";
}

function parseShapes(text: string): readonly NamedShape[] {
  try {
    const parsed: unknown = JSON.parse(text);
    return Array.isArray(parsed) && parsed.every(Array.isArray)
      ? (parsed as unknown as NamedShape[])
      : [];
  } catch {
    return [];
  }
}

function checkEntries({ tensors, path }: SafetensorsFile, entries: readonly NativeStateEntry[]) {
  for (const { name, shape } of entries) {
    const tensor = tensors.get(name);
    if (tensor === undefined) throw notOurs(path, `it has no tensor ${describe(name)}`);
    if (tensor.shape.join() !== shape.join()) {
      throw notOurs(path, `${describe(name)} has shape [${tensor.shape}] instead of [${shape}]`);
    }
    if (tensor.dtype !== "F32" && tensor.dtype !== "F64") {
      throw notOurs(path, `${describe(name)} is of type ${tensor.dtype}`);
    }
  }
}

function requirePath(path: unknown): void {
  if (typeof path === "string" && path !== "") return;
  throw new LokoError("ERR_INPUT_TYPE", `file must be a path, got ${describe(path)}.`);
}

function allocateDoubles(size: number): Float64Array {
  try {
    return new Float64Array(size);
  } catch (cause) {
    throw new LokoError(
      "ERR_OUT_OF_MEMORY",
      `The state of the optimizer needs ${8 * size} bytes, which cannot be allocated.`,
      { cause },
    );
  }
}
