// Trains for a while and prints the 99th percentile of the event loop's delay in milliseconds.
import { monitorEventLoopDelay } from "node:perf_hooks";
import { trainOnline } from "../../../dist/index.js";
import { prepare } from "./common.mjs";

const [dir, seconds] = process.argv.slice(2);
const { model, optimizer, sample } = await prepare(dir, { threads: 2 });
function* endless() {
  for (;;) yield sample;
}

const delay = monitorEventLoopDelay({ resolution: 1 });
let steps = 0;
let start = 0;
for await (const event of trainOnline(model, optimizer, endless())) {
  if (event.index === 1) {
    // The first step allocates what later ones reuse, off this thread but on the same cores.
    delay.enable();
    start = performance.now();
  }
  steps = event.index;
  if (start > 0 && performance.now() - start > Number(seconds) * 1000) break;
}
delay.disable();
const stepMilliseconds = (performance.now() - start) / (steps - 1);
console.log(JSON.stringify({ p99: delay.percentile(99) / 1e6, steps, stepMilliseconds }));
model.dispose();
