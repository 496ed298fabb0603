// Terminates workers at random moments of loading, training and saving, four at once, while a model here
// trains; that one must end with the bits of a training that nothing disturbed.
//
// terminate.mjs <model> <folder> <workers> <seed>
import { createHash } from "node:crypto";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { isMainThread, Worker, workerData } from "node:worker_threads";
import { prepare } from "./common.mjs";

const AT_ONCE = 4;
const STEPS = 4;

/** A 32-bit linear congruential generator. */
function drawUniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

async function train(dir) {
  const { model, optimizer, sample } = await prepare(dir, { threads: 1 });
  for (let i = 0; i < STEPS; i++) await optimizer.step(sample.inputs, sample.labels);
  const theta = await model.readParameters();
  model.dispose();
  return createHash("sha256").update(new Uint8Array(theta.buffer)).digest("hex");
}

if (isMainThread) {
  const [dir, folder, count, seed] = process.argv.slice(2);
  const draw = drawUniform(Number(seed));
  const expected = await train(dir);
  let running = 0;
  let started = 0;
  const liveAndDie = async () => {
    while (started < Number(count)) {
      const id = started++;
      // Two threads of the model's own each, so that the pool is torn down as well.
      const worker = new Worker(new URL(import.meta.url), {
        workerData: { dir, output: join(folder, String(id)), how: id % 3 },
      });
      const failure = new Promise((_, reject) => worker.once("error", reject));
      running++;
      // Loading takes some tens of milliseconds, a step as well.
      await Promise.race([setTimeout(draw() * 250), failure]);
      await worker.terminate();
      running--;
    }
  };
  const rounds = Promise.all(Array.from({ length: AT_ONCE }, liveAndDie));
  const results = new Set();
  do {
    results.add(await train(dir));
  } while (running > 0);
  await rounds;
  console.log(results.size === 1 && results.has(expected) ? "equal" : "different");
} else {
  const { dir, output, how } = workerData;
  const { model, optimizer, sample } = await prepare(dir, { threads: 2 });
  for (;;) {
    await optimizer.step(sample.inputs, sample.labels);
    if (how === 1) await model.forward(sample.inputs);
    if (how === 2) await model.saveAdapter(output, { overwrite: true });
  }
}
