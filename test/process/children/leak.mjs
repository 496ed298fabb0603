// Creates and gives up many models, with dispose() or by the garbage collector alone (--expose-gc).
import { readFileSync } from "node:fs";
import { setImmediate, setTimeout } from "node:timers/promises";
import { prepare } from "./common.mjs";

const [how, dir, count] = process.argv.slice(2);

function status(field) {
  return Number(
    new RegExp(`^${field}:\\s+(\\d+)`, "m").exec(readFileSync("/proc/self/status", "utf8"))[1],
  );
}
async function once() {
  const { model, optimizer, sample } = await prepare(dir, { threads: 2 });
  await optimizer.step(sample.inputs, sample.labels);
  if (how === "dispose") model.dispose();
}
/** Memory in MiB and threads, after everything given up has been freed. */
async function measure() {
  for (let i = 0; i < 5; i++) {
    globalThis.gc();
    await setImmediate();
    await setTimeout(20);
  }
  return { rss: status("VmRSS") / 1024, threads: status("Threads") };
}

const warmup = Math.ceil(Number(count) / 10);
for (let i = 0; i < warmup; i++) {
  await once();
  if (i % 10 === 0) globalThis.gc();
}
const before = await measure();
for (let i = 0; i < Number(count); i++) {
  await once();
  // Finalizers run between turns of the event loop.
  if (how === "collect" && i % 10 === 0) {
    globalThis.gc();
    await setImmediate();
  }
}
console.log(JSON.stringify({ before, after: await measure() }));
