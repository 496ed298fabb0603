import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";
import type { StreamReport } from "./report.js";
import { BLOCK, type RunRecord } from "./run.js";

const COLOURS = { LoKO: "#c2410c", "best baseline": "#1d4ed8", frozen: "#6b7280" } as const;
const COLUMNS = 3;
/** Blocks of the moving mean: 150 samples. */
const WINDOW = 6;

interface Point {
  readonly column: number;
  readonly row: number;
  readonly name: string;
  readonly sample: number;
  readonly accuracy: number;
}

/** Moving accuracy over the samples, a panel per stream, mean over seeds: a standalone SVG. */
export function streamsPlot(reports: readonly StreamReport[]): string {
  const place = (i: number) => ({ column: i % COLUMNS, row: Math.floor(i / COLUMNS) });
  const points = reports.flatMap(({ groups, best }, i) =>
    [
      ["frozen", groups.get("frozen")] as const,
      ["best baseline", best] as const,
      ["LoKO", groups.get("LoKO")] as const,
    ].flatMap(([name, records]) => movingMean(records, { ...place(i), name })),
  );
  const titles = reports.map(({ definition, best }, i) => ({
    ...place(i),
    text: `${definition.name}: ${best?.[0]?.contender ?? ""}`,
  }));
  const { document } = parseHTML("<!doctype html><body></body>");
  const figure = Plot.plot({
    document,
    width: 960,
    height: 60 + 150 * Math.ceil(reports.length / COLUMNS),
    marginTop: 40,
    style: { fontSize: "11px", background: "white" },
    fx: { axis: null },
    fy: { axis: null },
    x: { label: "samples seen", ticks: 3 },
    y: { label: "accuracy of the last 150 (%)", domain: [0, 100], ticks: 3, grid: true },
    color: { domain: Object.keys(COLOURS), range: Object.values(COLOURS), legend: false },
    marks: [
      Plot.frame({ stroke: "#d1d5db" }),
      Plot.line(points, {
        fx: "column",
        fy: "row",
        x: "sample",
        y: "accuracy",
        stroke: "name",
        strokeWidth: 1.5,
      }),
      Plot.text(titles, {
        fx: "column",
        fy: "row",
        text: "text",
        frameAnchor: "top",
        dy: -10,
        fontWeight: "bold",
      }),
      Plot.text(["orange: LoKO, blue: the best baseline (named), grey: frozen"], {
        frameAnchor: "top-left",
        facetAnchor: "top-left",
        dx: 190, // beside the label of the y axis
        dy: -37,
      }),
    ],
  });
  const svg = figure.tagName.toLowerCase() === "svg" ? figure : figure.querySelector("svg")!;
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return `<?xml version="1.0" encoding="UTF-8"?>\n${svg.outerHTML}\n`;
}

function movingMean(
  records: readonly RunRecord[] | undefined,
  rest: Pick<Point, "column" | "row" | "name">,
): Point[] {
  if (records === undefined || records.length === 0) return [];
  const blocks = records[0]!.hits.length;
  return Array.from({ length: blocks - WINDOW + 1 }, (_, i) => {
    const hits = records.reduce(
      (sum, r) => sum + r.hits.slice(i, i + WINDOW).reduce((a, b) => a + b, 0),
      0,
    );
    const accuracy = (100 * hits) / (records.length * WINDOW * BLOCK);
    return { ...rest, sample: (i + WINDOW) * BLOCK, accuracy: Number(accuracy.toFixed(2)) };
  });
}
