// Gives every reader changed files for a while (npm run fuzz). Each case must end with a result or a
// LokoError, in time, without a crash and in bounded memory.
//
//   npm run fuzz -- --minutes 60 --seed 1
//   npm run fuzz -- --reader tokenizer --seed 1 --from 4711 --cases 1    one case again
import { type ChildProcess, fork } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { makeCase, randomOf } from "./reader.js";
import { openReaders } from "./readers.js";
import type { Order, Report } from "./worker.js";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "1" },
    seed: { type: "string", default: "1" },
    reader: { type: "string" },
    from: { type: "string", default: "0" },
    cases: { type: "string", default: "1000000000" },
    output: { type: "string", default: "build/fuzz-output" },
  },
});
const seed = Number(values.seed);
const deadline = performance.now() + 60_000 * Number(values.minutes);

/** Readers take turns of this length. */
const TURN_MS = 2000;
/** No case reads more than some hundred kilobytes; a machine with other work may take its time. */
const HANG_MS = 120_000;
/** Of JavaScript alone; the memory of native code is watched by runCase. */
const HEAP_MB = 768;

interface Tally {
  next: number;
  readonly outcomes: Map<string, number>;
}

interface FoundCase {
  readonly reader: string;
  readonly index: number;
  readonly what: string;
}

mkdirSync(values.output, { recursive: true });
const progressFile = join(values.output, "progress");

class Worker {
  readonly #child: ChildProcess;
  readonly #ready: Promise<unknown>;

  constructor() {
    const script = fileURLToPath(new URL("./worker.js", import.meta.url));
    this.#child = fork(script, [progressFile], {
      execArgv: [`--max-old-space-size=${HEAP_MB}`, "--no-warnings"],
    });
    this.#ready = this.#next(120_000);
  }

  /** @throws Error with what became of the process. */
  async run(order: Order): Promise<Report> {
    await this.#ready;
    this.#child.send(order);
    return (await this.#next(order.milliseconds + HANG_MS)) as Report;
  }

  end(): void {
    if (this.#child.connected) this.#child.disconnect();
  }

  #next(limit: number): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#child.kill("SIGKILL");
        reject(new Error(`no answer within ${limit} ms`));
      }, limit);
      const settle = (then: () => void) => {
        clearTimeout(timer);
        this.#child.removeAllListeners();
        then();
      };
      this.#child.once("message", (message) => settle(() => resolve(message)));
      this.#child.once("exit", (code, signal) =>
        settle(() => reject(new Error(`the process ended with ${signal ?? code}`))),
      );
    });
  }
}

const readers = (await openReaders()).filter(
  ({ name }) => values.reader === undefined || name === values.reader,
);
if (readers.length === 0) throw new Error(`no reader ${values.reader}`);
const cases = Number(values.cases);
const tallies = new Map<string, Tally>(
  readers.map(({ name }) => [name, { next: Number(values.from), outcomes: new Map() }]),
);
const findings: FoundCase[] = [];
let worker = new Worker();

async function turn(name: string, tally: Tally): Promise<void> {
  const count = Number(values.from) + cases - tally.next;
  if (count <= 0) return;
  const order = { reader: name, seed, from: tally.next, count, milliseconds: TURN_MS };
  let report: Report;
  try {
    report = await worker.run(order);
  } catch (error) {
    worker.end();
    worker = new Worker();
    const at = Number(readFileSync(progressFile, "utf8"));
    report = { next: at + 1, outcomes: {}, finding: (error as Error).message };
  }
  tally.next = report.next;
  for (const [outcome, times] of Object.entries(report.outcomes)) {
    tally.outcomes.set(outcome, (tally.outcomes.get(outcome) ?? 0) + times);
  }
  if (report.finding !== undefined) keep(name, report.next - 1, report.finding);
}

/** Prints a finding, and keeps its files. */
function keep(name: string, index: number, what: string): void {
  findings.push({ reader: name, index, what });
  const reader = readers.find((one) => one.name === name)!;
  makeCase(reader, join(values.output, `${name}-${seed}-${index}`), randomOf(seed, name, index));
  console.log(`${name}, case ${index}: ${what}`);
}

const isDone = () => [...tallies.values()].every(({ next }) => next >= Number(values.from) + cases);
while (performance.now() < deadline && !isDone()) {
  for (const [name, tally] of tallies) await turn(name, tally);
  writeFileSync(join(values.output, `seed-${seed}.json`), summary());
}
worker.end();

function summary(): string {
  const table = [...tallies].map(([name, { next, outcomes }]) => [
    name,
    { cases: next - Number(values.from), outcomes: Object.fromEntries(outcomes) },
  ]);
  return JSON.stringify({ seed, readers: Object.fromEntries(table), findings }, null, 2);
}

for (const [name, { next, outcomes }] of tallies) {
  const shown = [...outcomes].sort((a, b) => b[1] - a[1]).map(([what, n]) => `${what} ${n}`);
  const count = next - Number(values.from);
  console.log(`${name.padEnd(20)} ${String(count).padStart(9)} cases: ${shown.join(", ")}`);
}
console.log(`${findings.length} findings, seed ${seed}`);
process.exitCode = findings.length === 0 ? 0 : 1;
