// Terminates workers that do nothing but call native code which throws: at that moment nothing can be thrown
// into JavaScript any more.
import { createRequire } from "node:module";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker } from "node:worker_threads";

const WORKERS = 20;

if (isMainThread) {
  for (let i = 0; i < WORKERS; i++) {
    const worker = new Worker(new URL(import.meta.url));
    await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
    await setTimeout(i % 4);
    await worker.terminate();
  }
  console.log("alive");
} else {
  const root = fileURLToPath(new URL("../../..", import.meta.url));
  const addon = createRequire(import.meta.url)("node-gyp-build")(root);
  parentPort.postMessage("ready");
  for (;;) {
    try {
      addon.createSession({});
    } catch {}
  }
}
