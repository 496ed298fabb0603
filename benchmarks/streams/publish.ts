// Writes what the results say into docs/streams.md, docs/streams.svg and benchmarks/results/streams.json.

import { readFile, writeFile } from "node:fs/promises";
import { arch, cpus } from "node:os";
import { join } from "node:path";
import type { Plan } from "./laboratory.js";
import { streamsPlot } from "./plot.js";
import {
  contenderTable,
  heldOutRatios,
  reportStreams,
  sampleRatios,
  streamTable,
} from "./report.js";
import type { Results } from "./results.js";
import { estimate, heldOutCurve, lastQuarter, online, secondHalf } from "./summary.js";

const rounded = (value: number) => Number(value.toFixed(2));

export async function publish(root: string, plan: Plan, results: Results): Promise<void> {
  const reports = reportStreams(plan, results);
  const variants = [...new Set(results.all().map(({ family }) => family))].filter((family) =>
    results.all().some((r) => r.family === family && r.contender === family),
  );
  const sections: Readonly<Record<string, string>> = {
    streams: streamTable(reports),
    contenders: contenderTable(reports, variants),
    "held-out": heldOutRatios(reports),
    samples: sampleRatios(reports),
  };
  const path = join(root, "docs/streams.md");
  let text = await readFile(path, "utf8");
  for (const [name, table] of Object.entries(sections)) text = between(text, name, table);
  await writeFile(path, text);
  await writeFile(join(root, "docs/streams.svg"), streamsPlot(reports));
  const summary = {
    samples: plan.length,
    machine: { cpu: cpus()[0]?.model, arch: arch(), node: process.version },
    streams: reports.map(({ definition, groups, best }) => ({
      ...definition,
      bestBaseline: best?.[0]?.contender,
      contenders: [...groups].map(([name, records]) => ({
        name,
        seeds: records.map(({ seed }) => seed),
        online: records.map((r) => rounded(online(r))),
        secondHalf: records.map((r) => rounded(secondHalf(r))),
        lastQuarter: records.map((r) => rounded(lastQuarter(r))),
        heldOut: heldOutCurve(records).map(rounded),
        rows: rounded(estimate(records.map(({ rows }) => rows)).mean),
      })),
    })),
  };
  const file = join(root, "benchmarks/results/streams.json");
  await writeFile(file, `${JSON.stringify(summary)}\n`);
}

function between(text: string, name: string, table: string): string {
  const [begin, end] = [`<!-- ${name}:begin -->`, `<!-- ${name}:end -->`];
  const [from, to] = [text.indexOf(begin), text.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`docs/streams.md lacks ${begin} and ${end}.`);
  return `${text.slice(0, from + begin.length)}\n\n${table}\n\n${text.slice(to)}`;
}
