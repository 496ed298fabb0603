// Trains with checkpoints, and prints the code of what ends it and which checkpoint it could go on from.
import { readdirSync } from "node:fs";
import { AdamW, Model, Trainer } from "../../../dist/index.js";

const [base, outputDir] = process.argv.slice(2);
const model = await Model.fromPretrained(base);
await model.addAdapter({ r: 4, targetModules: ["query", "value"], modulesToSave: ["classifier"] });
const dataset = Array.from({ length: 8 }, (_, i) => ({
  inputs: { pixelValues: new Float32Array(768).fill(i / 8), shape: [1, 3, 16, 16] },
  labels: Int32Array.of(i % model.numLabels),
}));
const options = { epochs: 4, outputDir, saveSteps: 1, reportTo: [], progressBar: false };
const create = () => new Trainer(model, new AdamW(model, { lr: 1e-3 }), options);
const error = await create()
  .train(dataset)
  .catch((thrown) => thrown);
const left = readdirSync(outputDir).sort();
let resumedFrom;
for await (const event of create().run(dataset, { resumeFromCheckpoint: true })) {
  resumedFrom = event.resumedFrom;
  break;
}
console.log(JSON.stringify({ code: error.code, message: error.message, left, resumedFrom }));
model.dispose();
