import { join } from "node:path";
import type { Evaluation } from "../metrics/accumulator.js";
import type { Model } from "../model.js";
import { duration } from "../report/progress.js";
import type { CheckedData, Feed } from "./feed.js";
import { describeOptimizer } from "./optimizers.js";
import { count, counted, printFacts, printLine, printTable } from "./output.js";
import type { TrainPlan, TrainResults } from "./training.js";

const MAX_LABELS = 6;

/** What will run, before it runs. */
export async function printPlan({ options, session, train, ...plan }: TrainPlan): Promise<void> {
  const { model } = session;
  const { batchSize, epochs } = options;
  await printFacts([
    ["model", `${options.model} (${model.modelType})`],
    ["labels", describeOutputs(model)],
    ["new weights", model.newWeights.join(", ") || undefined],
    ["parameters", describeParameters(model)],
    ["adapter", describeAdapter(model, options.adapter)],
    ["train", describeData(train, session.feed)],
    ["eval", plan.eval && describeData(plan.eval, session.feed)],
    ["optimizer", describeOptimizer(options)],
    ["steps", `${count(plan.steps)}, batch size ${batchSize}, ${counted(epochs, "epoch")}`],
    ["output", options.output],
  ]);
}

function describeData({ path, rows, classes }: CheckedData, { noun }: Feed): string {
  const data = `${path}: ${counted(rows, noun)}`;
  return classes === undefined ? data : `${data}, classes ${describeLabels(classes)}`;
}

function describeOutputs({ id2label, numLabels, problemType }: Model): string {
  if (problemType === "regression") return `${counted(numLabels, "number")} (regression)`;
  return describeLabels(id2label);
}

export function describeLabels(labels: readonly string[]): string {
  const more = labels.length > MAX_LABELS ? ", …" : "";
  return `${labels.length}: ${labels.slice(0, MAX_LABELS).join(", ")}${more}`;
}

export function describeParameters(model: Model): string {
  const { trainable, all } = model.parameterCounts();
  const percent = ((100 * trainable) / all).toFixed(2);
  return `${count(trainable)} trainable of ${count(all)} (${percent} %)`;
}

function describeAdapter(model: Model, continued: string | undefined): string {
  const modules = model
    .parameters()
    .filter(({ group }) => group === "loraA")
    .map(({ name, shape }) => ({ name: name.split(".").at(-3)!, r: shape[0]! }));
  const names = [...new Set(modules.map(({ name }) => name))];
  const ranks = [...new Set(modules.map(({ r }) => r))];
  const what = `LoRA r ${ranks.join(", ")} on ${counted(modules.length, "module")} (${names.join(", ")})`;
  return continued === undefined ? what : `${what}, continued from ${continued}`;
}

/** What came of it. */
export async function printResults(
  results: TrainResults,
  { options, steps }: TrainPlan,
): Promise<void> {
  const rows = results.online.map(({ epoch, ...online }): [string, Evaluation] => [
    `online, epoch ${epoch}`,
    online,
  ]);
  if (results.eval !== undefined) rows.push(["held-out", results.eval]);
  await printLine("");
  if (rows.length > 0) {
    await printEvaluations(rows);
    await printLine("");
  }
  await printFacts([
    ["time", `${describeTime(results.seconds)} for ${describeSteps(results)}`],
    ["skipped", describeSkips(results.skipped)],
    ["stopped", describeStop(results, steps, options)],
    ["saved", `${join(options.output, "adapter_model.safetensors")} and results.json`],
  ]);
}

/** Those that the time was for, and those before. */
function describeSteps({ steps, resumedFrom }: TrainResults): string {
  const here = counted(steps - (resumedFrom?.step ?? 0), "step");
  return resumedFrom === undefined
    ? here
    : `${here}, going on from step ${count(resumedFrom.step)}`;
}

/** What did not happen any more. */
function describeStop(
  { status, steps, eval: held }: TrainResults,
  planned: number,
  options: TrainPlan["options"],
): string | undefined {
  if (status === "interrupted") {
    return `after ${count(steps)} of ${counted(planned, "step")}; the adapter so far is complete`;
  }
  return options.eval !== undefined && held === undefined
    ? "before the evaluation of --eval was over; the training is complete"
    : undefined;
}

function describeSkips(skipped: TrainResults["skipped"]): string | undefined {
  const entries = Object.entries(skipped);
  if (entries.length === 0) return undefined;
  const total = entries.reduce((sum, [, times]) => sum + times, 0);
  const reasons = entries.map(([reason, times]) => `${reason} ${count(times)}`).join(", ");
  return `${counted(total, "step")} that learned nothing: ${reasons}`;
}

function describeTime(seconds: number): string {
  return seconds < 60 ? `${seconds.toFixed(1)} s` : duration(seconds);
}

/** One line for each evaluation, one column for each number. */
export function printEvaluations(
  rows: readonly (readonly [string, Evaluation])[],
): Promise<boolean> {
  const { samples: _, ...first } = rows[0]![1];
  const names = Object.keys(first) as (keyof Evaluation)[];
  const header = ["", "samples", ...names];
  const cells = rows.map(([title, evaluation]) => [
    title,
    count(evaluation.samples),
    ...names.map((name) => format(evaluation[name])),
  ]);
  return printTable([header, ...cells]);
}

function format(value: number | undefined): string {
  return value === undefined ? "" : Number.isFinite(value) ? value.toFixed(4) : String(value);
}
