/**
 * Our side of a trial: runs steps when the coordinator asks for them (protocol.ts).
 *
 *     node build/benchmarks/runner.js TRIAL.json CONTENDER
 */
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { AdamW, LoKO, type LoKOOptions, Model, type ModelInputs } from "loko";
import { ROOT } from "./paths.js";
import type { PreparedTrial } from "./prepare.js";
import type { Reply, Request } from "./protocol.js";
import { readTensors, sizeOf } from "./tensors-file.js";

interface Batch {
  readonly inputs: ModelInputs;
  readonly labels: Int32Array;
}

/** The logits [B * m] from before the step, and the rows that were propagated. */
interface Step {
  readonly logits: Float32Array;
  readonly rows: number;
}

type Contender = (batch: Batch) => Promise<Step>;

const require = createRequire(import.meta.url);
// The same instance that "loko" has loaded.
const addon = require("node-gyp-build")(ROOT) as { crossings(): number };

/** What is compared with PyTorch's filter is the softmax form, which can be written there in a few lines. */
const FILTERS: Readonly<Record<string, LoKOOptions>> = {
  "loko default": {},
  "loko exact": { observation: "softmax", observationRank: "exact" },
  "loko auto": { observation: "softmax", observationRank: "auto" },
};

async function makeContender(name: string, trial: PreparedTrial): Promise<Contender> {
  const { modelDir, adapterDir, threads, device, precision, learningRate } = trial;
  const model = await Model.fromPretrained(modelDir, { threads, device, precision });
  await model.loadAdapter(adapterDir, { isTrainable: true });
  if (name === "loko predict") {
    return async ({ inputs }) => {
      using logits = await model.forward(inputs);
      return { logits: (await logits.data()) as Float32Array, rows: 0 };
    };
  }
  const optimizer =
    name === "loko adamw"
      ? new AdamW(model, { lr: learningRate })
      : new LoKO(model, FILTERS[name]!);
  return ({ inputs, labels }) => optimizer.step(inputs, labels);
}

function loadSamples(path: string): Batch[] {
  const tensors = readTensors(path);
  const labels = tensors.get("labels")!;
  const name = tensors.has("input_ids") ? "inputIds" : "pixelValues";
  const { shape, values } = tensors.get("input_ids") ?? tensors.get("pixel_values")!;
  const [count, ...batchShape] = shape;
  const size = sizeOf(batchShape);
  const batch = batchShape[0]!;
  return Array.from({ length: count! }, (_, i) => ({
    inputs: {
      [name]: values.slice(i * size, (i + 1) * size),
      shape: batchShape,
    } as unknown as ModelInputs,
    labels: labels.values.slice(i * batch, (i + 1) * batch) as Int32Array,
  }));
}

function crossEntropy(logits: Float32Array, labels: Int32Array): number {
  const classes = logits.length / labels.length;
  const losses = Array.from(labels, (label, sample) => {
    const row = logits.subarray(sample * classes, (sample + 1) * classes);
    const largest = row.reduce((a, b) => Math.max(a, b));
    const sum = row.reduce((total, logit) => total + Math.exp(logit - largest), 0);
    return Math.log(sum) + largest - row[label]!;
  });
  return losses.reduce((a, b) => a + b) / losses.length;
}

/** Peak resident bytes; 0 where the system does not say. */
function memoryPeak(): number {
  if (process.platform !== "linux") return 0;
  // `resourceUsage` would count the parent's from before exec.
  const match = /VmHWM:\s*(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"));
  return match === null ? 0 : Number(match[1]) * 1024;
}

function resetMemoryPeak(): void {
  try {
    writeFileSync("/proc/self/clear_refs", "5");
  } catch {
    // The peak then is that of the whole process.
  }
}

async function run(contender: Contender, batches: readonly Batch[]): Promise<Reply> {
  const seconds: number[] = [];
  const losses: number[] = [];
  const rows: number[] = [];
  const crossings = addon.crossings();
  const processor = process.cpuUsage();
  for (const batch of batches) {
    const begin = performance.now();
    const step = await contender(batch);
    seconds.push((performance.now() - begin) / 1000);
    losses.push(crossEntropy(step.logits, batch.labels));
    rows.push(step.rows);
  }
  const { user, system } = process.cpuUsage(processor);
  const cpuSeconds = (user + system) / 1e6;
  // Less the call that asks.
  const crossed = addon.crossings() - crossings - 1;
  return { seconds, losses, rows, peakBytes: memoryPeak(), cpuSeconds, crossings: crossed };
}

const say = (message: object) => process.stdout.write(`${JSON.stringify(message)}\n`);

async function main(): Promise<void> {
  const [file, name] = process.argv.slice(2);
  const trial = JSON.parse(readFileSync(file!, "utf8")) as PreparedTrial;
  const contender = await makeContender(name!, trial);
  const samples = loadSamples(trial.samplesFile);
  say({ ready: { node: process.version } });
  let done = 0;
  for await (const line of createInterface({ input: process.stdin })) {
    const request = JSON.parse(line) as Request;
    if (request.resetPeak) resetMemoryPeak();
    const batches = Array.from({ length: request.steps }, () => samples[done++ % samples.length]!);
    say(await run(contender, batches));
  }
}

try {
  await main();
} catch (error) {
  console.error(error);
  say({ failed: String(error) });
  process.exitCode = 1;
}
