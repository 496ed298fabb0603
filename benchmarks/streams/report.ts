// What the laboratory prints: LoKO and its variants beside the best baseline of each stream.

import { BASELINES } from "./contenders.js";
import type { Plan } from "./laboratory.js";
import type { Results } from "./results.js";
import { bestBaseline, byContender, collapses, estimate, lastQuarter, online } from "./summary.js";

const baselines = new Set(BASELINES.map(({ name }) => name));
export const isBaseline = (name: string) => baselines.has(name);

export function printTable(plan: Plan, results: Results): void {
  const names = plan.contenders;
  const rows = plan.streams.map(({ name: stream }) => {
    const records = results.all().filter((r) => r.stream === stream && r.samples === plan.length);
    const groups = byContender(records);
    const best = bestBaseline(groups, isBaseline);
    return { stream, groups, best };
  });
  const head = ["stream", "best baseline", "", ...names];
  console.log(`\n| ${head.join(" | ")} |\n|${" --- |".repeat(head.length)}`);
  for (const { stream, groups, best } of rows) {
    const cells = names.map((name) => cell(groups.get(name), groups.get("frozen")));
    console.log(
      `| ${stream} | ${best?.[0]?.contender ?? ""} | ${cell(best, groups.get("frozen"))} | ${cells.join(" | ")} |`,
    );
  }
  const lead = names.map((name) => {
    const gains = rows.flatMap(({ groups, best }) => {
      const own = groups.get(name);
      if (own === undefined || best === undefined) return [];
      return [estimate(own.map(online)).mean - estimate(best.map(online)).mean];
    });
    return gains.length === 0
      ? ""
      : `${(gains.reduce((a, b) => a + b) / gains.length).toFixed(2)}, least ${Math.min(...gains).toFixed(2)}`;
  });
  console.log(`| lead | | | ${lead.join(" | ")} |`);
}

function cell(
  records: Parameters<typeof bestBaseline>[0] extends ReadonlyMap<string, infer R>
    ? R | undefined
    : never,
  frozen: typeof records,
): string {
  if (records === undefined) return "";
  const { mean } = estimate(records.map(online));
  const fallen = frozen === undefined ? 0 : collapses(records, frozen).length;
  return `${mean.toFixed(1)} / ${estimate(records.map(lastQuarter)).mean.toFixed(1)}${fallen ? ` !${fallen}` : ""}`;
}
