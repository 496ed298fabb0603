// Reads the fixtures that test/fixtures/make_fixtures.py wrote.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openSafetensors, readTensor } from "../../lib/io/safetensors.js";
import type { AdapterOptions } from "../../lib/lora/config.js";
import { Model, type ModelOptions } from "../../lib/model.js";
import type { ImageInputs } from "../../lib/models/inputs.js";

export const FIXTURES = fileURLToPath(new URL("../fixtures/", import.meta.url));

export interface ExpectedTensor {
  readonly shape: readonly number[];
  readonly values: Float32Array | Float64Array;
}

export type TensorFile = ReadonlyMap<string, ExpectedTensor>;

export async function readTensors(path: string): Promise<TensorFile> {
  const { tensors } = await openSafetensors(path);
  const entries = [...tensors.values()].map(async (info): Promise<[string, ExpectedTensor]> => {
    const values = (await readTensor(info)) as Float32Array | Float64Array;
    return [info.name, { shape: info.shape, values }];
  });
  return new Map(await Promise.all(entries));
}

export const VIT_CASES = ["odd", "grey", "wide", "upper", "act", "tanh"] as const;
export type VitCase = (typeof VIT_CASES)[number];

export function vitFolder(name: VitCase, folder = "base"): string {
  return join(FIXTURES, "vit", name, folder);
}

export interface VitFixture {
  readonly adapter: TensorFile;
  readonly expected: TensorFile;
  readonly options: AdapterOptions;
  readonly inputs: ImageInputs;
  /** Whether there are expected values with every B at zero. */
  readonly zeroB: boolean;
}

export async function readVit(name: VitCase): Promise<VitFixture> {
  const {
    seed: _,
    zeroB,
    ...options
  } = JSON.parse(
    readFileSync(join(FIXTURES, "vit", name, "case.json"), "utf8"),
  ) as AdapterOptions & { seed: number; zeroB: boolean };
  const expected = await readTensors(join(FIXTURES, "vit", name, "expected.safetensors"));
  const { shape, values } = expected.get("pixel_values")!;
  return {
    adapter: await readTensors(join(FIXTURES, "vit", name, "adapter/adapter_model.safetensors")),
    expected,
    options,
    inputs: { pixelValues: values as Float32Array, shape },
    zeroB,
  };
}

/** θ from an adapter file, optionally with every lora_B at zero. */
export function thetaOf(model: Model, adapter: TensorFile, zeroB = false): Float32Array {
  const parameters = model.parameters();
  const theta = new Float32Array(parameters.reduce((sum, { size }) => sum + size, 0));
  for (const { name, offset, group } of parameters) {
    const tensor = adapter.get(name);
    if (tensor === undefined) throw new Error(`${name} is not in the adapter's fixture`);
    if (!(zeroB && group === "loraB")) theta.set(tensor.values, offset);
  }
  return theta;
}

/** The model of a case with its adapter's values. */
export async function loadAdapted(
  name: VitCase,
  fixture: VitFixture,
  options: ModelOptions = {},
  zeroB = false,
): Promise<Model> {
  const model = await Model.fromPretrained(vitFolder(name), options);
  await model.addAdapter(fixture.options);
  await model.writeParameters(thetaOf(model, fixture.adapter, zeroB));
  return model;
}

export function maxAbsError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) {
    throw new Error(`expected ${expected.length} values, got ${actual.length}`);
  }
  let worst = 0;
  for (let i = 0; i < actual.length; i++) {
    const error = Math.abs(actual[i]! - expected[i]!);
    // Not Math.max alone: NaN must not pass.
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

/** |actual - expected| / |expected| in the Euclidean norm. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) {
    throw new Error(`expected ${expected.length} values, got ${actual.length}`);
  }
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < actual.length; i++) {
    difference += (actual[i]! - expected[i]!) ** 2;
    norm += expected[i]! ** 2;
  }
  return Math.sqrt(difference / norm);
}
