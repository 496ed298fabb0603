// The tables of the laboratory in Markdown: LoKO and its variants beside the best baseline of each stream.

import { BASELINES } from "./contenders.js";
import type { Plan } from "./laboratory.js";
import type { Results } from "./results.js";
import type { RunRecord } from "./run.js";
import type { StreamDefinition } from "./streams.js";
import {
  bestBaseline,
  byContender,
  collapses,
  type Estimate,
  estimate,
  heldOutCurve,
  lastQuarter,
  online,
  samplesOnCurve,
  samplesToReach,
  secondHalf,
} from "./summary.js";

const baselines = new Set(BASELINES.map(({ name }) => name));

/** What is known of a stream. */
export interface StreamReport {
  readonly definition: StreamDefinition;
  readonly groups: ReadonlyMap<string, RunRecord[]>;
  /** The runs of the gradient method and learning rate with the best mean; with hindsight. */
  readonly best: readonly RunRecord[] | undefined;
}

export function reportStreams(plan: Plan, results: Results): readonly StreamReport[] {
  return plan.streams.map((definition) => {
    const groups = byContender(
      results.all().filter((r) => r.stream === definition.name && r.samples === plan.length),
    );
    // A mean over fewer seeds is another one: only who ran on all of them can be the best.
    const runs = [...groups].filter(([name]) => baselines.has(name)).map(([, list]) => list.length);
    const whole = new Map([...groups].filter(([, list]) => list.length >= Math.max(...runs)));
    return { definition, groups, best: bestBaseline(whole, (name) => baselines.has(name)) };
  });
}

/** The runs of a contender and those of the best baseline on the same seeds. */
function paired({ groups, best }: StreamReport, name: string) {
  const own = groups.get(name) ?? [];
  const seeds = new Set(own.map(({ seed }) => seed));
  const other = (best ?? []).filter(({ seed }) => seeds.has(seed));
  return { own: own.filter(({ seed }) => other.some((r) => r.seed === seed)), other };
}

/** By how many points a contender is above the best baseline, over the seeds that both ran on. */
export function leadOf(
  report: StreamReport,
  name: string,
  figure: (record: RunRecord) => number = online,
): Estimate | undefined {
  const { own, other } = paired(report, name);
  if (own.length === 0) return undefined;
  return estimate(own.map((record, i) => figure(record) - figure(other[i]!)));
}

const points = ({ mean, half }: Estimate) =>
  `${mean.toFixed(1)}${Number.isNaN(half) ? "" : ` ± ${half.toFixed(1)}`}`;
const signed = (value: number) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}`;
const accuracyOf = (records: readonly RunRecord[] | undefined) =>
  records === undefined || records.length === 0 ? "" : points(estimate(records.map(online)));
const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const rule = `| ${head.map((_, i) => (i === 0 ? "---" : "---:")).join(" | ")} |`;
  return [line(head), rule, ...rows.map(line)].join("\n");
}

/** Online accuracy of LoKO, the frozen model and the best baseline on each stream. */
export function streamTable(reports: readonly StreamReport[]): string {
  const rows = reports.map((report) => {
    const { definition, groups, best } = report;
    const lead = leadOf(report, "LoKO");
    const half = leadOf(report, "LoKO", secondHalf);
    return [
      `${definition.name}${definition.use === "tuning" ? " (tuning)" : ""}`,
      accuracyOf(groups.get("frozen")),
      best?.[0]?.contender ?? "",
      accuracyOf(best),
      accuracyOf(groups.get("LoKO")),
      lead === undefined ? "" : `${signed(lead.mean)} ± ${lead.half.toFixed(1)}`,
      half === undefined ? "" : signed(half.mean),
    ];
  });
  return table(
    ["stream", "frozen", "best baseline", "its accuracy", "LoKO", "lead", "lead, 2nd half"],
    rows,
  );
}

/** Means over streams: who leads by how much, where least, and how often a run collapses. */
export function contenderTable(reports: readonly StreamReport[], names: readonly string[]): string {
  // A mean over some of the streams cannot stand beside one over all of them.
  const whole = names.filter((name) => reports.every(({ groups }) => groups.has(name)));
  const rows = [...whole, ...fixedBaselines(reports)].map((name) => {
    const cells = (["tuning", "reporting"] as const).flatMap((use) => {
      const leads = reports
        .filter(({ definition }) => definition.use === use)
        .map((report) => leadOf(report, name)?.mean)
        .filter((lead) => lead !== undefined);
      return leads.length === 0 ? ["", ""] : [signed(mean(leads)), signed(Math.min(...leads))];
    });
    const runs = reports.map(({ groups }) => groups.get(name) ?? []);
    const fallen = reports.map(
      ({ groups }) => collapses(groups.get(name) ?? [], groups.get("frozen") ?? []).length,
    );
    const all = runs.reduce((sum, list) => sum + list.length, 0);
    return [name, ...cells, `${fallen.reduce((a, b) => a + b, 0)} of ${all}`];
  });
  return table(
    ["contender", "tuning: mean", "least", "reporting: mean", "least", "collapses"],
    rows,
  );
}

/** Baselines with one learning rate for all streams, as a user without hindsight has it; the best few. */
function fixedBaselines(reports: readonly StreamReport[]): readonly string[] {
  return [...baselines]
    .flatMap((name) => {
      const leads = reports.map((report) => leadOf(report, name)?.mean);
      if (leads.some((lead) => lead === undefined)) return [];
      return [{ name, lead: mean(leads as number[]) }];
    })
    .sort((a, b) => b.lead - a.lead)
    .slice(0, 3)
    .map(({ name }) => name);
}

/** A stream whose task stays the same to the end, and which the best baseline learns by at least two points. */
function isLearned({ definition, groups, best }: StreamReport): boolean {
  const frozen = groups.get("frozen");
  if (best === undefined || frozen === undefined || definition.drifts) return false;
  if (definition.order === "incremental") return false;
  return estimate(best.map(lastQuarter)).mean >= estimate(frozen.map(lastQuarter)).mean + 2;
}

/** From which share of the stream on its task is the last one. */
const lastTask = ({ order }: StreamDefinition) => (order === "permuted-half-way" ? 0.5 : 0);

/** Samples that the best baseline and LoKO need to reach an accuracy. */
interface Needed {
  readonly stream: string;
  readonly target: number;
  readonly theirs: number;
  readonly ours: number | undefined;
}

const samplesHead = ["stream", "accuracy to reach", "best baseline", "LoKO", "ratio"];

function samplesTable(needed: readonly Needed[]): string {
  const rows = needed.map(({ stream, target, theirs, ours }) => [
    stream,
    target.toFixed(1),
    String(theirs),
    ours === undefined ? "" : String(ours),
    ours === undefined ? "not reached" : (ours / theirs).toFixed(2),
  ]);
  return table(samplesHead, rows);
}

/** Samples until the accuracy on held-out samples reaches that of the best baseline in the last quarter. */
export function heldOutRatios(reports: readonly StreamReport[]): string {
  return samplesTable(
    reports.filter(isLearned).flatMap(({ definition, groups, best }) => {
      const theirs = heldOutCurve(best!);
      const ours = heldOutCurve(groups.get("LoKO") ?? []);
      if (theirs.length === 0 || ours.length === 0) return [];
      const target = estimate(theirs.slice(Math.ceil(0.75 * theirs.length))).mean;
      const needed = samplesOnCurve(theirs, target, lastTask(definition));
      if (needed === undefined) return [];
      const own = samplesOnCurve(ours, target, lastTask(definition));
      return [{ stream: definition.name, target, theirs: needed, ours: own }];
    }),
  );
}

/** Samples until the moving accuracy of the stream itself reaches that of the best baseline's last quarter. */
export function sampleRatios(reports: readonly StreamReport[]): string {
  return samplesTable(
    reports.filter(isLearned).flatMap(({ definition, groups, best }) => {
      const own = groups.get("LoKO");
      if (own === undefined) return [];
      const target = estimate(best!.map(lastQuarter)).mean;
      const from = lastTask(definition);
      const start = from * own[0]!.samples;
      const theirs = samplesToReach(best!, target, from);
      const ours = samplesToReach(own, target, from);
      if (theirs === undefined) return [];
      return [
        {
          stream: definition.name,
          target,
          theirs: theirs - start,
          ours: ours === undefined ? undefined : ours - start,
        },
      ];
    }),
  );
}

export function printReport(plan: Plan, results: Results): void {
  const reports = reportStreams(plan, results);
  console.log(`\n${streamTable(reports)}\n\n${contenderTable(reports, plan.contenders)}\n`);
  console.log(`${sampleRatios(reports)}\n\n${heldOutRatios(reports)}`);
}
