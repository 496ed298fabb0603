import { describe, expect, test } from "vitest";
import { renderChart, shortNumber, thin, ticksOf } from "../../../lib/report/chart.js";
import { renderReport } from "../../../lib/report/html.js";

describe("a chart", () => {
  test("has round ticks inside its range", () => {
    expect(ticksOf(0, 1)).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1]);
    expect(ticksOf(10, 1000)).toEqual([200, 400, 600, 800, 1000]);
    expect(ticksOf(-0.3, 0.1)).toEqual([-0.3, -0.2, -0.1, 0, 0.1]);
    expect(ticksOf(5, 5)).toEqual([5]);
    for (const high of [0.07, 3, 17, 1e9]) expect(ticksOf(0, high).length).toBeLessThanOrEqual(7);
  });

  test("writes numbers short", () => {
    const texts = [0, 1500, 0.05, 1e-12, 1234567, -0.5].map(shortNumber);
    expect(texts).toEqual(["0", "1,500", "0.05", "1e-12", "1.23e6", "-0.5"]);
  });

  test("draws each value where its axis says", () => {
    const svg = renderChart({
      title: "a <b>",
      series: [
        { name: "up", points: [[0, 0], [50, 1], [100, 4]] }, // biome-ignore format: pairs
        { name: "one", points: [[50, 2]] },
      ],
    });
    // The plot spans 62 to 536 and 12 to 226: (0, 0) is bottom left, (100, 4) top right.
    expect(svg).toContain('points="62.0,226.0 299.0,172.5 536.0,12.0"');
    expect(svg).toContain('<circle class="s1" cx="299.0" cy="119.0" r="3"/>');
    expect(svg).toContain("a &lt;b&gt;");
    expect(svg).toContain("up <b>4</b>");
  });

  test("with decades leaves out what has no logarithm, and is empty without a point", () => {
    const points = [[0, 0], [1, 1], [2, 100]] as const; // biome-ignore format: pairs
    const svg = renderChart({ title: "p", isLogarithmic: true, series: [{ name: "p", points }] });
    expect(svg).toContain('points="62.0,226.0 536.0,12.0"');
    const nothing = [{ name: "p", points: [[0, 0]] as const }];
    expect(renderChart({ title: "p", isLogarithmic: true, series: nothing })).toBe("");
    expect(renderChart({ title: "p", series: [] })).toBe("");
  });

  test("keeps the ends of a long series", () => {
    const kept = thin(
      Array.from({ length: 10_001 }, (_, i) => i),
      11,
    );
    expect(kept).toEqual([0, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000, 10_000]);
  });
});

test("a report shows what was logged and nothing else, whatever its facts hold", () => {
  const page = renderReport({
    title: "run",
    facts: [["model", '<script>alert("x")</script>']],
    log: [
      { step: 10, loss: 0.5, learning_rate: 1e-3 },
      { step: 20, loss: 0.25, learning_rate: 5e-4, eval_loss: 0.3 },
    ],
  });
  expect(page).toContain("&lt;script&gt;alert(&quot;x&quot;)");
  expect(page).toContain("<figcaption>Loss</figcaption>");
  expect(page).toContain("<figcaption>Learning rate</figcaption>");
  expect(page).not.toContain("Covariance");
  expect(renderReport({ title: "run", facts: [], log: [] })).toContain("Nothing has been logged");
});
