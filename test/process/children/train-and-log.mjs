// Trains with a line of the log after each step, and prints the code of what ends it.
import { AdamW, Model, Trainer } from "../../../dist/index.js";

const [base, outputDir, steps] = process.argv.slice(2);
const model = await Model.fromPretrained(base);
await model.addAdapter({ r: 4, targetModules: ["query", "value"], modulesToSave: ["classifier"] });
const dataset = Array.from({ length: 8 }, (_, i) => ({
  inputs: { pixelValues: new Float32Array(768).fill(i / 8), shape: [1, 3, 16, 16] },
  labels: Int32Array.of(i % model.numLabels),
}));
const trainer = new Trainer(model, new AdamW(model), {
  maxSteps: Number(steps),
  outputDir,
  saveStrategy: "no",
  loggingSteps: 1,
  reportTo: ["jsonl"],
});
await trainer.train(dataset).then(
  () => console.log("done"),
  (error) => console.log(error.code),
);
model.dispose();
