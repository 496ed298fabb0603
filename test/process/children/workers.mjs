// Four workers train the same model; all must agree with the main thread to the bit.
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { prepare } from "./common.mjs";

async function train(dir) {
  const { model, optimizer, sample } = await prepare(dir, { threads: 1 });
  for (let i = 0; i < 5; i++) await optimizer.step(sample.inputs, sample.labels);
  const theta = await model.readParameters();
  model.dispose();
  return theta;
}

if (isMainThread) {
  const dir = process.argv[2];
  const results = Array.from({ length: 4 }, () => {
    const worker = new Worker(new URL(import.meta.url), { workerData: dir });
    return new Promise((resolve, reject) => {
      worker.once("message", resolve);
      worker.once("error", reject);
    });
  });
  const expected = Buffer.from((await train(dir)).buffer);
  const thetas = await Promise.all(results);
  console.log(
    thetas.every((theta) => expected.equals(Buffer.from(theta.buffer))) ? "equal" : "different",
  );
} else {
  parentPort.postMessage(await train(workerData));
}
