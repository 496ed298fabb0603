import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";

export interface Curve {
  readonly name: string;
  readonly colour: string;
  /** Online accuracy after each sample. */
  readonly accuracy: readonly number[];
}

/** Height of a label in points of accuracy. */
const LABEL_DISTANCE = 4.5;

/** Online accuracy against samples as a standalone SVG. */
export function accuracyPlot(curves: readonly Curve[], title: string): string {
  const points = curves.flatMap(({ name, colour, accuracy }) => {
    const every = Math.max(1, Math.floor(accuracy.length / 400));
    return accuracy.flatMap((value, i) =>
      // The first samples swing between 0 and 1 and say nothing.
      i >= 20 && (i % every === 0 || i === accuracy.length - 1)
        ? [{ name, colour, sample: i + 1, accuracy: 100 * value }]
        : [],
    );
  });
  const ends = curves
    .map(({ name, colour, accuracy }) => ({
      name: `${name} ${(100 * accuracy.at(-1)!).toFixed(1)} %`,
      colour,
      sample: accuracy.length,
      accuracy: 100 * accuracy.at(-1)!,
    }))
    .sort((a, b) => a.accuracy - b.accuracy);
  for (let i = 1; i < ends.length; i++) {
    // Labels of curves that end close to each other move apart.
    ends[i]!.accuracy = Math.max(ends[i]!.accuracy, ends[i - 1]!.accuracy + LABEL_DISTANCE);
  }
  const { document } = parseHTML("<!doctype html><body></body>");
  const figure = Plot.plot({
    document,
    width: 760,
    height: 460,
    marginTop: 56,
    marginLeft: 52,
    marginRight: 130,
    style: { fontSize: "13px", background: "white" },
    x: { label: "samples seen", grid: false },
    y: {
      label: "online accuracy (%)",
      labelAnchor: "center",
      labelArrow: "none",
      domain: [0, 100],
      grid: true,
    },
    marks: [
      Plot.ruleY([0]),
      Plot.text([title], { frameAnchor: "top", dy: -44, fontSize: 15, fontWeight: "bold" }),
      Plot.line(points, { x: "sample", y: "accuracy", stroke: "colour", strokeWidth: 2 }),
      Plot.text(ends, {
        x: "sample",
        y: "accuracy",
        text: "name",
        fill: "colour",
        textAnchor: "start",
        dx: 8,
        fontWeight: "bold",
      }),
    ],
  });
  const svg = figure.tagName.toLowerCase() === "svg" ? figure : figure.querySelector("svg")!;
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return `<?xml version="1.0" encoding="UTF-8"?>\n${svg.outerHTML}\n`;
}
