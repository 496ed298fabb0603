// A child process of the laboratory: takes groups of runs over one stream and seed, reports each.

import { availableContenders } from "./laboratory.js";
import { runOnce } from "./run.js";
import { STREAMS } from "./streams.js";

/** What the parent asks for. */
export interface Group {
  readonly stream: string;
  readonly seed: number;
  readonly contenders: readonly string[];
  /** Whether the models are tested on held-out samples while they learn. */
  readonly isTested: boolean;
}

const [assets, length, variants] = process.argv.slice(2) as [string, string, string];
const contenders = availableContenders(JSON.parse(variants));

process.on("message", async (group: Group) => {
  const definition = STREAMS.find(({ name }) => name === group.stream)!;
  for (const name of group.contenders) {
    const contender = contenders.find((known) => known.name === name)!;
    process.send!(
      await runOnce(assets, definition, contender, group.seed, Number(length), group.isTested),
    );
  }
  process.send!("idle");
});
process.send!("idle");
