import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";

export interface Curve {
  readonly name: string;
  readonly colour: string;
  /** Online accuracy after each sample. */
  readonly accuracy: readonly number[];
}

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
  const ends = curves.map(({ name, colour, accuracy }) => ({
    name: `${name} ${(100 * accuracy.at(-1)!).toFixed(1)} %`,
    colour,
    sample: accuracy.length,
    accuracy: 100 * accuracy.at(-1)!,
  }));
  const { document } = parseHTML("<!doctype html><body></body>");
  const figure = Plot.plot({
    document,
    title,
    width: 760,
    height: 440,
    marginRight: 130,
    style: { fontSize: "13px", background: "white" },
    x: { label: "samples seen", grid: false },
    y: { label: "online accuracy (%)", domain: [0, 100], grid: true },
    marks: [
      Plot.ruleY([0]),
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
