/**
 * Compares settings of LoKO, and AdamW, over the quickstart's shifts and several orders of the stream:
 * as a glance; the evidence behind the defaults is docs/streams.md.
 *
 *     npm run compare -- --samples 1200 --orders 2
 */
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { AdamW, LoKO, type LoKOOptions, Model, type Optimizer, trainOnline } from "loko";

import { type ImageSet, loadImages, type Shift, shiftedStream } from "./stream.js";

const ASSETS = resolve(import.meta.dirname, "../../../examples/quickstart/assets");
const SHIFTS: readonly Shift[] = ["rotate90", "invert", "none"];

const loko = (options: LoKOOptions) => (model: Model) => new LoKO(model, options);
const categorical = (tau: number, trustRegion: number) =>
  loko({ observation: "categorical", update: "linear", tau, trustRegion });
const softmax = (tau: number, observationRank: "auto" | "exact" = "exact") =>
  loko({ observation: "softmax", tau, trustRegion: 1, observationRank });

const SETTINGS: readonly (readonly [name: string, make: (model: Model) => Optimizer])[] = [
  ["the default", loko({})],
  ["softmax, tau 1, auto rank", softmax(1, "auto")],
  ["softmax, tau 1", softmax(1)],
  ["softmax, tau 3", softmax(3)],
  ["softmax, tau 10", softmax(10)],
  ["categorical, tau 0.3, c 1", categorical(0.3, 1)],
  ["categorical, tau 1, c 1", categorical(1, 1)],
  ["categorical, tau 3, c 1", categorical(3, 1)],
  ["categorical, tau 3, c 2", categorical(3, 2)],
  ["categorical, tau 10, c 1", categorical(10, 1)],
  ["AdamW, lr 1e-3", (model) => new AdamW(model, { lr: 1e-3 })],
];

/** The same images in another order, by a linear congruential generator and Fisher and Yates. */
function reordered(set: ImageSet, seed: number): ImageSet {
  let state = 7919 * seed + 13;
  const random = () => {
    state = (1103515245 * state + 12345) % 2 ** 31;
    return state / 2 ** 31;
  };
  const order = Array.from({ length: set.count }, (_, i) => i);
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  const size = set.height * set.width;
  const images = new Uint8Array(set.images.length);
  order.forEach((from, to) => {
    images.set(set.images.subarray(from * size, (from + 1) * size), to * size);
  });
  return { ...set, images, labels: Uint8Array.from(order, (from) => set.labels[from]!) };
}

async function onlineAccuracy(
  set: ImageSet,
  shift: Shift,
  samples: number,
  seed: number,
  makeOptimizer: (model: Model) => Optimizer,
): Promise<number> {
  using model = await Model.fromPretrained(join(ASSETS, "vit-fashion-mnist"), { seed });
  await model.addAdapter({ r: 8, loraAlpha: 16, targetModules: ["query", "value"] });
  let accuracy = 0;
  const stream = shiftedStream(set, shift, samples);
  for await (const event of trainOnline(model, makeOptimizer(model), stream)) {
    accuracy = event.onlineAccuracy;
  }
  return accuracy;
}

const { values } = parseArgs({
  options: {
    samples: { type: "string", default: "1200" },
    orders: { type: "string", default: "2" },
  },
});
const set = await loadImages(ASSETS);
const samples = Number(values.samples);
if (!Number.isInteger(samples) || samples < 1 || samples > set.count) {
  throw new RangeError(`--samples must be an integer from 1 to ${set.count}.`);
}
const orders = Array.from({ length: Number(values.orders) }, (_, seed) => seed);
console.log(`Online accuracy over ${samples} samples, mean of ${orders.length} orders\n`);
console.log(
  `| setting | ${SHIFTS.join(" | ")} | mean |\n| --- |${" --- |".repeat(SHIFTS.length + 1)}`,
);
for (const [name, makeOptimizer] of SETTINGS) {
  const means: number[] = [];
  for (const shift of SHIFTS) {
    let sum = 0;
    for (const seed of orders) {
      sum += await onlineAccuracy(reordered(set, seed), shift, samples, seed, makeOptimizer);
    }
    means.push(sum / orders.length);
  }
  means.push(means.reduce((a, b) => a + b) / means.length);
  console.log(`| ${name} | ${means.map((mean) => mean.toFixed(3)).join(" | ")} |`);
}
