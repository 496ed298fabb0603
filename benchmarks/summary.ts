// The table of the README: what users choose by.
import { isBusy } from "./machine.js";
import type { Results, Row, TrialResult } from "./results.js";
import { formatTime, toThreeDigits } from "./table.js";

/** Times and memory of the pairs that the bars of a set compare with PyTorch, as Markdown. */
export function summaryToMarkdown(results: Results): string {
  const { date, machine, python } = results;
  const rows = results.trials.flatMap(compare);
  const table = [
    ["", "loko", "PyTorch", "", "peak memory"],
    ["---", "---:", "---:", "---:", "---:"],
    ...rows,
  ].map((cells) => `| ${cells.join(" | ")} |`);
  const versions = python === null ? "" : `, PyTorch ${python.torch}, PEFT ${python.peft}`;
  const busy = isBusy(machine) ? " The machine was busy: not worth quoting." : "";
  return [
    ...table,
    "",
    `Median step, batch 1; memory of the whole process, ours over PyTorch's. ${date}, ${machine.cpu}, ` +
      `${machine.cores} cores (${machine.isa}), Node ${machine.node.replace("v", "")}${versions}.${busy}`,
  ].join("\n");
}

function compare({ trial, rows, bars }: TrialResult): string[][] {
  const find = (name?: string) => rows.find(({ contender }) => contender === name);
  return bars.flatMap(({ metric, of, against }) => {
    const [ours, theirs] = [find(of), find(against)];
    if (metric !== "time" || !against?.startsWith("torch") || !ours || !theirs) return [];
    return [[describe(trial, of, against), ...figures(ours, theirs)]];
  });
}

function figures(ours: Row, theirs: Row): string[] {
  const memory = theirs.stepPeakBytes > 0 ? ours.stepPeakBytes / theirs.stepPeakBytes : undefined;
  return [
    formatTime(ours.medianSeconds),
    formatTime(theirs.medianSeconds),
    `${toThreeDigits(ours.medianSeconds / theirs.medianSeconds)} ×`,
    memory === undefined ? "" : `${toThreeDigits(memory)} ×`,
  ];
}

const WORK: ReadonlyMap<string, string> = new Map([
  ["torch adamw", "AdamW step"],
  ["torch predict", "prediction"],
  ["torch loko loop", "LoKO step; PyTorch: a backward pass for each class"],
  ["torch loko batched", "LoKO step; PyTorch: `is_grads_batched`"],
]);

const DEFAULT_AGAINST: ReadonlyMap<string, string> = new Map([
  ["torch adamw", "step of `new LoKO(model)`; PyTorch: its AdamW step"],
  ["torch loko batched", "step of `new LoKO(model)`; PyTorch: LoKO with `is_grads_batched`"],
]);

function describe(trial: TrialResult["trial"], of: string, against: string) {
  const { model, tokens, classes, threads } = trial;
  const size = tokens === undefined ? "" : `, ${tokens} tokens`;
  const cores = `${threads} thread${threads === 1 ? "" : "s"}`;
  const work = of === "loko default" ? DEFAULT_AGAINST.get(against) : WORK.get(against);
  return `${model}${size}, ${classes} classes, ${cores}: ${work ?? against}`;
}
