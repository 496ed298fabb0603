import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";
import type { Results, Row, TrialResult } from "./results.js";
import { describeTrial, formatTime } from "./table.js";

const OURS = "#c2410c";
const THEIRS = "#6b7280";

/** Step times, or memory, of all contenders of a trial as bars: a standalone SVG. */
export function trialPlot(result: TrialResult, what: "time" | "memory", date: string): string {
  const bars = result.rows.map((row) => ({ name: row.contender, ...measured(row, what) }));
  const { document } = parseHTML("<!doctype html><body></body>");
  const largest = Math.max(...bars.map(({ value }) => value));
  const figure = Plot.plot({
    document,
    width: 760,
    height: 96 + 26 * bars.length,
    marginTop: 58,
    marginLeft: 176,
    marginRight: 24,
    marginBottom: 36,
    style: { fontSize: "13px", background: "white" },
    x: {
      label: what === "time" ? "median step (ms)" : "peak resident memory of the steps (MB)",
      labelAnchor: "center",
      labelArrow: "none",
      domain: [0, 1.14 * largest],
      grid: true,
    },
    y: { label: null, domain: bars.map(({ name }) => name), tickSize: 0 },
    marks: [
      Plot.text([describeTrial(result)], {
        frameAnchor: "top-left",
        dx: -168,
        dy: -46,
        fontSize: 14,
        fontWeight: "bold",
      }),
      Plot.text([`measured ${date}`], {
        frameAnchor: "top-left",
        dx: -168,
        dy: -26,
        fill: THEIRS,
      }),
      Plot.barX(bars, { x: "value", y: "name", fill: "colour" }),
      Plot.text(bars, { x: "value", y: "name", text: "label", textAnchor: "start", dx: 6 }),
      Plot.ruleX([0]),
    ],
  });
  const svg = figure.tagName.toLowerCase() === "svg" ? figure : figure.querySelector("svg")!;
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return `<?xml version="1.0" encoding="UTF-8"?>\n${svg.outerHTML}\n`;
}

function measured(row: Row, what: "time" | "memory") {
  const megabytes = row.stepPeakBytes / 2 ** 20;
  return {
    colour: row.contender.startsWith("loko") ? OURS : THEIRS,
    value: what === "time" ? 1000 * row.medianSeconds : megabytes,
    label: what === "time" ? formatTime(row.medianSeconds) : megabytes.toFixed(0),
  };
}

/** All plots of a run by file name: time and memory of each trial in which several race. */
export function drawPlots({ trials, date }: Results): Map<string, string> {
  const plots = new Map<string, string>();
  for (const result of trials) {
    if (result.rows.length < 2) continue;
    for (const what of ["time", "memory"] as const) {
      plots.set(`${result.trial.name}-${what}.svg`, trialPlot(result, what, date));
    }
  }
  return plots;
}
