// Trains and saves for a while and prints the 99th percentile of the event loop's delay in milliseconds.
import { monitorEventLoopDelay } from "node:perf_hooks";
import { LoKO, Model, Trainer } from "../../../dist/index.js";

const [dir, outputDir, seconds] = process.argv.slice(2);
const model = await Model.fromPretrained(dir, { threads: 1 });
await model.addAdapter({ r: 64, targetModules: ["query", "value"] });
const shape = [1, ...model.input.shape];
const pixelValues = Float32Array.from({ length: 3 * 32 * 32 }, (_, i) => Math.sin(i));
const sample = { inputs: { pixelValues, shape }, labels: Int32Array.of(1) };
const trainer = new Trainer(model, new LoKO(model), {
  maxSteps: 1_000_000,
  outputDir,
  saveSteps: 5,
  saveTotalLimit: 2,
  loggingSteps: 1,
  progressBar: false,
});
const delay = monitorEventLoopDelay({ resolution: 1 });
let saves = 0;
let start = 0;
for await (const { type, globalStep } of trainer.run(Array(100).fill(sample))) {
  if (type === "save" && ++saves === 1) {
    // The first step and the first save load and compile what later ones reuse.
    delay.enable();
    start = performance.now();
  }
  if (start > 0 && performance.now() - start > Number(seconds) * 1000) {
    delay.disable();
    const parameters = model.parameterCounts().trainable;
    console.log(JSON.stringify({ p99: delay.percentile(99) / 1e6, saves, globalStep, parameters }));
    break;
  }
}
model.dispose();
