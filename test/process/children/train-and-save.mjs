// Trains without end and saves after every step, until somebody kills it. Prints the step that it goes on
// from, and each one that is on the disk.
import { AdamW, LoKO, Model, Trainer } from "../../../dist/index.js";

const [, , base, outputDir, kind] = process.argv;
const model = await Model.fromPretrained(base);
await model.addAdapter({ r: 4, targetModules: ["query", "value"], modulesToSave: ["classifier"] });
const dataset = Array.from({ length: 64 }, (_, i) => ({
  inputs: {
    pixelValues: Float32Array.from({ length: 768 }, (_, j) => Math.sin(0.7 * j + 3 * i)),
    shape: [1, 3, 16, 16],
  },
  labels: Int32Array.of(i % model.numLabels),
}));
const trainer = new Trainer(model, kind === "loko" ? new LoKO(model) : new AdamW(model), {
  maxSteps: 1_000_000_000,
  outputDir,
  saveSteps: 1,
  saveTotalLimit: 2,
  loggingSteps: 1_000_000,
  reportTo: [],
  progressBar: false,
  ...(kind === "loko" ? {} : { lrSchedulerType: "constant" }),
});

async function run(resumeFromCheckpoint) {
  for await (const event of trainer.run(dataset, { resumeFromCheckpoint })) {
    if (event.type === "trainBegin") console.log(`begun ${event.globalStep}`);
    if (event.type === "save") console.log(`saved ${event.globalStep}`);
  }
}
// Nothing is there for the first life, and for one after a life that ended in its first save.
await run(true).catch((error) => {
  if (error.code !== "ERR_FILE_NOT_FOUND") throw error;
  return run(false);
});
