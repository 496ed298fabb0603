// The results file: one JSON line per run, appended as runs end, so that an interrupted laboratory goes on
// where it stopped. Of two lines of the same run the later one counts.

import { appendFileSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import { dirname } from "node:path";
import type { RunRecord } from "./run.js";

const keyOf = (stream: string, seed: number, contender: string, samples: number) =>
  `${stream}|${seed}|${contender}|${samples}`;

export class Results {
  readonly #path: string;
  readonly #records = new Map<string, RunRecord>();

  constructor(path: string) {
    this.#path = path;
    mkdirSync(dirname(path), { recursive: true });
    if (!existsSync(path)) return;
    for (const line of readFileSync(path, "utf8").split("\n")) {
      // The last line of a killed run may be half a line; its run is repeated.
      if (!line.endsWith("}")) continue;
      this.#keep(JSON.parse(line) as RunRecord);
    }
  }

  get(stream: string, seed: number, contender: string, samples: number): RunRecord | undefined {
    return this.#records.get(keyOf(stream, seed, contender, samples));
  }

  add(record: RunRecord): void {
    this.#keep(record);
    appendFileSync(this.#path, `${JSON.stringify(record)}\n`);
  }

  all(): readonly RunRecord[] {
    return [...this.#records.values()];
  }

  #keep(record: RunRecord): void {
    const { stream, seed, contender, samples } = record;
    this.#records.set(keyOf(stream, seed, contender, samples), record);
  }
}
