import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, test } from "vitest";

import { batches } from "../../../lib/data/dataset.js";
import { textDataset } from "../../../lib/data/text.js";
import { dataFile } from "./helpers.js";

const TEXT = "a sentence of ordinary length, as somebody may write it about a film";
const LINES = {
  "a.tsv": ["text\tlabel\n", `${TEXT}\t1\n`],
  "a.csv": ["label,text\n", `1,"${TEXT}"\n`],
  "a.jsonl": ["", `${JSON.stringify({ text: TEXT, label: 1 })}\n`],
} as const;

/** A file of about so many megabytes, and how many rows it has. */
async function largeFile(name: keyof typeof LINES, megabytes: number) {
  const [head, line] = LINES[name];
  const path = await dataFile(name, head);
  const blockRows = Math.ceil(1e6 / line.length);
  const block = line.repeat(blockRows);
  const file = openSync(path, "a");
  for (let i = 0; i < megabytes; i++) writeSync(file, block);
  closeSync(file);
  return { path, rows: megabytes * blockRows };
}

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

/** Bytes that are still in use. */
function memoryInUse(): number {
  collectGarbage();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

test("a file of 120 MB is read, shuffled and batched in a fraction of its size", async () => {
  const { path, rows } = await largeFile("a.jsonl", 120);
  const before = memoryInUse();
  let peak = before;
  let seen = 0;
  for await (const examples of batches(textDataset(path).shuffle({ seed: 1 }), 1000)) {
    seen += examples.length;
    if (seen % 100_000 === 0) peak = Math.max(peak, memoryInUse());
  }
  expect(seen).toBe(rows);
  expect(peak).toBeGreaterThan(before);
  // The shuffle holds 10,000 examples of some 200 bytes, and chunks of 128 KiB are on their way.
  expect((peak - before) / 1e6).toBeLessThan(8);
});

/** Bytes that this process has read from files, as Linux counts them. */
const bytesRead = () => Number(/rchar: (\d+)/.exec(readFileSync("/proc/self/io", "utf8"))![1]);

test.runIf(process.platform === "linux").each(["a.tsv", "a.csv", "a.jsonl"] as const)(
  "%s is read no further than it is iterated over",
  async (name) => {
    const { path } = await largeFile(name, 20);
    const before = bytesRead();
    for await (const { row } of textDataset(path)) {
      if (row < 1000) continue;
      // Time to read ahead, if somebody did.
      await new Promise((resolve) => setTimeout(resolve, 50));
      break;
    }
    expect((bytesRead() - before) / 1e6).toBeLessThan(2);
  },
);
