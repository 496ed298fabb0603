// Trains with the bar of the Trainer, and prints as the loop of docs/training.md does, and at steps as well.
// Arguments: the model's folder, examples of a step, and steps between two prints.
import { AdamW, Model, Tokenizer, Trainer, textDataset } from "../../../dist/index.js";

const [dir, batchSize, every] = process.argv.slice(2);
const model = await Model.fromPretrained(dir, { threads: 1 });
const processingClass = await Tokenizer.fromPretrained(dir);
await model.addAdapter({ r: 4 });
const trainer = new Trainer(model, new AdamW(model), {
  processingClass,
  epochs: 1,
  batchSize: Number(batchSize),
  loggingSteps: 250,
});
console.log("begin");
for await (const event of trainer.run(textDataset("train.tsv", { label2id: model.label2id }))) {
  if (event.type === "log") console.log(event.logs);
  if (event.type === "step" && event.globalStep % every === 0)
    console.log(`at ${event.globalStep}`);
}
console.log("saved adapter");
console.log("bye");
model.dispose();
