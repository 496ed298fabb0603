// Terminates workers at arbitrary moments of loading and training, then uses a model here.
import { once } from "node:events";
import { setTimeout } from "node:timers/promises";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { prepare } from "./common.mjs";

if (isMainThread) {
  const dir = process.argv[2];
  for (let i = 0; i < 12; i++) {
    const worker = new Worker(new URL(import.meta.url), { workerData: dir });
    if (i < 8)
      await once(worker, "message"); // a step is running from here on
    else await setTimeout(10 * (i - 7)); // before or while it loads
    await setTimeout(i % 4);
    await worker.terminate();
  }
  const { model, optimizer, sample } = await prepare(dir);
  const { loss } = await optimizer.step(sample.inputs, sample.labels);
  model.dispose();
  console.log(Number.isFinite(loss) ? "alive" : "broken");
} else {
  const { optimizer, sample } = await prepare(workerData, { threads: 2 });
  for (let i = 0; ; i++) {
    const running = optimizer.step(sample.inputs, sample.labels);
    if (i === 1) parentPort.postMessage("training");
    await running;
  }
}
