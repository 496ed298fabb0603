// The streams of the laboratory. A stream is a model that was trained on something else or on less, the
// samples it has never seen, what happens to them, and in which order their classes come.

import { join } from "node:path";
import { type ModelInputs, normalizeImages, type OnlineSample, readIdx } from "loko";
import { CORRUPTIONS, type Sample } from "./corruptions.js";
import { Random } from "./random.js";

type DataName = "garments" | "words" | "pairs";

/** How labels come along the stream. */
type Order =
  | "uniform"
  | "permuted-half-way" // from the middle on, every class has another label
  | "incremental" // the classes the model knows, then one more after the other
  | "long-tail"; // class r in a random order has frequency 0.55^r

export interface StreamDefinition {
  readonly name: string;
  /** Defaults are chosen on tuning streams and reported on the others. */
  readonly use: "tuning" | "reporting";
  readonly model: string;
  readonly data: DataName;
  readonly corruption: keyof typeof CORRUPTIONS;
  /** The corruption grows from nothing to its full strength along the stream. */
  readonly drifts?: boolean;
  readonly order?: Order;
}

export const STREAM_LENGTH = 1500;

const stream = (
  use: StreamDefinition["use"],
  name: string,
  model: string,
  corruption: StreamDefinition["corruption"],
  more: Partial<StreamDefinition> = {},
): StreamDefinition => ({
  name,
  use,
  model,
  corruption,
  data: model.startsWith("bert") ? "words" : model === "vit-pairs" ? "pairs" : "garments",
  ...more,
});

export const STREAMS: readonly StreamDefinition[] = [
  stream("tuning", "lenet rotate", "lenet", "rotate90"),
  stream("tuning", "lenet permuted labels", "lenet", "none", { order: "permuted-half-way" }),
  stream("tuning", "vit no shift", "vit", "none"),
  stream("tuning", "vit noise drift", "vit", "heavyNoise", { drifts: true }),
  stream("tuning", "bert reversed words", "bert", "reverse"),
  stream("tuning", "bert new classes", "bert-part", "none"),
  stream("tuning", "bert new head", "bert-new-head", "none"),
  stream("tuning", "bert typos", "bert", "typos"),
  stream("tuning", "lenet long tail", "lenet", "none", { order: "long-tail" }),
  stream("tuning", "vit 100 classes", "vit-pairs", "none"),

  stream("reporting", "lenet noise", "lenet", "noise"),
  stream("reporting", "lenet no shift", "lenet", "none"),
  stream("reporting", "lenet rotation drift", "lenet", "rotate180", { drifts: true }),
  stream("reporting", "vit invert", "vit", "invert"),
  stream("reporting", "vit blur", "vit", "blur"),
  stream("reporting", "vit permuted labels", "vit", "none", { order: "permuted-half-way" }),
  stream("reporting", "vit new classes", "vit-part", "none"),
  stream("reporting", "vit new head", "vit-new-head", "none"),
  stream("reporting", "vit class-incremental", "vit-part", "none", { order: "incremental" }),
  stream("reporting", "bert no shift", "bert", "none"),
  stream("reporting", "bert permuted labels", "bert", "none", { order: "permuted-half-way" }),
  stream("reporting", "bert long tail, typos", "bert", "typos", { order: "long-tail" }),
  stream("reporting", "vit 100 classes, noise", "vit-pairs", "noise"),
];

interface DataSet {
  readonly samples: Uint8Array;
  readonly labels: Uint8Array;
  readonly shape: readonly number[];
  readonly classes: number;
}

/** How many classes the models named so were trained on; the others know all. */
const KNOWN_CLASSES: Readonly<Record<string, number>> = { "vit-part": 7, "bert-part": 5 };

const loaded = new Map<string, Promise<DataSet>>();

function loadData(assets: string, name: DataName): Promise<DataSet> {
  let set = loaded.get(name);
  if (set === undefined) {
    set = readData(assets, name);
    loaded.set(name, set);
  }
  return set;
}

async function readData(assets: string, name: DataName): Promise<DataSet> {
  const kind = name === "words" ? "tokens" : "images";
  const samples = await readIdx(join(assets, `${name}-${kind}.idx.gz`));
  const labels = (await readIdx(join(assets, `${name}-labels.idx.gz`))).data as Uint8Array;
  return {
    samples: samples.data as Uint8Array,
    labels,
    shape: samples.shape.slice(1),
    classes: 1 + labels.reduce((a, b) => Math.max(a, b), 0),
  };
}

/** What a stream teaches, and what it is tested on. */
export interface Stream {
  readonly samples: readonly OnlineSample[];
  /** Others like those at its end: nobody learns from them. */
  readonly heldOut: readonly OnlineSample[];
}

/** The samples of a stream; the same for every optimizer. */
export async function makeStream(
  assets: string,
  definition: StreamDefinition,
  seed: number,
  length = STREAM_LENGTH,
  heldOut = 0,
): Promise<Stream> {
  const set = await loadData(assets, definition.data);
  const random = new Random(definition.name, seed);
  const { rows, weights } = chooseRows(set, definition, length, random);
  const relabelled = derangement(set.classes, random);
  const corrupt = CORRUPTIONS[definition.corruption];
  const size = set.shape.reduce((a, b) => a * b);
  const toSample = (row: number, noise: Random, progress: number): OnlineSample => {
    const sample: Sample = {
      data: set.samples.subarray(row * size, (row + 1) * size),
      shape: set.shape,
    };
    const label = set.labels[row]!;
    const moved = definition.order === "permuted-half-way" && progress >= 0.5;
    return {
      inputs: toInputs({
        ...sample,
        data: corrupt(sample, noise, definition.drifts ? progress : 1),
      }),
      labels: Int32Array.of(moved ? relabelled[label]! : label),
    };
  };
  const samples = rows.map((row, i) => toSample(row, random, i / (rows.length - 1)));
  const other = new Random(`${definition.name}, held out`, seed);
  const unseen = drawRows(set, weights, rows, heldOut, other);
  return { samples, heldOut: unseen.map((row) => toSample(row, other, 1)) };
}

/** A permutation in which every class moves. */
function derangement(classes: number, random: Random): number[] {
  const cycle = random.permutation(classes);
  const result = new Array<number>(classes);
  cycle.forEach((label, i) => {
    result[label] = cycle[(i + 1) % classes]!;
  });
  return result;
}

/** Rows of the data set without repetition, in the order the stream wants, and the weights of the classes at its end. */
function chooseRows(
  set: DataSet,
  { order = "uniform", model }: StreamDefinition,
  length: number,
  random: Random,
): { rows: number[]; weights: readonly number[] } {
  const shuffled = random.permutation(set.labels.length);
  const equal = new Array<number>(set.classes).fill(1);
  if (order === "uniform" || order === "permuted-half-way") {
    return { rows: shuffled.slice(0, length), weights: equal };
  }
  const byClass = Array.from({ length: set.classes }, (_, label) =>
    shuffled.filter((row) => set.labels[row] === label),
  );
  const known = KNOWN_CLASSES[model] ?? set.classes;
  const phases = set.classes - known + 1;
  const frequencies = random.permutation(set.classes).map((rank) => 0.55 ** rank);
  const rows = Array.from({ length }, (_, i) => {
    const shown = known + Math.floor((i * phases) / length);
    return takeRow(byClass, order === "long-tail" ? frequencies : equal.slice(0, shown), random);
  });
  return { rows, weights: order === "long-tail" ? frequencies : equal };
}

/** `count` rows that are not in `seen`, classes by weight; those of a class come again where it has too few. */
function drawRows(
  set: DataSet,
  weights: readonly number[],
  seen: readonly number[],
  count: number,
  random: Random,
): number[] {
  if (count === 0) return [];
  const taken = new Set(seen);
  const left = random.permutation(set.labels.length).filter((row) => !taken.has(row));
  const byClass = weights.map((_, label) => left.filter((row) => set.labels[row] === label));
  const pools = byClass.map((rows) => [...rows]);
  return Array.from({ length: count }, () => {
    // An empty pool would leave its share to the other classes.
    for (const [label, pool] of pools.entries())
      if (pool.length === 0) pool.push(...byClass[label]!);
    return takeRow(pools, weights, random);
  });
}

/** Takes a row of a random class, as long as the class has any. */
function takeRow(byClass: number[][], weights: readonly number[], random: Random): number {
  const available = weights.map((weight, label) => (byClass[label]!.length > 0 ? weight : 0));
  return byClass[weightedChoice(available, random)]!.pop()!;
}

function weightedChoice(weights: readonly number[], random: Random): number {
  let left = random.uniform() * weights.reduce((a, b) => a + b);
  const chosen = weights.findIndex((weight) => {
    left -= weight;
    return left < 0;
  });
  return chosen < 0 ? weights.findLastIndex((weight) => weight > 0) : chosen;
}

function toInputs({ data, shape }: Sample): ModelInputs {
  if (shape.length === 1) {
    return {
      inputIds: Int32Array.from(data),
      attentionMask: Int32Array.from(data, (letter) => (letter === 0 ? 0 : 1)),
      shape: [1, data.length],
    };
  }
  const [height, width] = shape as [number, number];
  return normalizeImages(data, { height, width, mean: [0.5], std: [0.5] });
}
