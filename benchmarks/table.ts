// The results as text: columns for a terminal of 100 characters, and Markdown for documents.
import { type Gpu, isBusy } from "./machine.js";
import { type BarResult, isMet, type Results, type Row, type TrialResult } from "./results.js";

export const WIDTH = 100;

interface Column {
  readonly title: string;
  text(row: Row): string;
}

const COLUMNS: readonly Column[] = [
  { title: "contender", text: ({ contender }) => contender },
  { title: "rows", text: ({ rows }) => formatRows(rows) },
  { title: "steps", text: ({ steps }) => String(steps) },
  { title: "median", text: ({ medianSeconds }) => formatTime(medianSeconds) },
  { title: "p95", text: ({ p95Seconds }) => formatTime(p95Seconds) },
  { title: "samples/s", text: ({ samplesPerSecond }) => toThreeDigits(samplesPerSecond) },
  { title: "peak MB", text: ({ stepPeakBytes }) => formatMegabytes(stepPeakBytes) },
  { title: "GFLOP/s", text: ({ gflops }) => toThreeDigits(gflops) },
  { title: "of peak", text: ({ shareOfPeak }) => formatShare(shareOfPeak) },
  { title: "x floor", text: ({ timeOverFloor }) => formatFactor(timeOverFloor) },
];

const formatRows = (rows: number) => (Number.isInteger(rows) ? String(rows) : rows.toFixed(1));
const formatMegabytes = (bytes: number) => (bytes / 2 ** 20).toFixed(0);
const formatShare = (share: number | null) =>
  share === null ? "" : `${(100 * share).toFixed(share < 0.01 ? 2 : 0)} %`;
const formatFactor = (factor: number | null) => (factor === null ? "" : toThreeDigits(factor));

/** Three digits, and never an exponent. */
export function toThreeDigits(value: number): string {
  if (Math.abs(value) >= 100) return value.toFixed(0);
  return value.toFixed(Math.abs(value) >= 10 ? 1 : 2);
}

/** Seconds in the unit that suits them. */
export function formatTime(seconds: number): string {
  if (seconds < 1e-3) return `${toThreeDigits(1e6 * seconds)} µs`;
  if (seconds < 1) return `${toThreeDigits(1e3 * seconds)} ms`;
  return `${toThreeDigits(seconds)} s`;
}

/** What a trial is, in words. */
export function describeTrial({ trial }: TrialResult): string {
  const { model, tokens, classes, rank, targetModules, batch, threads, begun } = trial;
  const { device, precision } = trial;
  return [
    model,
    ...(tokens === undefined ? [] : [`${tokens} tokens`]),
    `${classes} classes`,
    `r = ${rank} on ${targetModules.join(", ")}`,
    `batch ${batch}`,
    device === "cuda" ? `GPU in ${precision}` : `${threads} thread${threads === 1 ? "" : "s"}`,
    ...(begun ? ["has begun to learn"] : []),
  ].join(", ");
}

/** A bar in words: what was measured, what it may be, and whether it is. */
export function describeBar(bar: BarResult): string {
  const { metric, of, against, most, value } = bar;
  const what = {
    time: `${of}: time / ${against}`,
    cpu: `${of}: processor time / ${against}`,
    memory: `${of}: memory / ${against}`,
    losses: `${of}: losses against ${against}`,
    floor: `${of}: time over the floor`,
    microseconds: `${of}: µs a step`,
  }[metric];
  const met = isMet(bar);
  const verdict = met === undefined ? "not measured" : met ? "met" : "MISSED";
  const number = (x: number) => (metric === "losses" ? x.toExponential(1) : toThreeDigits(x));
  return `${what} = ${value === null ? "?" : number(value)} (at most ${number(most)}) ${verdict}`;
}

function describeGpu({ name, driver, clocks, cublasLt }: Gpu): string {
  const { smMHz, memoryMHz, powerLimitW } = clocks ?? {};
  const speed = clocks
    ? `; ${smMHz} and ${memoryMHz} MHz at the start, limit ${powerLimitW} W`
    : "";
  return `${name}, driver ${driver ?? "unknown"}, cuBLASLt ${cublasLt ?? "not found"}${speed}`;
}

/** Where the figures come from, one fact a line. */
export function describeRun({ date, machine, python }: Results): string[] {
  const { cpu, cores, isa, gpu, node, loko, commit, load } = machine;
  const torch =
    python === null
      ? "PyTorch's side left out"
      : `torch ${python.torch}, transformers ${python.transformers}, peft ${python.peft}`;
  return [
    `${date}, ${cpu}, ${cores} cores, ${isa}; load ${load}`,
    ...(gpu ? [describeGpu(gpu)] : []),
    `loko ${loko} at ${commit.slice(0, 12)}${commit.endsWith("+") ? " with changes" : ""}, Node ${node}; ${torch}`,
    ...(isBusy(machine) ? ["Taken on a BUSY machine: no figure here is worth quoting."] : []),
  ];
}

/** The table of one trial for a terminal. */
export function printTrial(result: TrialResult): string {
  const lines = [COLUMNS.map(({ title }) => title), ...result.rows.map(cells)];
  const widths = COLUMNS.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)));
  // The names are to the left, the figures to the right; spare room goes between.
  const spare = WIDTH - widths.reduce((a, b) => a + b) - 1;
  const gap = Math.max(1, Math.min(3, Math.floor(spare / (widths.length - 1))));
  const table = lines.map(([name, ...figures]) =>
    [
      name!.padEnd(widths[0]!),
      ...figures.map((text, i) => text.padStart(widths[i + 1]! + gap)),
    ].join(""),
  );
  return [describeTrial(result), ...table, ...notes(result)].join("\n");
}

/** The same in Markdown. */
export function trialToMarkdown(result: TrialResult): string {
  const line = (texts: readonly string[]) => `| ${texts.join(" | ")} |`;
  const rule = COLUMNS.map((_, column) => (column === 0 ? "---" : "---:"));
  return [
    `**${describeTrial(result)}**`,
    "",
    line(COLUMNS.map(({ title }) => title)),
    line(rule),
    ...result.rows.map((row) => line(cells(row))),
    "",
    ...notes(result).map((note) => `- ${note}`),
  ].join("\n");
}

const cells = (row: Row) => COLUMNS.map((column) => column.text(row));

function notes({ rows, skipped, bars, peakGflops, lossDifferences }: TrialResult): string[] {
  const crossings = rows.flatMap(({ crossingsPerStep }) => crossingsPerStep ?? []);
  const differences = lossDifferences.map(
    ({ of, against, steps, largest }) =>
      `${of} and ${against}: losses of ${steps} steps differ by ${largest.toExponential(1)}`,
  );
  return [
    ...(peakGflops === null ? [] : [`multiply-add peak ${toThreeDigits(peakGflops)} GFLOP/s`]),
    ...(crossings.length === 0 ? [] : [`calls into native code: ${Math.max(...crossings)} a step`]),
    ...differences,
    ...Object.entries(skipped).map(([name, why]) => `${name} left out: ${why}`),
    ...bars.map(describeBar),
  ];
}

const BEGIN = "<!-- results:begin -->";
const END = "<!-- results:end -->";

/** All results as Markdown. */
export function resultsToMarkdown(results: Results): string {
  return [describeRun(results).join("  \n"), ...results.trials.map(trialToMarkdown)].join("\n\n");
}

/** Puts Markdown between the markers of a document. */
export function insertResults(document: string, markdown: string): string {
  const begin = document.indexOf(BEGIN);
  const end = document.indexOf(END);
  if (begin < 0 || end < begin) throw new Error(`The document lacks ${BEGIN} and ${END}.`);
  return `${document.slice(0, begin + BEGIN.length)}\n\n${markdown}\n\n${document.slice(end)}`;
}
