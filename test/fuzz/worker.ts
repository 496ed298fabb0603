// The process that runs cases for main.ts. It may hang, crash or run out of memory: which case it is at
// is in a file that survives it.
import { mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Finding, runCase } from "./reader.js";
import { openReaders } from "./readers.js";

export interface Order {
  readonly reader: string;
  readonly seed: number;
  /** The first case, and how long to go on; at least one is run. */
  readonly from: number;
  readonly count: number;
  readonly milliseconds: number;
}

export interface Report {
  /** The case after the last one that was run. */
  readonly next: number;
  readonly outcomes: Readonly<Record<string, number>>;
  readonly finding?: string;
}

const [progressFile] = process.argv.slice(2);
const readers = new Map((await openReaders()).map((reader) => [reader.name, reader]));
const dir = join(mkdtempSync(join(tmpdir(), "loko-fuzz-")), "case");
const progress = openSync(progressFile!, "w");

async function carryOut({ reader, seed, from, count, milliseconds }: Order): Promise<Report> {
  const outcomes: Record<string, number> = {};
  const end = performance.now() + milliseconds;
  let next = from;
  while (next === from || (next < from + count && performance.now() < end)) {
    writeSync(progress, String(next).padEnd(20), 0);
    const index = next++;
    try {
      const outcome = await runCase(readers.get(reader)!, seed, index, dir);
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    } catch (error) {
      if (!(error instanceof Finding)) throw error;
      return { next, outcomes, finding: error.message };
    }
  }
  return { next, outcomes };
}

process.on("message", (order: Order) => {
  void carryOut(order).then((report) => process.send!(report));
});
process.on("disconnect", () => {
  rmSync(join(dir, ".."), { recursive: true, force: true });
  process.exit();
});
process.send!({ readers: [...readers.keys()] });
