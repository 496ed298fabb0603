/**
 * The stream laboratory (docs/streams.md).
 *
 *     npm run streams -- --quick           one seed, every other learning rate: 200 s on two cores (--jobs 2)
 *     npm run streams                      five seeds; all baselines on the first, the best six on the others
 *     npm run streams -- --all             all baselines on every seed
 *     npm run streams -- --publish         tables, plot and summary of the results into docs/ and benchmarks/results
 *     npm run streams -- --use tuning --only LoKO --try 'calm={"tau":1}'
 */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import type { LoKOOptions } from "loko";
import { BASELINES } from "./contenders.js";
import { type Plan, runMissing, runTested } from "./laboratory.js";
import { publish } from "./publish.js";
import { printReport } from "./report.js";
import { Results } from "./results.js";
import { STREAM_LENGTH, STREAMS } from "./streams.js";

const ROOT = resolve(import.meta.dirname, "../../..");

const SCREENING_SEEDS = 1;
const FINALISTS = 6;

const { values } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    all: { type: "boolean", default: false },
    use: { type: "string" },
    stream: { type: "string", default: "" },
    only: { type: "string" },
    try: { type: "string", multiple: true, default: [] },
    seeds: { type: "string" },
    samples: { type: "string", default: String(STREAM_LENGTH) },
    jobs: { type: "string", default: "1" },
    assets: { type: "string", default: join(ROOT, "build/streams/assets") },
    results: { type: "string", default: join(ROOT, "build/streams/results.jsonl") },
    report: { type: "boolean", default: false },
    publish: { type: "boolean", default: false },
  },
});

function readPlan(): Plan {
  const variants: Record<string, LoKOOptions> = {};
  for (const text of values.try) {
    const [name, options] = [text.slice(0, text.indexOf("=")), text.slice(text.indexOf("=") + 1)];
    variants[name] = JSON.parse(options) as LoKOOptions;
  }
  const rates = BASELINES.filter((_, i) => !values.quick || i % 2 === 0).map(({ name }) => name);
  const names = ["frozen", "LoKO", ...Object.keys(variants)];
  const only = values.only?.split(",");
  const isWanted = (name: string) => only === undefined || only.includes(name);
  return {
    assets: values.assets,
    streams: STREAMS.filter(
      ({ name, use }) =>
        (values.use === undefined || use === values.use) && name.includes(values.stream),
    ),
    contenders: names.filter((name) => isWanted(name) || name in variants),
    baselines: rates.filter((name) => isWanted(name)),
    screening: values.all ? Number.MAX_SAFE_INTEGER : SCREENING_SEEDS,
    finalists: FINALISTS,
    variants,
    seeds: Array.from({ length: Number(values.seeds ?? (values.quick ? 1 : 5)) }, (_, i) => i),
    length: Number(values.samples),
    jobs: Number(values.jobs),
  };
}

const plan = readPlan();
const missing = plan.streams.find(({ model }) => !existsSync(join(plan.assets, model)));
if (missing !== undefined) {
  console.error(
    `${plan.assets} has no ${missing.model}: run python benchmarks/streams/make_assets.py --out ${plan.assets}`,
  );
  process.exit(2);
}
const results = new Results(values.results);
if (!values.report && !values.publish) {
  await runMissing(plan, results);
  if (values.only === undefined) await runTested(plan, results);
}
if (values.publish) await publish(ROOT, plan, results);
else printReport(plan, results);
