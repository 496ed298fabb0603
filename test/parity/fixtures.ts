// Reads the fixtures that test/fixtures/make_fixtures.py wrote.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { deviceInfo } from "../../lib/device.js";
import { openSafetensors, readTensor } from "../../lib/io/safetensors.js";
import type { AdapterOptions } from "../../lib/lora/config.js";
import { Model, type ModelOptions } from "../../lib/model.js";
import type { ImageInputs } from "../../lib/models/inputs.js";
import type { TextInputs } from "../../lib/models/text-inputs.js";

export const FIXTURES = fileURLToPath(new URL("../fixtures/", import.meta.url));

/** The devices of this machine. */
export const DEVICES: readonly ("cpu" | "cuda" | "ref")[] = [
  "cpu",
  "ref",
  ...(deviceInfo().cuda.available ? (["cuda"] as const) : []),
];

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

export const VISION_CASES = [
  "resnet_basic",
  "resnet_bottleneck",
  "resnet_early",
  "timm_resnet18",
  "timm_resnet50",
  "densenet",
  "densenet_upper",
  "lenet",
  "lenet_average",
  "dinov2",
  "dinov2_square",
  "dinov2_larger",
  "dino",
] as const;
export type VisionCase = (typeof VISION_CASES)[number];

export function visionFolder(name: VisionCase, folder = "base"): string {
  return join(FIXTURES, "vision", name, folder);
}

export const TEXT_CASES = [
  "bert_pairs",
  "bert_deep",
  "bert_all",
  "bert_long",
  "bert_small",
  "roberta_pads",
  "roberta_all",
  "roberta_small",
] as const;
export type TextCase = (typeof TEXT_CASES)[number];

export function textFolder(name: TextCase, folder = "base"): string {
  return join(FIXTURES, "text", name, folder);
}

/** What the fixtures of all models have in common. */
export interface ModelFixture {
  readonly adapter: TensorFile;
  readonly expected: TensorFile;
  readonly options: AdapterOptions;
  /** Whether there are expected Jacobians with every B at zero. */
  readonly zeroB: boolean;
}

export interface ImageFixture extends ModelFixture {
  readonly inputs: ImageInputs;
}

export interface TextFixture extends ModelFixture {
  /** The Jacobians are those of "main". */
  readonly batches: ReadonlyMap<string, TextInputs>;
}

export function readVit(name: VitCase): Promise<ImageFixture> {
  return readImages(join(FIXTURES, "vit", name));
}

export function readVision(name: VisionCase): Promise<ImageFixture> {
  return readImages(join(FIXTURES, "vision", name));
}

async function readImages(folder: string): Promise<ImageFixture> {
  const fixture = await readFixture(folder);
  const { shape, values } = fixture.expected.get("pixel_values")!;
  return { ...fixture, inputs: { pixelValues: values as Float32Array, shape } };
}

export async function readText(name: TextCase): Promise<TextFixture> {
  const fixture = await readFixture(join(FIXTURES, "text", name));
  const batches = new Map<string, TextInputs>();
  for (const key of fixture.expected.keys()) {
    const [, batch] = /^(.*)\/input_ids$/.exec(key) ?? [];
    if (batch !== undefined) batches.set(batch, textInputs(fixture.expected, batch));
  }
  return { ...fixture, batches };
}

function textInputs(expected: TensorFile, batch: string): TextInputs {
  const ids = expected.get(`${batch}/input_ids`)!;
  const optional = (name: string) =>
    expected.get(`${batch}/${name}`)?.values as unknown as Int32Array | undefined;
  return {
    inputIds: ids.values as unknown as Int32Array,
    attentionMask: optional("attention_mask"),
    tokenTypeIds: optional("token_type_ids"),
    shape: ids.shape,
  };
}

async function readFixture(folder: string): Promise<ModelFixture> {
  const description = readFileSync(join(folder, "case.json"), "utf8");
  const {
    seed: _,
    zeroB,
    ...options
  } = JSON.parse(description) as AdapterOptions & { seed: number; zeroB: boolean };
  return {
    adapter: await readTensors(join(folder, "adapter/adapter_model.safetensors")),
    expected: await readTensors(join(folder, "expected.safetensors")),
    options,
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

/** The model of a ViT case with its adapter's values. */
export async function loadAdapted(
  name: VitCase,
  fixture: ModelFixture,
  options: ModelOptions = {},
  zeroB = false,
): Promise<Model> {
  return adapt(await Model.fromPretrained(vitFolder(name), options), fixture, zeroB);
}

/** The model of a vision case, for images of the fixture's size. */
export function loadVision(
  name: VisionCase,
  { inputs }: ImageFixture,
  options: ModelOptions = {},
  folder = "base",
): Promise<Model> {
  const [, , height, width] = inputs.shape as [number, number, number, number];
  return Model.fromPretrained(visionFolder(name, folder), {
    imageSize: [height, width],
    ...options,
  });
}

/** The model of a text case with its adapter's values. */
export async function loadAdaptedText(
  name: TextCase,
  fixture: ModelFixture,
  options: ModelOptions = {},
  zeroB = false,
): Promise<Model> {
  return adapt(await Model.fromPretrained(textFolder(name), options), fixture, zeroB);
}

/** Adds the adapter of a fixture to a model that has none. */
export async function adapt(model: Model, fixture: ModelFixture, zeroB = false): Promise<Model> {
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
