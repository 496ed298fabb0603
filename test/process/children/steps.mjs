// Memory over many steps, or many tensors, in bytes after equal numbers of them: the resident set, and what
// JavaScript holds on to, which is exact.
//
// steps.mjs <loko | adamw | tensors> <model> <count>   (node --expose-gc)
import { readFileSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { AdamW, LoKO, Model } from "../../../dist/index.js";

const [kind, dir, count] = process.argv.slice(2);
const SAMPLES = 10;
const each = Number(count) / SAMPLES;

const model = await Model.fromPretrained(dir, { threads: 1 });
await model.addAdapter({ r: 2, loraAlpha: 4, targetModules: "all-linear" });
const { input } = model;
const shape = input.kind === "image" ? [1, ...input.shape] : [1, 4];
const size = shape.reduce((a, b) => a * b);
const batch = (i) =>
  input.kind === "image"
    ? { pixelValues: Float32Array.from({ length: size }, (_, j) => Math.sin(j + i)), shape }
    : { inputIds: Int32Array.from({ length: size }, (_, j) => 5 + ((j + i) % 8)), shape };
const optimizer = kind === "adamw" ? new AdamW(model) : new LoKO(model);

async function once(i) {
  if (kind !== "tensors") {
    await optimizer.step(batch(i), Int32Array.of(i % model.numLabels));
    return;
  }
  const logits = await model.forward(batch(i));
  // Every other one is left to the garbage collector.
  if (i % 2 === 0) logits.dispose();
}

async function measure() {
  for (let i = 0; i < 3; i++) {
    globalThis.gc();
    await setImmediate();
  }
  const { heapUsed, external } = process.memoryUsage();
  const [, kilobytes] = /^VmRSS:\s+(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"));
  return { resident: 1024 * Number(kilobytes), javascript: heapUsed + external };
}

// The compilers of V8 and the allocator settle first.
for (let i = 0; i < 2 * each; i++) await once(i);
const memory = [];
for (let i = 0; i < Number(count); i++) {
  await once(i);
  if ((i + 1) % each === 0) memory.push(await measure());
}
console.log(JSON.stringify(memory));
model.dispose();
