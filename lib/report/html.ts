import { type Chart, escapeHtml, renderChart, type Series } from "./chart.js";

/** Numbers by their names, and the step that they are of. */
export type ReportEntry = Readonly<Record<string, number>>;

export interface Report {
  readonly title: string;
  /** Rows of the table: what it is called, and its value. */
  readonly facts: readonly (readonly [string, string])[];
  /** As in `log_history` of a trainer_state.json. */
  readonly log: readonly ReportEntry[];
}

interface Panel extends Omit<Chart, "series"> {
  /** Keys of the log, and what they are called. */
  readonly lines: Readonly<Record<string, string>>;
}

const PANELS: readonly Panel[] = [
  { title: "Loss", lines: { loss: "training, before each step", eval_loss: "held-out" } },
  {
    title: "Accuracy",
    lines: {
      online_accuracy: "online, all samples so far",
      window_accuracy: "online, since the last entry",
      eval_accuracy: "held-out",
    },
  },
  { title: "Rows used (cotangents of a backward pass)", lines: { rows: "rows" } },
  {
    title: "Covariance p of the parameters",
    isLogarithmic: true,
    lines: { p_mean: "mean", p_max: "largest", p_min: "smallest" },
  },
  {
    title: "Gain: by how much the covariance was scaled",
    isLogarithmic: true,
    lines: { gain: "gain" },
  },
  {
    title: "Observation noise, trace(R)",
    isLogarithmic: true,
    lines: { trace_r: "trace(R)" },
  },
  { title: "Normalised innovation squared", isLogarithmic: true, lines: { nis: "per row" } },
  { title: "Learning rate", lines: { learning_rate: "learning rate" } },
  { title: "Gradient norm, before clipping", lines: { grad_norm: "norm" } },
];

const STYLE = `
:root { color-scheme: light dark; --ink: #1c2330; --dim: #667; --grid: #e2e5ea; --page: #fff;
  --c0: #2563a8; --c1: #d0602a; --c2: #3b8a4a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --dim: #9aa3b2; --grid: #343b47; --page: #15191f;
  --c0: #6ea8e6; --c1: #f0935f; --c2: #7cc98a; } }
body { margin: 2rem auto; max-width: 75rem; padding: 0 1.5rem; color: var(--ink); background: var(--page);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; }
table { border-collapse: collapse; margin-bottom: 1.5rem; }
th { text-align: left; font-weight: 400; color: var(--dim); padding: 0.1rem 1.5rem 0.1rem 0; vertical-align: top; }
td { overflow-wrap: anywhere; }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); gap: 1.5rem; }
figure { margin: 0; }
figcaption { font-weight: 600; }
svg { width: 100%; height: auto; }
svg text { font-size: 12px; fill: var(--dim); }
svg line { stroke: var(--grid); }
polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
ul { display: flex; flex-wrap: wrap; gap: 0 1.2rem; list-style: none; margin: 0; padding: 0; font-size: 13px; }
li::before { content: ""; display: inline-block; width: 1em; height: 0.25em; margin-right: 0.4em;
  vertical-align: middle; background: currentColor; }
li b { color: var(--ink); }
.s0 { stroke: var(--c0); } .s1 { stroke: var(--c1); } .s2 { stroke: var(--c2); }
li.s0, circle.s0 { color: var(--c0); fill: var(--c0); } li.s1, circle.s1 { color: var(--c1); fill: var(--c1); }
li.s2, circle.s2 { color: var(--c2); fill: var(--c2); }
`;

/** A page that needs nothing beside itself: no script, no font, no connection. */
export function renderReport({ title, facts, log }: Report): string {
  const rows = facts.map(
    ([name, value]) => `<tr><th>${escapeHtml(name)}</th><td>${escapeHtml(value)}</td></tr>`,
  );
  const charts = PANELS.map(({ lines, ...panel }) =>
    renderChart({ ...panel, series: seriesOf(lines, log) }),
  ).join("");
  const body = charts === "" ? "<p>Nothing has been logged yet.</p>" : charts;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${escapeHtml(title)}</h1>
<table>
${rows.join("\n")}
</table>
<main>
${body}</main>
</body>
</html>
`;
}

function seriesOf(lines: Panel["lines"], log: readonly ReportEntry[]): Series[] {
  return Object.entries(lines).map(([key, name]) => ({
    name,
    points: log.flatMap((entry) => {
      const { step } = entry;
      const value = entry[key];
      return Number.isFinite(value) && step !== undefined ? [[step, value!] as const] : [];
    }),
  }));
}
