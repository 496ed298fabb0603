// Ends in one of several ways while a model is in one of several states.
import { setTimeout } from "node:timers/promises";
import { Model } from "../../../dist/index.js";
import { prepare } from "./common.mjs";

const [how, dir] = process.argv.slice(2);

if (how === "exit-while-loading") {
  void Model.fromPretrained(dir);
  await setTimeout(5);
  process.exit(7);
}

const { model, optimizer, sample } = await prepare(dir, { threads: 2 });
// An idle process collects garbage after some seconds, and the end of the model would end it too.
globalThis.kept = model;
await optimizer.step(sample.inputs, sample.labels);
switch (how) {
  case "natural":
    break; // no dispose: the idle model must not keep the process alive
  case "natural-during-step":
    optimizer.step(sample.inputs, sample.labels).then(() => console.log("settled"));
    break;
  case "exit-during-step":
    void optimizer.step(sample.inputs, sample.labels);
    process.exit(7);
    break;
  case "exit-later-during-step":
    void optimizer.step(sample.inputs, sample.labels);
    await setTimeout(1);
    process.exit(7);
    break;
  case "dispose-during-step": {
    const running = optimizer.step(sample.inputs, sample.labels);
    model.dispose();
    const { loss } = await running;
    console.log(Number.isFinite(loss) ? "settled" : "failed");
    break;
  }
  case "throw-during-step":
    void optimizer.step(sample.inputs, sample.labels);
    throw new Error("uncaught on purpose");
  default:
    throw new Error(`unknown way to end: ${how}`);
}
