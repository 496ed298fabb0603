// Runs what is missing in the results, in child processes of one thread each.

import { fork } from "node:child_process";
import { join } from "node:path";
import type { LoKOOptions } from "loko";
import { BASELINES, type Contender, FROZEN, loko } from "./contenders.js";
import { reportStreams } from "./report.js";
import type { Results } from "./results.js";
import type { RunRecord } from "./run.js";
import type { StreamDefinition } from "./streams.js";
import { byContender, estimate, online } from "./summary.js";
import type { Group } from "./worker.js";

export interface Plan {
  readonly assets: string;
  readonly streams: readonly StreamDefinition[];
  /** Who runs whatever the seed. */
  readonly contenders: readonly string[];
  /** Baselines that run on the screening seeds. */
  readonly baselines: readonly string[];
  /** How many of the first seeds all baselines run on; on the others only the {@link finalists}. */
  readonly screening: number;
  readonly finalists: number;
  readonly variants: Readonly<Record<string, LoKOOptions>>;
  readonly seeds: readonly number[];
  readonly length: number;
  readonly jobs: number;
}

export function availableContenders(
  variants: Readonly<Record<string, LoKOOptions>>,
): readonly Contender[] {
  const tried = Object.entries(variants).map(([name, options]) => loko(name, options));
  return [FROZEN, loko("LoKO"), ...tried, ...BASELINES];
}

/**
 * The baselines with the best mean online accuracy over the screening seeds of a stream. Only they run on
 * its other seeds: whoever is far behind on the first ones is not the best in hindsight.
 */
function finalistsOf(plan: Plan, stream: string, results: Results): readonly string[] {
  const screened = results
    .all()
    .filter(
      (r) =>
        r.stream === stream &&
        r.samples === plan.length &&
        plan.seeds.slice(0, plan.screening).includes(r.seed) &&
        plan.baselines.includes(r.contender),
    );
  return [...byContender(screened)]
    .map(([name, records]) => ({ name, mean: estimate(records.map(online)).mean }))
    .sort((a, b) => b.mean - a.mean)
    .slice(0, plan.finalists)
    .map(({ name }) => name);
}

export async function runMissing(plan: Plan, results: Results): Promise<void> {
  const screening = plan.seeds.slice(0, plan.screening);
  const all = () => [...plan.contenders, ...plan.baselines];
  await runGroups(plan, { seeds: screening, isTested: false, who: all }, results);
  const others = plan.seeds.slice(plan.screening);
  const finalists = (stream: string) => [...plan.contenders, ...finalistsOf(plan, stream, results)];
  await runGroups(plan, { seeds: others, isTested: false, who: finalists }, results);
}

/** Runs LoKO and the best baseline of each stream once more, tested on held-out samples while they learn. */
export async function runTested(plan: Plan, results: Results): Promise<void> {
  const best = new Map(
    reportStreams(plan, results).map(({ definition, best }) => [definition.name, best?.[0]]),
  );
  const who = (stream: string) =>
    ["LoKO", best.get(stream)?.contender].filter((n) => n !== undefined);
  await runGroups(plan, { seeds: plan.seeds, isTested: true, who }, results);
}

/** Runs of some contenders on all streams. */
interface Runs {
  readonly seeds: readonly number[];
  readonly isTested: boolean;
  readonly who: (stream: string) => readonly string[];
}

async function runGroups(
  plan: Plan,
  { seeds, isTested, who }: Runs,
  results: Results,
): Promise<void> {
  const isMissing = (stream: string, seed: number, name: string) => {
    const record = results.get(stream, seed, name, plan.length);
    return record === undefined || (isTested && record.heldOut === undefined);
  };
  // Seed by seed, so that an interrupted laboratory has whole seeds.
  const groups: Group[] = seeds.flatMap((seed) =>
    plan.streams.map(({ name: stream }) => ({
      stream,
      seed,
      contenders: who(stream).filter((name) => isMissing(stream, seed, name)),
      isTested,
    })),
  );
  const waiting = groups.filter(({ contenders }) => contenders.length > 0);
  const total = waiting.reduce((sum, { contenders }) => sum + contenders.length, 0);
  if (total === 0) return;
  console.log(`${total} runs of ${plan.length} samples in ${plan.jobs} processes`);
  const started = performance.now();
  let done = 0;
  const progress = (record: RunRecord) => {
    results.add(record);
    done++;
    if (done % Math.ceil(total / 20) !== 0) return;
    const seconds = (performance.now() - started) / 1000;
    const left = Math.ceil((seconds / done) * (total - done));
    console.log(`${done}/${total} runs, ${Math.ceil(seconds)} s, ${left} s left`);
  };
  await Promise.all(Array.from({ length: plan.jobs }, () => work(plan, waiting, progress)));
}

/** One child until nothing waits. */
function work(plan: Plan, waiting: Group[], onRecord: (record: RunRecord) => void): Promise<void> {
  const child = fork(join(import.meta.dirname, "worker.js"), [
    plan.assets,
    String(plan.length),
    JSON.stringify(plan.variants),
  ]);
  return new Promise((resolve, reject) => {
    child.on("message", (message: RunRecord | "idle") => {
      if (message !== "idle") return onRecord(message);
      const next = waiting.shift();
      if (next === undefined) child.disconnect();
      else child.send(next);
    });
    child.on("error", reject);
    child.on("exit", (code) => {
      if (code === 0) resolve();
      else reject(new Error(`A process of the laboratory ended with ${code}.`));
    });
  });
}
